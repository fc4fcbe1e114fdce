import { buffer } from 'node:stream/consumers';
import { STATUS_CODES } from 'node:http';
import type { ArtifactStore } from '../../src/artifacts/artifact-store.js';
import type { Answer, TestApp } from '../support/app.js';
import { type Difference, findDifference } from './differences.js';
import { Bindings, errorsMismatch, mismatch } from './matching.js';
import { bodyOf, contentOf, type RecordedObject, type RequestLine, type Scenario, type SetupLine } from './scenario.js';

/** A key text that the recordings use where any would do stands for this one: we take real keys only. */
const REAL_KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBhF9mXk0jYpKpRk5cGkq0yqgW0aYpDk8uQyQ2WQv1pN k';
const STAND_INS = new Set(['k', 'b', 'd']);

/** How the lines of a scenario came out. */
export interface Tally {
  scenario: string;
  matched: number;
  /** Lines that differ as openapi/differences.md says, by the id of the difference. */
  byDesign: Map<string, number>;
  /** Requests that the original failed at and we answered. */
  defectsAnswered: number;
  /** Anything else: what a test must fail on. */
  faults: string[];
}

type Snapshot = Map<string, { etag: string; size: number }>;

/** Replays one recording against a server of its own. */
export class Replay {
  private app: TestApp | null = null;
  private environment: Record<string, string> = {};
  private readonly bindings = new Bindings();
  private readonly ours = new Set<string>();
  private readonly tally: Tally;

  constructor(
    private readonly scenario: Scenario,
    private readonly start: (environment: Record<string, string>, store?: ArtifactStore) => Promise<TestApp>,
  ) {
    this.tally = { scenario: scenario.name, matched: 0, byDesign: new Map(), defectsAnswered: 0, faults: [] };
  }

  /** Sends all requests in order, up to where the recording edits the data files of the original, which we do not have. */
  async run(): Promise<Tally> {
    try {
      for (const line of this.scenario.lines) {
        if ('setup' in line && line.setup.kind === 'restart' && line.setup.edit) break;
        await ('setup' in line ? this.setUp(line) : this.ask(line));
      }
      return this.tally;
    } finally {
      await this.app?.close();
    }
  }

  private get store(): ArtifactStore {
    return this.app!.store;
  }

  private async setUp({ setup }: SetupLine): Promise<void> {
    switch (setup.kind) {
      case 'start':
        this.environment = { DEFAULT_IMS_IMAGE_SIZE: '60', ...setup.env };
        this.app = await this.start(this.environment);
        return;
      case 'restart':
        await this.restart();
        return;
      case 's3_put':
        await this.store.put(
          { bucket: setup.bucket, key: this.bindings.resolve(setup.key) },
          {
            body: Buffer.from(this.bindings.resolve(contentOf(setup.body).toString('latin1')), 'latin1'),
            metadata: setup.meta,
          },
        );
        return;
      case 's3_delete':
        await this.store.remove({ bucket: setup.bucket, key: this.bindings.resolve(setup.key) });
        return;
      case 'wait':
        await new Promise((resolve) => setTimeout(resolve, setup.seconds * 1000));
        return;
      default:
        throw new Error(`${this.scenario.name} needs ${setup.kind}, which is not replayed`);
    }
  }

  private async restart(): Promise<void> {
    const { store } = this.app!;
    await this.app!.close();
    this.app = await this.start(this.environment, store);
  }

  private async ask(line: RequestLine): Promise<void> {
    const reads = line.request.method === 'GET' && !line.s3;
    const before = reads ? null : await this.snapshot();
    const isAboutNothing = this.bindings.isForgone(line.request.path);
    const answer = await this.send(line).catch((error: Error) => {
      throw new Error(`${line.name}: ${error.message}`);
    });
    const difference = findDifference(this.scenario.name, line);
    const trial = this.bindings.copy();
    const reason =
      this.answerMismatch(line, answer, trial) ?? (before && (await this.storeMismatch(line, before, trial)));
    this.judge(line, answer, { reason, difference, isAboutNothing, trial });
  }

  private judge(
    line: RequestLine,
    answer: Answer,
    found: { reason: string | null; difference: Difference | null; isAboutNothing: boolean; trial: Bindings },
  ): void {
    const { reason, difference, isAboutNothing, trial } = found;
    const illFormed = this.illFormed(line, answer);
    if (!reason && !illFormed) {
      this.bindings.adopt(trial);
      if ('defect' in line.response && line.response.defect) this.tally.defectsAnswered++;
      else this.tally.matched++;
      return;
    }
    const status = difference ? [difference.status].flat() : isAboutNothing ? [404] : [];
    if (illFormed || !status.includes(answer.status)) return this.fault(line, answer, illFormed ?? reason!);
    this.count(difference?.id ?? 'follows');
    this.adoptDifference(line, answer);
  }

  /** After an answer that differs by design, records exist that the recording does not know, and others do not exist. */
  private adoptDifference(line: RequestLine, answer: Answer): void {
    const id = (answer.body as { id?: string } | null)?.id;
    if (answer.status === 201 && id) {
      const expected = 'body' in line.response ? (line.response.body as { id?: string } | null)?.id : undefined;
      if (expected === undefined || this.bindings.mismatch(expected, id)) this.ours.add(id);
    }
    if ('body' in line.response) this.bindings.forgo(JSON.stringify((line.response.body as { id?: string })?.id ?? ''));
  }

  private count(id: string): void {
    this.tally.byDesign.set(id, (this.tally.byDesign.get(id) ?? 0) + 1);
  }

  private fault(line: RequestLine, answer: Answer, reason: string): void {
    const text = JSON.stringify(answer.body)?.slice(0, 300);
    this.tally.faults.push(
      `${this.scenario.name} [${line.name}] ${line.request.method} ${line.request.path.slice(0, 120)}: ${reason}\n      ${answer.status} ${text}`,
    );
    this.adoptDifference(line, answer);
  }

  private send({ request }: RequestLine): Promise<Answer> {
    const body = bodyOf(request);
    const resolved = body && Buffer.from(this.bindings.resolve(withRealKey(body.toString('latin1'))), 'latin1');
    return this.app!.send(request.method, this.bindings.resolve(request.path), {
      headers: request.headers,
      ...(resolved && { body: resolved }),
    });
  }

  /** What no answer may be, whatever the request was. */
  private illFormed({ request }: RequestLine, { status, headers, content, body }: Answer): string | null {
    if (status >= 500) return 'the server failed';
    if (status < 400 || request.method === 'HEAD') return null;
    if (headers['content-type'] !== 'application/problem+json') return `an error as ${headers['content-type']}`;
    const problem = body as Record<string, unknown>;
    const isProblem = problem['status'] === status && problem['title'] === STATUS_CODES[status] && problem['detail'];
    return isProblem ? null : `no problem: ${content.toString('utf8').slice(0, 200)}`;
  }

  private answerMismatch(line: RequestLine, answer: Answer, bindings: Bindings): string | null {
    const { response, request } = line;
    if (response.defect) return answer.status >= 400 && answer.status < 500 ? null : `the original failed`;
    if (response.status !== answer.status) return `the original answered ${response.status}`;
    const allow = response.allow?.join(', ');
    if (allow && answer.headers['allow'] !== allow) return `Allow is ${answer.headers['allow']} in place of ${allow}`;
    if (request.method === 'HEAD') return answer.content.length ? 'HEAD has a body' : null;
    if (answer.status >= 400) {
      const { errors } = (response.body ?? {}) as { errors?: unknown };
      return errors === undefined ? null : errorsMismatch(errors, (answer.body as { errors?: unknown }).errors);
    }
    if (answer.status === 204 || response.body === null) return answer.content.length ? 'the answer has a body' : null;
    if (!/^application\/json\b/.test(String(answer.headers['content-type'])))
      return `the content type is ${answer.headers['content-type']}`;
    return mismatch(withRealKeys(response.body), answer.body, bindings, {
      extraMembers: request.path.startsWith('/v3/'),
      ours: this.ours,
    });
  }

  private async snapshot(): Promise<Snapshot> {
    await this.app!.settle();
    const found: Snapshot = new Map();
    for (const bucket of [this.app!.config.s3.imsBucket, this.app!.config.s3.bootImagesBucket])
      for await (const { key, size } of this.store.list(bucket, ''))
        found.set(`${bucket}/${key}`, { size, etag: (await this.store.head({ bucket, key })).etag });
    return found;
  }

  private async storeMismatch(line: RequestLine, before: Snapshot, bindings: Bindings): Promise<string | null> {
    const after = await this.snapshot();
    const removed = [...before.keys()].filter((key) => !after.has(key));
    const added = [...after.keys()].filter((key) => after.get(key)!.etag !== before.get(key)?.etag);
    if ('defect' in line.response && line.response.defect)
      return removed.length ? `objects were lost: ${removed.join(', ')}` : null;
    const expected = line.s3 ?? {};
    const lists = { removed: expected.removed ?? [], added: Object.keys(expected.added ?? {}) };
    const options = { extraMembers: false, ours: this.ours };
    const reason = mismatch(lists, { removed, added }, bindings, options, 's3');
    if (reason) return reason;
    for (const [key, object] of Object.entries(expected.added ?? {})) {
      const contents = await this.objectMismatch(bindings.resolve(key), object, bindings);
      if (contents) return contents;
    }
    return null;
  }

  private async objectMismatch(place: string, expected: RecordedObject, bindings: Bindings): Promise<string | null> {
    const [bucket, ...rest] = place.split('/');
    const location = { bucket: bucket!, key: rest.join('/') };
    const { etag, metadata } = await this.store.head(location);
    const { md5sum: _, ...meta } = metadata;
    const { md5sum: __, ...expectedMeta } = expected.meta;
    const options = { extraMembers: false, ours: this.ours };
    const reason = mismatch({ etag: expected.etag, meta: expectedMeta }, { etag, meta }, bindings, options, place);
    if (reason || expected.json === undefined) return reason;
    const json: unknown = JSON.parse((await buffer(await this.store.read(location))).toString('utf8'));
    return mismatch(expected.json, json, bindings, options, place);
  }
}

function withRealKey(body: string): string {
  return body.replace(/("public_key"\s*:\s*)"([^"\\]*)"/, (text, member: string, key: string) =>
    STAND_INS.has(key) ? `${member}"${REAL_KEY}"` : text,
  );
}

/** The recorded answer with real keys in place of those that stand in for any. */
function withRealKeys(body: unknown): unknown {
  return JSON.parse(JSON.stringify(body), (member, value: unknown) =>
    member === 'public_key' && STAND_INS.has(value as string) ? REAL_KEY : value,
  );
}
