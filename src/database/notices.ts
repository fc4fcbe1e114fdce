import { Inject, Injectable, Logger, type OnApplicationShutdown } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import { Client } from 'pg';
import type { DataSource } from 'typeorm';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/config.module.js';

/** What is called with the payload of each notice of a channel. */
export type NoticeListener = (payload: string) => void;

/**
 * Notices between the servers on a database (`LISTEN` and `NOTIFY` of PostgreSQL). All channels share one connection, which is made when the
 * first is listened to. They only save waiting: one that is missed while a connection breaks never comes, so that whoever listens looks from
 * time to time as well, and listens again then.
 */
@Injectable()
export class Notices implements OnApplicationShutdown {
  private readonly log = new Logger(Notices.name);
  private readonly listeners = new Map<string, NoticeListener>();
  private connection: Promise<Client> | null = null;
  private isAway = false;
  private stopped = false;

  constructor(
    @Inject(CONFIG) private readonly config: Config,
    @InjectDataSource() private readonly database: DataSource,
  ) {}

  /** Has a channel listened to, if it is not yet; it has one listener. Never rejects: where the database is away, the next call tries again. */
  async listen(channel: string, listener: NoticeListener): Promise<void> {
    if (this.stopped) return;
    const isNew = this.listeners.get(channel) !== listener;
    this.listeners.set(channel, listener);
    try {
      if (!this.connection) await (this.connection = this.connect());
      else if (isNew) await (await this.connection).query(`LISTEN ${channel}`);
      else await this.connection;
      this.isAway = false;
    } catch (error) {
      this.connection = null;
      if (!this.isAway) this.log.warn(`cannot listen to the database, so that news arrive late: ${String(error)}`);
      this.isAway = true;
    }
  }

  /** Tells all servers that listen. */
  async tell(channel: string, payload: string): Promise<void> {
    await this.database.query('SELECT pg_notify($1, $2)', [channel, payload]);
  }

  async onApplicationShutdown(): Promise<void> {
    this.stopped = true;
    await (await this.connection?.catch(() => null))?.end();
  }

  private async connect(): Promise<Client> {
    const client = new Client({ connectionString: this.config.database.url!, keepAlive: true });
    client.on('notification', ({ channel, payload = '' }) => this.listeners.get(channel)?.(payload));
    client.on('error', () => {
      this.connection = null;
      void client.end().catch(() => {});
    });
    await client.connect();
    for (const channel of this.listeners.keys()) await client.query(`LISTEN ${channel}`);
    return client;
  }
}
