import type { JobView } from '../../src/quickstart/api.js';
import { System, until } from '../support/system.js';

interface SentEvent {
  id: string;
  event: string;
  data: Record<string, unknown>;
}

let system: System;
let imageId: string;
let keyId: string;

beforeAll(async () => {
  system = await System.start();
  imageId = await system.addImage();
  keyId = await system.addKey();
}, 60_000);
afterAll(() => system.stop());

async function startJob(): Promise<JobView> {
  return system.waitFor((await system.startJob(imageId, keyId)).id, 'waiting_on_user');
}

async function complete(job: JobView): Promise<void> {
  await system.ssh(job, 'touch /mnt/image/complete');
  await system.waitFor(job.id, 'success');
}

const get = (path: string, headers: Record<string, string> = {}) => fetch(`${system.url}/v3/jobs/${path}`, { headers });
const textOf = async (path: string) => (await get(path)).text();

/** A stream of server-sent events as it comes. */
class Stream {
  readonly events: SentEvent[] = [];
  readonly ended: Promise<void>;

  private constructor(response: Response) {
    this.ended = this.read(response);
  }

  static async open(path: string, lastEventId?: string): Promise<Stream> {
    const response = await get(path, {
      accept: 'text/event-stream',
      ...(lastEventId && { 'last-event-id': lastEventId }),
    });
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    return new Stream(response);
  }

  private async read(response: Response): Promise<void> {
    let rest = '';
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + chunk).split('\n\n');
      rest = blocks.pop()!;
      this.events.push(...blocks.filter((block) => block.startsWith('id: ')).map(readEvent));
    }
  }
}

function readEvent(block: string): SentEvent {
  const fields = Object.fromEntries(block.split('\n').map((line) => line.split(/: (.*)/s) as [string, string]));
  return { id: fields['id']!, event: fields['event']!, data: JSON.parse(fields['data']!) as Record<string, unknown> };
}

describe('events of a job', () => {
  it('come as they happen, and end with the job', async () => {
    const { id } = await system.startJob(imageId, keyId);
    const stream = await Stream.open(`${id}/events`);
    const job = await system.waitFor(id, 'waiting_on_user');
    await until(
      'the event is there',
      async () => stream.events.some(({ data }) => data['status'] === 'waiting_on_user'),
      2,
    );
    await complete(job);
    await stream.ended;
    const statuses = [...new Set(stream.events.map(({ data }) => data['status']))];
    expect(statuses).toEqual(['creating', 'fetching_image', 'waiting_on_user', 'packaging_artifacts', 'success']);
    const stages = stream.events.flatMap(({ data }) => (data['progress'] as { stage: string } | null)?.stage ?? []);
    expect(stages).toEqual(expect.arrayContaining(['pack']));
    const list = (await (await get(`${id}/events`)).json()) as { id: string }[];
    expect(list).toEqual(stream.events.map(({ data }) => data));
    expect(list[0]).toEqual({
      id: expect.any(String),
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*\+00:00$/),
      status: 'creating',
      status_reason: null,
      progress: null,
    });
    const resumed = await Stream.open(`${id}/events`, stream.events[1]!.id);
    await resumed.ended;
    expect(resumed.events).toEqual(stream.events.slice(2));
  }, 60_000);

  it('tell why it failed', async () => {
    const job = await startJob();
    await system.ssh(job, 'touch /mnt/image/failed');
    await system.waitFor(job.id, 'error');
    const list = (await (await get(`${job.id}/events`)).json()) as { status: string; status_reason: string }[];
    expect(list.at(-1)).toMatchObject({ status: 'error', status_reason: expect.stringContaining('the file failed') });
  }, 60_000);

  it('end when the job is deleted', async () => {
    const job = await startJob();
    const stream = await Stream.open(`${job.id}/events`);
    await system.api.request('DELETE', `/jobs/${job.id}`);
    await stream.ended;
    expect((await get(`${job.id}/events`)).status).toBe(404);
  }, 60_000);
});

describe('logs of a job', () => {
  let job: JobView;

  it('are followed while it runs', async () => {
    job = await startJob();
    const response = await get(`${job.id}/logs?container=sshd&follow=true`);
    expect(response.headers.get('content-type')).toBe('text/plain; charset=utf-8');
    let seen = '';
    const read = (async () => {
      for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) seen += chunk;
    })();
    await system.ssh(job, 'true');
    await until('the login is seen', async () => seen.includes('Accepted publickey'), 3);
    await complete(job);
    await read;
    expect(seen).toContain('the shell is closed');
    expect(await textOf(`${job.id}/logs?container=sshd`)).toBe(seen);
    expect(await textOf(`${job.id}/logs?container=sshd&from=${Buffer.byteLength(seen) - 10}`)).toBe(seen.slice(-10));
  }, 60_000);

  it('show the upload as operators look for it', async () => {
    const log = await textOf(`${job.id}/logs?container=buildenv-sidecar`);
    const result = JSON.parse(/^\{\n[\s\S]*?^\}/m.exec(log)![0]) as Record<string, unknown>;
    expect(result).toMatchObject({
      ims_image_artifacts: [
        { link: { etag: expect.any(String), path: expect.stringContaining('/rootfs'), type: 's3' } },
        {},
        {},
        {},
        {
          link: { path: expect.stringContaining('/manifest.json') },
          md5: expect.any(String),
          type: 'application/json',
        },
      ],
      ims_image_record: { name: 'result', link: { path: expect.stringContaining('manifest.json') } },
      ims_job_record: { id: job.id, job_type: 'customize', status: 'packaging_artifacts' },
      result: 'success',
    });
    expect(Object.keys(result)).toEqual(['ims_image_artifacts', 'ims_image_record', 'ims_job_record', 'result']);
    const { ims_image_record: image, ims_job_record: told } = result as Record<string, Record<string, string>>;
    expect(told!['resultant_image_id']).toBe(image!['id']);
    expect(JSON.stringify(told)).not.toContain('token');
  });

  it('of all containers tell which one says what', async () => {
    const lines = (await textOf(`${job.id}/logs`)).trim().split('\n');
    const containers = lines.map((line) => line.split(' | ')[0]);
    expect([...new Set(containers)]).toEqual(['prepare', 'sshd', 'buildenv-sidecar']);
  });

  it('come as events that can be resumed', async () => {
    const all = await Stream.open(`${job.id}/logs`);
    await all.ended;
    expect(all.events[0]).toMatchObject({ event: 'log', data: { container: 'prepare' } });
    const resumed = await Stream.open(`${job.id}/logs`, all.events[2]!.id);
    await resumed.ended;
    expect(resumed.events).toEqual(all.events.slice(3));
  });

  it('outlive the server and the directory of the job', async () => {
    const before = await textOf(`${job.id}/logs`);
    await system.stopServer();
    await system.startServer();
    expect(await textOf(`${job.id}/logs`)).toBe(before);
  });

  it.each(['logs?container=none', 'logs?from=x', 'logs?container=sshd&from=-1', 'logs?follow=perhaps'])(
    'refuse %s',
    async (path) => {
      const response = await get(`${job.id}/${path}`);
      expect(response.status).toBe(400);
      expect(((await response.json()) as { code: string }).code).toBe('bad-query');
    },
  );

  it('go with the job', async () => {
    await system.api.request('DELETE', `/jobs/${job.id}`);
    await system.expectNoTraces(job.id);
    expect((await get(`${job.id}/logs`)).status).toBe(404);
    await until('the store is empty', async () => {
      for await (const { key } of system.store.list('ims', `jobs/${job.id}/`)) return key === '';
      return true;
    });
  });
});

it('a server that stops ends its streams', async () => {
  const job = await startJob();
  const streams = [await Stream.open(`${job.id}/events`), await Stream.open(`${job.id}/logs?follow=true`)];
  const ends = Promise.allSettled(streams.map(({ ended }) => ended));
  const begun = Date.now();
  await system.stopServer();
  await ends;
  expect(Date.now() - begun).toBeLessThan(8000);
  await system.startServer();
}, 60_000);
