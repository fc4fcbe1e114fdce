/**
 * Ends a job in `error`. The message becomes the `status_reason` that users read: a sentence or two that say what went wrong and what to
 * change, without urls, keys or paths of the machine.
 */
export class JobFailure extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'JobFailure';
  }
}
