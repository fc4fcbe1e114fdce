import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import type { S3Address } from '../support/s3-store.js';
import { until } from '../support/system.js';
import { freePorts } from '../support/ports.js';

const run = promisify(execFile);

/** Programs of Debian's packages ceph-mon, ceph-osd, radosgw and ceph-common. */
const PROGRAMS = [
  '/usr/bin/ceph-mon',
  '/usr/bin/ceph-osd',
  '/usr/bin/radosgw',
  '/usr/bin/radosgw-admin',
  '/usr/bin/ceph',
];
const KEYS = { accessKey: 'CEPHTEST', secretKey: 'ceph-test-secret' };

/** Why Ceph cannot be started here; null where it can. */
export async function missingCeph(): Promise<string | null> {
  const missing: string[] = [];
  for (const program of PROGRAMS) await access(program).catch(() => missing.push(program));
  return missing.length
    ? `${missing.join(', ')} are missing: apt-get install ceph-mon ceph-osd radosgw ceph-common`
    : null;
}

/** A whole Ceph on loopback, as small as it can be: one monitor, one OSD in memory, one gateway. */
export class Radosgw {
  private readonly children: ChildProcess[] = [];

  private constructor(
    private readonly directory: string,
    private readonly monitorPort: number,
    private readonly port: number,
  ) {}

  static async start(): Promise<Radosgw> {
    const port = await freePorts(2);
    const ceph = new Radosgw(await mkdtemp(path.join(tmpdir(), 'ims-ceph-')), port, port + 1);
    try {
      await ceph.configure();
      await ceph.startMonitor();
      await ceph.startOsd();
      await ceph.startGateway();
      return ceph;
    } catch (error) {
      await ceph.stop();
      throw error;
    }
  }

  get address(): S3Address {
    return { endpoint: `http://127.0.0.1:${this.port}`, ...KEYS };
  }

  /** Ends it, the gateway first. */
  async stop(): Promise<void> {
    for (const child of this.children.toReversed()) {
      const ended = child.exitCode === null && child.signalCode === null ? once(child, 'exit') : null;
      child.kill('SIGKILL');
      await ended;
    }
    await rm(this.directory, { recursive: true, force: true });
  }

  private at(name: string): string {
    return path.join(this.directory, name);
  }

  private async configure(): Promise<void> {
    for (const name of ['mon', 'osd', 'rgw', 'log']) await mkdir(this.at(name));
    const settings = {
      fsid: randomUUID(),
      mon_host: `127.0.0.1:${this.monitorPort}`,
      ...Object.fromEntries(['cluster', 'service', 'client'].map((who) => [`auth_${who}_required`, 'none'])),
      osd_pool_default_size: 1,
      osd_pool_default_min_size: 1,
      osd_pool_default_pg_num: 8,
      osd_pool_default_pg_autoscale_mode: 'off',
      osd_crush_chooseleaf_type: 0,
      mon_allow_pool_size_one: true,
      mon_max_pg_per_osd: 1000,
      mon_data_avail_warn: 0,
      mon_data_avail_crit: 0,
      public_addr: '127.0.0.1',
      cluster_addr: '127.0.0.1',
      run_dir: this.directory,
      pid_file: this.at('$name.pid'),
      admin_socket: this.at('$name.asok'),
      log_file: this.at('log/$name.log'),
      osd_objectstore: 'memstore',
      memstore_device_bytes: 4 * 1024 ** 3,
      osd_data: this.at('osd'),
      mon_data: this.at('mon'),
      rgw_data: this.at('rgw'),
      rgw_frontends: `beast endpoint=127.0.0.1:${this.port}`,
    };
    const lines = Object.entries(settings).map(([name, value]) => `${name} = ${value}`);
    await writeFile(this.at('ceph.conf'), `[global]\n${lines.join('\n')}\n`);
    this.fsid = settings.fsid;
  }

  private fsid = '';

  private run(program: string, ...args: string[]): Promise<{ stdout: string }> {
    return run(program, ['--conf', this.at('ceph.conf'), ...args], { timeout: 60_000 });
  }

  private startDaemon(program: string, ...args: string[]): void {
    this.children.push(spawn(program, ['--conf', this.at('ceph.conf'), '-f', ...args], { stdio: 'ignore' }));
  }

  private async startMonitor(): Promise<void> {
    const map = this.at('monmap');
    await run('monmaptool', [
      '--create',
      '--fsid',
      this.fsid,
      '--addv',
      'a',
      `[v1:127.0.0.1:${this.monitorPort}]`,
      map,
    ]);
    await this.run('ceph-mon', '--mkfs', '-i', 'a', '--monmap', map, '--mon-data', this.at('mon'));
    this.startDaemon('ceph-mon', '-i', 'a', '--mon-data', this.at('mon'));
    await this.answers('ceph', '-s');
  }

  private async startOsd(): Promise<void> {
    const uuid = randomUUID();
    const id = (await this.run('ceph', 'osd', 'new', uuid)).stdout.trim();
    const osd = ['-i', id, '--osd-data', this.at('osd'), '--osd-objectstore', 'memstore'];
    await this.run('ceph-osd', ...osd, '--mkfs', '--osd-uuid', uuid);
    this.startDaemon('ceph-osd', ...osd);
    await until('the OSD is up', async () => (await this.run('ceph', 'osd', 'stat')).stdout.includes('1 up'), 60);
  }

  private async startGateway(): Promise<void> {
    const { accessKey, secretKey } = KEYS;
    const user = ['--uid=ims', '--display-name=ims', `--access-key=${accessKey}`, `--secret-key=${secretKey}`];
    await this.run('radosgw-admin', 'user', 'create', ...user);
    this.startDaemon('radosgw', '-n', 'client.rgw');
    await until(
      'the gateway answers',
      async () =>
        fetch(this.address.endpoint).then(
          () => true,
          () => false,
        ),
      60,
    );
  }

  private async answers(program: string, ...args: string[]): Promise<void> {
    await until(
      `${program} answers`,
      async () =>
        this.run(program, ...args).then(
          () => true,
          () => false,
        ),
      60,
    );
  }
}
