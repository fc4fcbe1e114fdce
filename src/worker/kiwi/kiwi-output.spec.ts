import { KiwiOutput } from './kiwi-output.js';

/** What KIWI-NG 11 prints to standard error for a description that the schema does not take. */
const SCHEMA_ERROR = [
  '[ DEBUG   ]: 02:00:01 | EXEC: [jing /usr/share/kiwi/kiwi.rng config.xml]',
  '[ ERROR   ]: 02:00:02 | Schema validation failed',
  '[ INFO    ]: 02:00:02 | <string>:8:0:ERROR:RELAXNGV:RELAXNG_ERR_EXTRACONTENT: Element preferences has extra content: vers',
  '[ ERROR   ]: 02:00:02 | KiwiDescriptionInvalid: Failed to validate schema and/or schematron rules',
];

function read(lines: readonly string[], stream: 'stdout' | 'stderr' = 'stderr'): KiwiOutput {
  const output = new KiwiOutput();
  for (const line of lines) output.add(line, stream);
  return output;
}

describe('how far a build is', () => {
  it.each([
    ['[ INFO    ]: 02:00:01 | Preparing new root system', 'Preparing new root system', null],
    ['[ INFO    ]: 02:00:01 | Calling images.sh script', 'Calling images.sh script', null],
  ])('%s', (line, stage, done) => {
    expect(new KiwiOutput().add(line, 'stdout')).toEqual({ stage, done, total: null });
  });

  it('is told once for each stage, and by percents within it', () => {
    const output = new KiwiOutput();
    const stage = 'Installing bootstrap packages';
    expect(output.add(`[ INFO    ]: 02:00:01 | ${stage}`, 'stdout')).toMatchObject({ stage });
    expect(output.add(`[ INFO    ]: 02:00:01 | ${stage}`, 'stdout')).toBeNull();
    const bars = '[ INFO    ]: Processing: [####      ] 40%\r[ INFO    ]: Processing: [########  ] 80%';
    expect(output.add(bars, 'stdout')).toEqual({ stage, done: 80, total: 100 });
  });

  it.each(['[ DEBUG   ]: 02:00:01 | Preparing new root system', 'Preparing new root system', '', '[ INFO    ]: else'])(
    'is not told by %j',
    (line) => expect(new KiwiOutput().add(line, 'stdout')).toBeNull(),
  );
});

describe('why a build failed', () => {
  it('is its last error, with the lines that belong to it', () => {
    const output = read([
      '[ ERROR   ]: 02:00:01 | an error that was not the last',
      '[ INFO    ]: 02:00:01 | something else',
      '[ ERROR   ]: 02:00:02 | KiwiScriptFailed: config.sh failed with: ',
      'broken',
      ':',
      '',
      '[ INFO    ]: 02:00:03 | Cleaning up',
    ]);
    expect(output.reason([])).toBe('KiwiScriptFailed: config.sh failed with: broken');
  });

  it('names the place in the description', () => {
    expect(read(SCHEMA_ERROR).reason([])).toBe(
      'KiwiDescriptionInvalid: Failed to validate schema and/or schematron rules (near line 8: Element preferences has extra content: vers)',
    );
  });

  it('is the last line of a traceback, where KIWI-NG did not expect the error', () => {
    const output = read([
      '[ ERROR   ]: 02:00:01 | Unexpected error:',
      'Traceback (most recent call last):',
      '  File "kiwi.py", line 1, in main',
      'ValueError: too many values to unpack',
    ]);
    expect(output.reason([])).toBe('ValueError: too many values to unpack');
  });

  it('is not what a script printed', () => {
    expect(read(['[ ERROR   ]: 02:00:01 | made up by a script'], 'stdout').reason([])).toBeNull();
  });

  it('tells neither paths of the machine nor credentials, and has an end', () => {
    const url = 'https://me:secret@host/repo?token=secret';
    const output = read([`[ ERROR   ]: 02:00:01 | Kiwi: /var/tmp/image/recipe/config.xml ${url} ${'x'.repeat(5000)}`]);
    const reason = output.reason(['/var/tmp/image/recipe/', '/var/tmp/image/'])!;
    expect(reason).toMatch(/^Kiwi: config\.xml https:\/\/host\/repo\?… x+…$/);
    expect(reason.length).toBe(1501);
  });
});
