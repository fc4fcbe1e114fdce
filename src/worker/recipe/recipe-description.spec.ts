import { parseDescription, tellable } from './recipe-description.js';

const description = (content: string) =>
  `<?xml version="1.0"?>\n<image schemaversion="7.5" name="x">${content}</image>`;
const probes = (content: string) =>
  parseDescription(description(content)).repositories.map(({ name, probe }) => [name, probe.href]);

describe('the repositories of a description', () => {
  it.each([
    [
      'rpm-md',
      '<repository type="rpm-md" alias="sles"><source path="http://host/a/"/></repository>',
      ['sles', 'http://host/a/repodata/repomd.xml'],
    ],
    [
      'Debian with a distribution',
      '<repository type="apt-deb" alias="deb" distribution="bookworm" components="main"><source path="https://host/debian"/></repository>',
      ['deb', 'https://host/debian/dists/bookworm/Release'],
    ],
    [
      'Debian without one',
      '<repository type="apt-deb" alias="flat"><source path="http://host/flat"/></repository>',
      ['flat', 'http://host/flat/Release'],
    ],
    [
      'one with a query and a password, and no name',
      '<repository><source path="https://me:secret@host/a?token=1"/></repository>',
      ['https://host/a', 'https://me:secret@host/a/repodata/repomd.xml?token=1'],
    ],
  ])('%s is asked for what it always has', (_what, content, expected) => {
    expect(probes(content)).toEqual([expected]);
  });

  it.each([
    ['a list of mirrors', 'sourcetype="mirrorlist"', 'http://host/list'],
    ['a metalink', 'type="rpm-md" sourcetype="metalink"', 'http://host/list'],
    ['a base', 'sourcetype="baseurl"', 'http://host/list/repodata/repomd.xml'],
    [
      'one with a user and a password',
      'username="m@" password="50%/"',
      'http://m%40:50%25%2F@host/list/repodata/repomd.xml',
    ],
    ['one with a user alone', 'username="me"', 'http://host/list/repodata/repomd.xml'],
  ])('%s is asked at the address of its kind', (_what, attributes, expected) => {
    const repository = `<repository alias="x" ${attributes}><source path="http://host/list"/></repository>`;
    expect(probes(repository)).toEqual([['x', expected]]);
  });

  it.each([
    ['imageonly="true"', false],
    ['imageonly="1"', false],
    ['imageonly="false"', true],
    ['imageinclude="true"', true],
    ['profiles="Live"', false],
    ['profiles="Live,Disk"', true],
    ['profiles="Other"', false],
  ])('one with %s is used by the build: %s', (attributes, expected) => {
    const profiles = '<profiles><profile name="Live"/><profile name="Disk" import="true"/></profiles>';
    const repository = `<repository ${attributes}><source path="http://host/a"/></repository>`;
    expect(probes(`${profiles}${repository}`)).toHaveLength(expected ? 1 : 0);
  });

  it('are told with the architectures that they are for', () => {
    const text = description(
      '<repository arch="aarch64,ppc64le"><source path="http://host/a"/></repository><repository><source path="http://host/b"/></repository>',
    );
    const { repositories } = parseDescription(text);
    expect(repositories.map(({ architectures }) => architectures)).toEqual([['aarch64', 'ppc64le'], []]);
  });

  it('that are not reached by http or https, or whose address has variables, are not asked', () => {
    const paths = [
      'dir:///srv/repo',
      'obs://openSUSE:Factory/standard',
      'ftp://host/a',
      'not a url',
      'http://host/$basearch/os',
    ];
    expect(probes(paths.map((path) => `<repository><source path="${path}"/></repository>`).join(''))).toEqual([]);
  });

  it('are all found, wherever they stand', () => {
    const one = (name: string) => `<repository alias="${name}"><source path="http://${name}/"/></repository>`;
    expect(probes(`${one('a')}<packages type="image"/>${one('b')}`).map(([name]) => name)).toEqual(['a', 'b']);
  });
});

it.each([
  ['<preferences><version>1</version><packagemanager> dnf4 </packagemanager></preferences>', 'dnf4'],
  ['<preferences/><preferences><packagemanager>apt</packagemanager></preferences>', 'apt'],
  ['<preferences><version>1</version></preferences>', 'dnf4'],
])('the package manager of %s is %s', (content, expected) => {
  expect(parseDescription(description(content)).packageManager).toBe(expected);
});

it.each([
  ['<preferences><rpm-check-signatures>true</rpm-check-signatures></preferences>', true],
  ['<preferences/><preferences><rpm-check-signatures> true </rpm-check-signatures></preferences>', true],
  ['<preferences><rpm-check-signatures>1</rpm-check-signatures></preferences>', true],
  ['<preferences><rpm-check-signatures>false</rpm-check-signatures></preferences>', false],
  ['<preferences/>', false],
])('whether %s checks signatures is %s', (content, expected) => {
  expect(parseDescription(description(content)).checksSignatures).toBe(expected);
});

it.each(['', 'no xml <', '<image>', '<other/>', '<image>text</image>'])(
  'nothing is known of %j, which KIWI-NG has to judge',
  (text) => {
    expect(parseDescription(text)).toEqual({ repositories: [], packageManager: null, checksSignatures: false });
  },
);

it('a repository that is a text is none', () => {
  expect(parseDescription('<image><repository>text</repository></image>').repositories).toEqual([]);
});

it('entities of a description are not followed', () => {
  const text = `<!DOCTYPE image [<!ENTITY x SYSTEM "file:///etc/passwd">]><image><repository alias="&x;"><source path="http://host/"/></repository></image>`;
  expect(JSON.stringify(parseDescription(text))).not.toContain('root:');
});

it('an address is told without user, password and query', () => {
  expect(tellable(new URL('https://me:secret@host:8/a?token=1#x'))).toBe('https://host:8/a');
});
