/** Names of key types, as they stand in a public key line (RFC 4253 section 6.6 and OpenSSH's own). */
const TYPE = /^(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+$/;

/** Words of an authorized_keys line; options may hold spaces inside of double quotes (sshd(8), AUTHORIZED_KEYS FILE FORMAT). */
function wordsOf(line: string): string[] {
  return line.match(/(?:"(?:\\.|[^"\\])*"|[^\s"])+|"/g) ?? [];
}

/** Whether the base64 text is a key of this type: it begins with the length and the name of the type. */
function isKeyOf(type: string, base64: string): boolean {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(base64)) return false;
  const blob = Buffer.from(base64, 'base64');
  return (
    blob.length > 4 + type.length &&
    blob.readUInt32BE(0) === type.length &&
    blob.toString('latin1', 4, 4 + type.length) === type
  );
}

/** Why a text is not one OpenSSH public key line; null where it is one. Options before the key and a line end behind it are fine. */
export function publicKeyMistake(text: string): string | null {
  const line = text.trim();
  if (/[\r\n]/.test(line)) return 'Must be one public key on one line.';
  if (line.includes('PRIVATE KEY'))
    return 'Must be the public key, not the private one: send the file that ends in .pub.';
  const words = wordsOf(line);
  const index = words.findIndex((word) => TYPE.test(word));
  if (index < 0 || index > 1)
    return 'Must be an OpenSSH public key, as ssh-ed25519 AAAA… name: send the file that ends in .pub.';
  const [type, base64] = words.slice(index);
  return base64 && isKeyOf(type!, base64) ? null : `Must have a key of the type ${type} in base64 behind the type.`;
}
