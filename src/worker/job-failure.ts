import type { StatusCode } from '../protocol/status-codes.js';

/**
 * Ends a job in `error`. The message becomes the `status_reason` that users read: a sentence or two that say what went wrong and what to
 * change, without urls, keys or paths of the machine.
 */
export class JobFailure extends Error {
  /** The cause for programs, where the phase alone does not tell it. */
  readonly code: StatusCode | null;

  constructor(message: string, options?: ErrorOptions & { code?: StatusCode }) {
    super(message, options);
    this.code = options?.code ?? null;
    this.name = 'JobFailure';
  }
}
