import { connect } from 'node:net';

/** Milliseconds between two tries, and of one try. */
const PAUSE = 20;
const TRY_TIMEOUT = 2000;

/** Whether sshd answers on this port: what listens for it does so before sshd is there. */
function answers(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: TRY_TIMEOUT });
    const end = (answered: boolean) => {
      socket.destroy();
      resolve(answered);
    };
    socket.once('data', (greeting) => end(greeting.toString('latin1').startsWith('SSH-2.0-')));
    for (const event of ['error', 'timeout', 'end'] as const) socket.once(event, () => end(false));
  });
}

/**
 * Resolves when sshd accepts connections.
 * @param seconds after which it rejects
 */
export async function waitForSshd(listenAddress: string, port: number, seconds: number): Promise<void> {
  const host = listenAddress === '0.0.0.0' ? '127.0.0.1' : listenAddress;
  for (const end = Date.now() + seconds * 1000; Date.now() < end;) {
    if (await answers(host, port)) return;
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
  throw new Error(`sshd did not answer within ${seconds} s`);
}
