/** The archive is none that can be unpacked, or may not be; the message completes "the archive …". */
export class BadArchive extends Error {
  constructor(why: string, options?: ErrorOptions) {
    super(why, options);
    this.name = 'BadArchive';
  }
}
