import { STATUS_CODES } from 'node:http';

/** Messages by member; those of nested objects and list items are nested by member name and index. */
export interface MemberErrors {
  [member: string]: string[] | MemberErrors;
}

/** An answer that is not the one that the client hoped for: RFC 7807, with a sentence that says what to change. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    /** Name in the catalogue, for programs; documented in docs/errors.md. */
    readonly code: string,
    readonly detail: string,
    readonly errors?: MemberErrors,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(detail);
    this.name = 'Problem';
  }

  /** The status's standard phrase: the `cray` command line prints it before the detail. */
  get title(): string {
    return STATUS_CODES[this.status] ?? 'Error';
  }

  /** The body of the answer. */
  toJSON(): Record<string, unknown> {
    const { status, title, detail, code, errors } = this;
    return { status, title, detail, code, ...(errors && { errors }) };
  }
}

/** The messages of `errors` in one line, for clients that print nothing but the detail. */
function inOneLine(errors: MemberErrors, prefix = ''): string {
  return Object.entries(errors)
    .map(([member, value]) => {
      const name = prefix ? `${prefix}.${member}` : member;
      return Array.isArray(value) ? `${name}: ${value.join(' ')}` : inOneLine(value, name);
    })
    .join(' ');
}

/** The status of several problems in one: theirs where they share one. */
function sharedStatus(failures: readonly Problem[]): number {
  const [first, ...others] = failures.map(({ status }) => status);
  return others.every((status) => status === first) ? first! : 422;
}

/** What records are called in sentences. */
export type RecordKind = 'public key' | 'recipe' | 'image' | 'job' | 'remote build node' | 'record';

/** Every problem that the service answers with. Throw from here: a status belongs to the problem, never to a place that throws it. */
export const problems = {
  noSuchRecord: (kind: RecordKind, id: string) =>
    new Problem(
      404,
      'no-such-record',
      `There is no ${kind} with the id ${id}. List the ${kind}s to see which there are.`,
    ),
  noSuchRoute: (path: string) =>
    new Problem(404, 'no-such-route', `There is nothing at ${path}. /docs lists what there is.`),
  methodNotAllowed: (method: string, allowed: readonly string[]) =>
    new Problem(405, 'method-not-allowed', `${method} is not possible here; ${allowed.join(', ')} are.`, undefined, {
      Allow: allowed.join(', '),
    }),
  unsupportedMediaType: () =>
    new Problem(
      415,
      'unsupported-media-type',
      'The body must be JSON: send it with the header Content-Type: application/json.',
    ),
  bodyTooLarge: (limit: number) =>
    new Problem(413, 'body-too-large', `The body is larger than ${limit} bytes: send less, or raise MAX_BODY_BYTES.`),
  malformedJson: (what: string) => new Problem(400, 'malformed-json', `The body is not valid JSON: ${what}.`),
  headersTooLarge: () =>
    new Problem(
      431,
      'headers-too-large',
      'The headers and the path of the request are too large: send less than 16 KiB.',
    ),
  requestTooSlow: () =>
    new Problem(408, 'request-too-slow', 'The request did not arrive in time. Send it again, and faster.'),
  malformedRequest: (what: string) => new Problem(400, 'malformed-request', `The request is not understood: ${what}.`),
  noInput: () =>
    new Problem(
      400,
      'no-input',
      'The request needs a body: a JSON object with the members that the documentation names.',
    ),
  badQuery: (what: string) =>
    new Problem(400, 'bad-query', `The query is not understood: ${what}. Nothing was changed.`),
  invalid: (errors: MemberErrors) =>
    new Problem(422, 'invalid-input', `The input is not valid. ${inOneLine(errors)}`, errors),

  badIdempotencyKey: () =>
    new Problem(
      400,
      'bad-idempotency-key',
      'The header Idempotency-Key must be given once, with 1 to 255 visible ASCII characters.',
    ),
  idempotencyKeyReused: () =>
    new Problem(
      422,
      'idempotency-key-reused',
      'The Idempotency-Key was given to another request. Make up a new key for each request.',
    ),
  idempotencyKeyInUse: () =>
    new Problem(
      409,
      'idempotency-key-in-use',
      'The same request is being worked on. Send it again in a moment to get its answer.',
    ),

  linkInUse: (path: string) =>
    new Problem(
      422,
      'link-in-use',
      `Another record links to ${path} already. Delete that record, or link to another artifact.`,
    ),
  linkTaken: (path: string) =>
    new Problem(
      409,
      'link-taken',
      `Another record links to ${path} by now, so that this one cannot come back. Delete that record first.`,
    ),
  placeTaken: (path: string) =>
    new Problem(
      409,
      'place-taken',
      `Something else is at ${path} by now, where an artifact of this record belongs. Move or remove it first.`,
    ),
  artifactLeaving: (path: string) =>
    new Problem(
      422,
      'artifact-leaving',
      `The artifact ${path} is about to go with a record that was deleted. Upload it again to another place.`,
    ),
  notAllUndeleted: (failures: ReadonlyMap<string, Problem>) =>
    new Problem(
      sharedStatus([...failures.values()]),
      'not-all-undeleted',
      `All but ${failures.size} of the deleted records were brought back. ${[...failures].map(([id, { message }]) => `${id}: ${message}`).join(' ')}`,
      Object.fromEntries([...failures].map(([id, { message }]) => [id, [message]])),
    ),
  linkConflict: () =>
    new Problem(
      409,
      'link-conflict',
      'The record has another link already, and a link is given once. Create a new record for the other artifact.',
    ),
  noSuchArtifact: (path: string) =>
    new Problem(422, 'no-such-artifact', `There is no artifact at ${path}. Upload it first, or correct the path.`),
  badManifest: (path: string, what: string) =>
    new Problem(422, 'bad-manifest', `The manifest ${path} is not usable: ${what}. Correct it and upload it again.`),

  jobSourceMissing: (kind: 'image' | 'recipe', id: string) =>
    new Problem(
      400,
      'job-source-missing',
      `There is no ${kind} with the id ${id}: give the id of a registered ${kind} as artifact_id.`,
    ),
  jobSourceUnlinked: (kind: 'image' | 'recipe', id: string) =>
    new Problem(
      400,
      'job-source-unlinked',
      `The ${kind} ${id} has no link to its artifacts: upload them and set the link of the ${kind} first.`,
    ),
  jobPublicKeyMissing: (id: string) =>
    new Problem(
      400,
      'job-public-key-missing',
      `There is no public key with the id ${id}: give the id of a registered one as public_key_id.`,
    ),
  oneSshContainer: () =>
    new Problem(
      400,
      'one-ssh-container',
      'A job has one ssh container: give one item in ssh_containers, or leave it out.',
    ),
  sshContainerOnCreate: () =>
    new Problem(
      400,
      'ssh-container-on-create',
      'A create job takes ssh_containers with enable_debug only, for the shell that it opens when the build fails: leave them out, or set enable_debug to true.',
    ),
  jobIsOver: (id: string, status: string) =>
    new Problem(409, 'job-is-over', `The job ${id} has ended with ${status} and stays so. Start a new job.`),
  successNeedsImage: () =>
    new Problem(
      409,
      'success-needs-image',
      'A job is a success with its image only: set resultant_image_id before or with the status success.',
    ),
  jobTokenNeeded: () =>
    new Problem(
      401,
      'job-token-needed',
      'Only workers are answered here, by the token of a job that there is. Send requests of other kinds to the port of the API.',
    ),
  jobTokenForbids: () =>
    new Problem(
      403,
      'job-token-forbids',
      'The token of a job allows to read that job, to report on it, and to register its image while it runs, and nothing else.',
    ),
  cannotLaunch: (why: string) => new Problem(503, 'cannot-launch', `The job cannot be started now: ${why}`),

  notReady: (what: string) => new Problem(503, 'not-ready', `The service cannot work now: ${what}`),
  storeUnavailable: (what: string) =>
    new Problem(503, 'store-unavailable', `The artifact store cannot be used now: ${what}. Try again later.`),
  databaseUnavailable: () =>
    new Problem(503, 'database-unavailable', 'The database cannot be reached now. Try again later.'),
  internal: (id: string) =>
    new Problem(
      500,
      'internal',
      `Something went wrong that should not. The log of the server tells more under the id ${id}.`,
    ),
};
