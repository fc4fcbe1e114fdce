import { mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile, chmod } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TemplateValue } from '../../src/protocol/job-spec.js';
import { SystemCommands } from '../../src/worker/commands.js';
import { provideKiwi } from '../../src/worker/kiwi/kiwi-environment.js';
import { renderTemplates } from '../../src/worker/recipe/render-templates.js';

const LIST = '.ims_recipe_template.yaml';
const commands = new SystemCommands();

let python: string;
let recipe: string;
let log: string[];

beforeAll(async () => {
  python = await provideKiwi(path.join(tmpdir(), 'ims-test-kiwi'), commands, () => {});
}, 240_000);
beforeEach(async () => {
  recipe = await mkdtemp(path.join(tmpdir(), 'ims-templates-'));
  log = [];
});
afterEach(() => rm(recipe, { recursive: true, force: true }));

const at = (name: string) => path.join(recipe, name);
const values = (record: Record<string, string>): TemplateValue[] =>
  Object.entries(record).map(([key, value]) => ({ key, value }));

async function render(
  files: Record<string, string>,
  dictionary: Record<string, string>,
  limits?: { seconds: number; memory: number },
): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    await mkdir(path.dirname(at(name)), { recursive: true });
    await writeFile(at(name), content);
  }
  await renderTemplates(recipe, values(dictionary), python, commands, (message) => log.push(message), limits);
}

/** Renders one template. */
async function text(template: string, dictionary: Record<string, string> = { NAME: 'value' }): Promise<string> {
  await render({ [LIST]: 'template_files: [config.xml]\n', 'config.xml': template }, dictionary);
  return readFile(at('config.xml'), 'utf8');
}

describe('a template', () => {
  it.each([
    ['{{ NAME }}\n', 'value\n'],
    ["{{ OTHER | default('none') }} {{ NAME | upper }}", 'none VALUE'],
    ["{% if NAME == 'value' %}yes{% else %}no{% endif %}", 'yes'],
    ["{% for word in 'a b'.split() %}<{{ word }}>{% endfor %}", '<a><b>'],
    ['{# a comment #}{% raw %}{{ kept }}{% endraw %}', '{{ kept }}'],
    ['<a b="&amp;">ö</a>', '<a b="&amp;">ö</a>'],
  ])('%j becomes %j', async (template, expected) => {
    expect(await text(template)).toBe(expected);
  });

  it('keeps its mode, and a value is not rendered itself', async () => {
    await writeFile(at('run.sh'), '');
    await chmod(at('run.sh'), 0o751);
    await render({ [LIST]: 'template_files:\n- run.sh\n', 'run.sh': '{{ NAME }}' }, { NAME: '{{ NAME }}$(id)' });
    expect(await readFile(at('run.sh'), 'utf8')).toBe('{{ NAME }}$(id)');
    expect((await stat(at('run.sh'))).mode & 0o7777).toBe(0o751);
  });

  it.each([
    ['\n\n{{ MISSING }}', /\(config\.xml, line 3\): 'MISSING' is undefined: give the template_dictionary/],
    ['{{ NAME.missing }}', /\(config\.xml, line 1\): .*no attribute 'missing'/],
    ['\n{% if %}', /\(config\.xml, line 2\): Expected an expression/],
    ['{% for x in NAME %}', /\(config\.xml, line 1\): Unexpected end of template/],
    ["{{ ''.__class__.__mro__ }}", /\(config\.xml, line 1\): access to attribute '__class__' .* is unsafe/],
    ["{% include '/etc/passwd' %}", /\(config\.xml, line 1\): no loader/],
    ['{% for x in range(1000000000) %}{% endfor %}', /\(config\.xml, line 1\): Range too big/],
    ["{{ 'x' * 100000000000 }}", /\(config\.xml\): it takes too much memory/],
    ["{{ 'x' * 10000000 }}", /take more time or memory than they may, or become too large/],
  ])('%j is an error that says where and why', async (template, reason) => {
    await expect(text(template)).rejects.toThrow(reason);
  });
});

it('templates are filled in by nobody, who sees neither this process nor its files', async () => {
  const secret = at('secret');
  await writeFile(secret, 'secret', { mode: 0o600 });
  const spy = `#!/usr/bin/python3
import json, os
def may_read(path):
    try:
        return bool(open(path).read())
    except PermissionError:
        return False
seen = [os.getuid(), os.getgid(), os.getgroups(), may_read('${secret}'), may_read(f'/proc/{os.getppid()}/environ')]
print(json.dumps({'error': {'line': None, 'message': json.dumps(seen)}}))
`;
  await writeFile(at('python'), spy, { mode: 0o755 });
  await writeFile(at(LIST), 'template_files: []\n');
  await chmod(recipe, 0o755);
  await expect(renderTemplates(recipe, [], at('python'), commands, () => {})).rejects.toThrow(
    '): [65534, 65534, [], false, false]',
  );
});

it('a template that comes to no end is ended', async () => {
  const nested = '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}';
  const files = { [LIST]: 'template_files: [config.xml]\n', 'config.xml': nested };
  await expect(render(files, { NAME: 'value' }, { seconds: 1, memory: 1 << 30 })).rejects.toThrow(
    'the templates of the recipe take more time or memory than they may, or become too large: make them simpler',
  );
});

describe('the list of templates', () => {
  it('is missing: nothing is filled in, and a dictionary is told of', async () => {
    await render({ 'config.xml': '{{ NAME }}' }, { NAME: 'value' });
    expect(await readFile(at('config.xml'), 'utf8')).toBe('{{ NAME }}');
    expect(log).toEqual([expect.stringMatching(/has no \.ims_recipe_template\.yaml: nothing is filled in/)]);
  });

  it('is there, but the record has no values', async () => {
    const files = { [LIST]: 'template_files: [config.xml]\n', 'config.xml': 'x' };
    await expect(render(files, {})).rejects.toThrow(/no template_dictionary to fill them with/);
  });

  it.each([
    ['template_files: [', /\(\.ims_recipe_template\.yaml, line \d\)/],
    ['template_files: config.xml', /must have a list of paths, template_files/],
    ['template_files: [1]', /must have a list of paths/],
    ['2026-11-30: x', /must have a list of paths/],
    ['', /must have a list of paths/],
    ['!!python/object/apply:os.system ["id"]', /could not determine a constructor/],
    ['template_files: [missing.xml]', /"missing\.xml" that the recipe lists is not in it/],
    ['template_files: [../other/x]', /"\.\.\/other\/x" that the recipe lists is outside of the recipe/],
    ['template_files: [/etc/passwd]', /"\/etc\/passwd" that the recipe lists is outside of the recipe/],
    ['template_files: [directory]', /"directory" that the recipe lists is not a regular file/],
    ['template_files: [link]', /"link" that the recipe lists is reached by a link/],
    ['template_files: [linked/passwd]', /"linked\/passwd" that the recipe lists is reached by a link/],
  ])('%j is refused', async (list, reason) => {
    await mkdir(at('directory'));
    await symlink('/etc/hostname', at('link'));
    await symlink('/etc', at('linked'));
    await expect(render({ [LIST]: list }, { NAME: 'value' })).rejects.toThrow(reason);
  });
});
