/** A SquashFS image that breaks the rules of the format, or asks for more than an image may; the message completes "the rootfs …". */
export class BadSquashfs extends Error {
  constructor(what: string, options?: ErrorOptions) {
    super(`is damaged: ${what}`, options);
    this.name = 'BadSquashfs';
  }
}

/** What is read of a source; null where that is damaged, for those who can do without. */
export async function unlessDamaged<Result>(reading: Promise<Result>): Promise<Result | null> {
  return reading.catch((error: unknown) => {
    if (error instanceof BadSquashfs) return null;
    throw error;
  });
}
