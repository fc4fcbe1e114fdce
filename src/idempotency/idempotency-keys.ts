import { randomUUID } from 'node:crypto';
import { Injectable } from '@nestjs/common';
import { InjectDataSource } from '@nestjs/typeorm';
import { DataSource } from 'typeorm';
import { problems } from '../errors/problems.js';
import type { NewRecord } from './new-record.js';

/** Seconds after which a server that has not answered is taken to be gone, and the request may be repeated. */
const LEASE_SECONDS = 120;

/** One request with its key. */
export interface KeyedRequest {
  route: string;
  key: string;
  fingerprint: string;
}

/** Whether to answer as before, or to make this record. */
export type Claim = { answer: string } | { record: NewRecord };

/** Remembers which requests were made under which keys. */
@Injectable()
export class IdempotencyKeys {
  constructor(@InjectDataSource() private readonly database: DataSource) {}

  /**
   * Takes a key for a request.
   * @throws Problem (409 where the same request is being worked on; 422 where the key was given to another request)
   */
  async claim(request: KeyedRequest): Promise<Claim> {
    await this.database.query(`DELETE FROM idempotency_keys WHERE created < now() - interval '1 day'`);
    const [taken]: { record_id: string; repeat: boolean }[] = await this.take(request);
    if (taken) return { record: { id: taken.record_id, isRepeat: taken.repeat } };
    const [known]: { fingerprint: string; answer: string | null }[] = await this.database.query(
      `SELECT fingerprint, answer FROM idempotency_keys WHERE route = $1 AND key = $2`,
      [request.route, request.key],
    );
    // It was dropped between the two statements: whoever had it was refused.
    if (!known) return this.claim(request);
    if (known.fingerprint !== request.fingerprint) throw problems.idempotencyKeyReused();
    if (known.answer === null) throw problems.idempotencyKeyInUse();
    return { answer: known.answer };
  }

  /** A new key, or one of a server that is gone: the record keeps its id, so that it is made once. */
  private take({ route, key, fingerprint }: KeyedRequest): Promise<{ record_id: string; repeat: boolean }[]> {
    return this.database.query(
      `WITH taken AS (
        INSERT INTO idempotency_keys AS k (route, key, fingerprint, record_id, lease_until)
        VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
        ON CONFLICT (route, key) DO UPDATE SET lease_until = excluded.lease_until
        WHERE k.answer IS NULL AND k.lease_until < now() AND k.fingerprint = excluded.fingerprint
        RETURNING record_id)
      SELECT record_id, record_id <> $4 AS repeat FROM taken`,
      [route, key, fingerprint, randomUUID(), LEASE_SECONDS],
    );
  }

  /** Remembers the answer. */
  async finish({ route, key }: KeyedRequest, answer: string): Promise<void> {
    await this.database.query(`UPDATE idempotency_keys SET answer = $3 WHERE route = $1 AND key = $2`, [
      route,
      key,
      answer,
    ]);
  }

  /** Forgets a key whose request was refused: nothing was made. */
  async drop({ route, key }: KeyedRequest): Promise<void> {
    await this.database.query(`DELETE FROM idempotency_keys WHERE route = $1 AND key = $2`, [route, key]);
  }

  /** Lets a request be repeated at once that failed in a way that leaves open whether its record was made. */
  async release({ route, key }: KeyedRequest): Promise<void> {
    await this.database.query(
      `UPDATE idempotency_keys SET lease_until = '-infinity' WHERE route = $1 AND key = $2 AND answer IS NULL`,
      [route, key],
    );
  }
}
