import type { PrivateKey } from 'openpgp';

/** Loaded where it is needed: it takes longer than most phases need to begin. */
const loadOpenPgp = () => import('openpgp');

/** As rpm names the owner of the key. */
const OWNER = { name: 'cray-ims, for one build' };

/** Signs packages with a key of its own, of which the private half is never written anywhere. */
export class PackageSigner {
  private constructor(
    private readonly privateKey: PrivateKey,
    /** The public half in armor, as rpm imports it. */
    readonly publicKey: string,
  ) {}

  static async make(): Promise<PackageSigner> {
    const { enums, generateKey } = await loadOpenPgp();
    // What every rpm that sites install knows.
    const { privateKey, publicKey } = await generateKey({
      type: 'rsa',
      rsaBits: 3072,
      userIDs: [OWNER],
      subkeys: [],
      format: 'object',
      config: { preferredHashAlgorithm: enums.hash.sha256 },
    });
    return new PackageSigner(privateKey, publicKey.armor());
  }

  /** A detached binary signature (RFC 4880, 5.2). */
  async sign(data: Buffer): Promise<Buffer> {
    const { createMessage, enums, sign } = await loadOpenPgp();
    const signature = await sign({
      message: await createMessage({ binary: new Uint8Array(data) }),
      signingKeys: this.privateKey,
      detached: true,
      format: 'binary',
      config: { preferredHashAlgorithm: enums.hash.sha256 },
    });
    return Buffer.from(signature);
  }
}

/** The name under which rpm keeps a public key among the packages of a root: the ends of its id and of its time. */
export async function packageOfKey(publicKey: string): Promise<string> {
  const { readKey } = await loadOpenPgp();
  const key = await readKey({ armoredKey: publicKey });
  const created = Math.floor(key.getCreationTime().getTime() / 1000);
  return `gpg-pubkey-${key.getKeyID().toHex().slice(-8)}-${created.toString(16)}`;
}
