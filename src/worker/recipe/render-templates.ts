import { type FileHandle, open } from 'node:fs/promises';
import { constants } from 'node:fs';
import type { TemplateValue } from '../../protocol/job-spec.js';
import { CommandFailed, type Commands } from '../commands.js';
import { isMissing } from '../in-root.js';
import { JobFailure } from '../job-failure.js';
import { openBeneath, SystemCallFailed } from '../linux.js';
import type { Log } from '../log.js';

/** Lists the templates of a recipe. */
const TEMPLATE_LIST = '.ims_recipe_template.yaml';
/** Largest template, bytes. */
const TEMPLATE_LIMIT = 1024 * 1024;
/** Seconds of processor time, and bytes of memory, that all templates of a recipe may take. */
const LIMITS = { seconds: 60, memory: 1024 ** 3 };

/**
 * Jinja2 itself, in its sandbox: recipes were written for it. It gets texts and gives texts; it opens no file, and a template can load no
 * other. Errors name the line of the template, which is found in the traceback.
 */
const RENDER = `
import json, resource, sys, traceback
seconds, memory = (int(argument) for argument in sys.argv[1:])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
import jinja2, jinja2.sandbox, yaml

def list_templates(request):
    try:
        return {'list': yaml.safe_load(request['text'])}
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        problem = getattr(error, 'problem', None) or 'not valid'
        return {'error': {'line': mark.line + 1 if mark else None, 'message': str(problem)}}

def line_of(error, name):
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return lines[-1] if lines else None

def render_templates(request):
    environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    rendered = []
    for template in request['templates']:
        name = template['name']
        try:
            code = environment.compile(template['text'], name, name)
            loaded = jinja2.Template.from_code(environment, code, environment.make_globals(None))
            rendered.append(loaded.render(request['values']))
        except MemoryError:
            return {'error': {'name': name, 'line': None, 'message': 'it takes too much memory'}}
        except Exception as error:
            return {'error': {'name': name, 'line': line_of(error, name), 'message': str(error) or type(error).__name__}}
    return {'rendered': rendered}

request = json.load(sys.stdin)
answer = (list_templates if 'text' in request else render_templates)(request)
json.dump(answer, sys.stdout, default=str, skipkeys=True)
`;

/** Whoever breaks out of the sandbox is nobody: this process, whose environment holds keys, and the job's files are not for him. */
const AS_NOBODY = ['--reuid=65534', '--regid=65534', '--clear-groups', '--no-new-privs', '--'];

interface RenderError {
  name?: string;
  line: number | null;
  message: string;
}

interface Template {
  name: string;
  file: FileHandle;
  text: string;
}

/**
 * Fills in the templates that a recipe lists, in place.
 * @param python interpreter that has Jinja2, and that anybody may run
 * @throws JobFailure where a template, or the list of them, is wrong: it names file, line and key
 */
export async function renderTemplates(
  recipe: string,
  dictionary: readonly TemplateValue[],
  python: string,
  commands: Commands,
  log: Log,
  limits = LIMITS,
): Promise<void> {
  const answer = (request: object) => ask(request, python, commands, limits);
  const names = await listTemplates(recipe, answer);
  if (!names) {
    if (dictionary.length)
      log(`the recipe record has a template_dictionary, but the recipe has no ${TEMPLATE_LIST}: nothing is filled in`);
    return;
  }
  if (!dictionary.length)
    throw new JobFailure(
      `the recipe has templates (${TEMPLATE_LIST}), but its record has no template_dictionary to fill them with: give it one by PATCH`,
    );
  const templates: Template[] = [];
  try {
    for (const name of names) templates.push(await openTemplate(recipe, name));
    const values = Object.fromEntries(dictionary.map(({ key, value }) => [key, value]));
    const request = { templates: templates.map(({ name, text }) => ({ name, text })), values };
    const { rendered, error } = (await answer(request)) as { rendered?: string[]; error?: RenderError };
    if (error) throw wrongTemplate(error);
    for (const [index, { file }] of templates.entries()) await rewrite(file, rendered![index]!);
    log('filled in the templates', { files: names.join(', ') });
  } finally {
    for (const { file } of templates) await file.close();
  }
}

async function ask(request: object, python: string, commands: Commands, limits: typeof LIMITS): Promise<unknown> {
  try {
    const args = ['-I', '-c', RENDER, String(limits.seconds), String(limits.memory)];
    const { stdout } = await commands.run('setpriv', [...AS_NOBODY, python, ...args], {
      input: JSON.stringify(request),
    });
    return JSON.parse(stdout);
  } catch (error) {
    if (!(error instanceof CommandFailed)) throw error;
    throw new JobFailure(
      'the templates of the recipe take more time or memory than they may, or become too large: make them simpler',
      { cause: error },
    );
  }
}

function wrongTemplate({ name, line, message }: RenderError): JobFailure {
  const place = `${name}${line === null ? '' : `, line ${line}`}`;
  const advice = message.endsWith('is undefined')
    ? ': give the template_dictionary of the recipe that key, or the template a default'
    : '';
  return new JobFailure(`a template of the recipe cannot be filled in (${place}): ${message}${advice}`);
}

/** The names that the recipe lists; null where it has no list. */
async function listTemplates(recipe: string, answer: (request: object) => Promise<unknown>): Promise<string[] | null> {
  const list = await openTemplate(recipe, TEMPLATE_LIST).catch((error: unknown) => {
    if (error instanceof NoSuchTemplate) return null;
    throw error;
  });
  if (!list) return null;
  await list.file.close();
  const { list: content, error } = (await answer({ text: list.text })) as { list?: unknown; error?: RenderError };
  if (error) throw wrongTemplate({ ...error, name: TEMPLATE_LIST });
  const names = (content as { template_files?: unknown } | null)?.template_files;
  if (!Array.isArray(names) || !names.every((name) => typeof name === 'string'))
    throw new JobFailure(`${TEMPLATE_LIST} of the recipe must have a list of paths, template_files, and has none`);
  return [...new Set(names as string[])];
}

/** The recipe has no such file. */
class NoSuchTemplate extends JobFailure {}

/** Opens a file of the recipe, in which no link may be followed, for reading and writing. */
async function openTemplate(recipe: string, name: string): Promise<Template> {
  const file = await openForRewrite(recipe, name);
  try {
    const { size } = await file.stat();
    if (size > TEMPLATE_LIMIT)
      throw new JobFailure(`the template ${JSON.stringify(name)} of the recipe is larger than 1 MiB`);
    return { name, file, text: await file.readFile('utf8') };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openForRewrite(recipe: string, name: string): Promise<FileHandle> {
  const what = `the template ${JSON.stringify(name)} that the recipe lists`;
  try {
    const place = openBeneath(recipe, name, 'any', 'refuse');
    try {
      if (!place.stat().isFile()) throw new JobFailure(`${what} is not a regular file`);
      return await open(place.path, constants.O_RDWR);
    } finally {
      place.close();
    }
  } catch (error) {
    if (!(error instanceof SystemCallFailed)) throw error;
    if (error.code === 'EXDEV') throw new JobFailure(`${what} is outside of the recipe`, { cause: error });
    if (error.code === 'ELOOP')
      throw new JobFailure(`${what} is reached by a link: list the file itself`, { cause: error });
    if (isMissing(error)) throw new NoSuchTemplate(`${what} is not in it`, { cause: error });
    throw error;
  }
}

async function rewrite(file: FileHandle, text: string): Promise<void> {
  await file.truncate(0);
  const content = Buffer.from(text);
  await file.write(content, 0, content.length, 0);
}
