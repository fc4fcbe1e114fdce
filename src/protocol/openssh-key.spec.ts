import { publicKeyMistake } from './openssh-key.js';

const KEY = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBhF9mXk0jYpKpRk5cGkq0yqgW0aYpDk8uQyQ2WQv1pN';

describe('publicKeyMistake', () => {
  it.each([
    KEY,
    `${KEY} me@host\n`,
    `  ${KEY} a comment with "quotes", $(and) 'more'`,
    `from="10.0.0.0/8,*.site",command="echo \\"hi there\\"" ${KEY} x`,
    'ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 user@host',
  ])('takes %j', (line) => expect(publicKeyMistake(line)).toBeNull());

  it.each([
    ['', /OpenSSH public key/],
    ['b', /OpenSSH public key/],
    [`${KEY}\n${KEY}`, /one line/],
    ['-----BEGIN OPENSSH PRIVATE KEY-----', /private/],
    ['ssh-ed25519', /base64/],
    ['ssh-ed25519 !!!!', /base64/],
    ['ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIBhF9mXk0jYpKpRk5cGkq0yqgW0aYpDk8uQyQ2WQv1pN', /type ssh-rsa/],
  ])('refuses %j', (line, why) => expect(publicKeyMistake(line)).toMatch(why));
});
