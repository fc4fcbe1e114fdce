import { ENV, type EnvKind, type EnvName, type EnvVariable } from './env.js';

/** Variables that the Helm chart sets from values of its own, or from secrets. */
export const SET_BY_CHART: readonly EnvName[] = [
  'PORT',
  'STATE_DIR',
  'DATABASE_URL',
  'S3_ENDPOINT',
  'S3_ACCESS_KEY',
  'S3_SECRET_KEY',
  'S3_SSL_VALIDATE',
  'JOB_LAUNCHER',
  'DEFAULT_IMS_JOB_NAMESPACE',
  'JOB_REPORT_PORT',
  'JOB_SERVER_URL',
  'JOB_WORKER_IMAGE',
  'JOB_BUILDER_IMAGE',
  'JOB_IMAGE_PULL_POLICY',
  'JOB_STORAGE_CLASS',
  'JOB_S3_SECRET',
  'JOB_SIGNING_KEYS_SECRET',
  'JOB_SIGNING_KEYS_NAMESPACE',
  'JOB_MOUNT_SERVICE_ACCOUNT',
  'JOB_POD_SETTINGS',
  'CA_CERT',
  'REMOTE_BUILD_NODE_KEY',
];

/** Variables that mean something only where jobs run on the machine of the server. */
export const ONE_MACHINE_ONLY: readonly EnvName[] = [
  'EMBEDDED_S3_PORT',
  'JOB_MAX_RUNNING',
  'JOB_SSH_PORTS',
  'JOB_SSH_LISTEN_ADDRESS',
  'JOB_SSH_HOST',
  'JOB_KIWI_DIR',
  'JOB_SIGNING_KEYS_DIR',
];

const OTHERS = new Set<string>([...SET_BY_CHART, ...ONE_MACHINE_ONLY]);

function schemaOfKind(type: EnvKind): object {
  switch (type.kind) {
    case 'integer':
      return { type: 'integer', minimum: type.min, maximum: type.max };
    case 'choice':
      return { type: 'string', enum: type.of };
    case 'boolean':
      return { type: 'boolean' };
    default:
      return { type: 'string', minLength: 1 };
  }
}

/** JSON Schema of the members of the chart's value `settings`, from the table that the server reads them by. */
export function chartSettingsSchema(): Record<string, object> {
  const settings = Object.entries<EnvVariable>(ENV).filter(([name]) => !OTHERS.has(name));
  return Object.fromEntries(
    settings.map(([name, { type, comment, default: fallback }]) => [
      name,
      { description: fallback ? `${comment} Default: ${fallback}` : comment, ...schemaOfKind(type) },
    ]),
  );
}

/** The text of values.schema.json with the settings that the server knows now. */
export function withSettings(schemaText: string): string {
  const schema = JSON.parse(schemaText) as { properties: { settings: { properties: object } } };
  schema.properties.settings.properties = chartSettingsSchema();
  return `${JSON.stringify(schema, null, 2)}\n`;
}
