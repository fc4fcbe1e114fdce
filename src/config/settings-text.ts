import { ENV, type EnvKind, type EnvVariable } from './env.js';

function describeKind(type: EnvKind): string {
  switch (type.kind) {
    case 'integer':
      return `${type.min} to ${type.max}`;
    case 'choice':
      return type.of.join(', ');
    case 'url':
      return type.protocols.map((protocol) => `${protocol}//…`).join(', ');
    case 'ports':
      return 'first-last';
    case 'json':
      return 'a JSON object';
    case 'boolean':
      return 'true, false';
    case 'boolean-or-path':
      return 'true, false, or a path';
    default:
      return 'text';
  }
}

/** The text of docs/settings.md: every variable of the environment, from the table that the server reads them by. */
export function settingsText(): string {
  const rows = Object.entries<EnvVariable>(ENV).map(
    ([name, { type, default: fallback, comment }]) =>
      `| \`${name}\` | ${comment} | ${describeKind(type)} | ${fallback ? `\`${fallback}\`` : ''} |`,
  );
  return [
    '# Settings',
    '',
    'Environment variables, read once at start. An empty one counts as unset. A start-up error names every mistake at once.',
    'Made from `src/config/env.ts` by `npm run openapi`.',
    '',
    '| variable | meaning | values | default |',
    '|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}
