/** A SquashFS image that breaks the rules of the format, or asks for more than an image may; the message completes "the rootfs …". */
export class BadSquashfs extends Error {
  constructor(what: string, options?: ErrorOptions) {
    super(`is damaged: ${what}`, options);
    this.name = 'BadSquashfs';
  }
}
