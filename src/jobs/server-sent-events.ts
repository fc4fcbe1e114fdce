/** One event of a stream (HTML standard, "Server-sent events"). */
export interface ServerSentEvent {
  /** What a client sends as `Last-Event-ID` when it comes back. */
  id: string;
  event: string;
  data: unknown;
}

/** Milliseconds after which a silent stream says that it is there: proxies close what says nothing for a minute. */
const HEARTBEAT = 15_000;

/** Events as they stand on the wire. */
export async function* serverSentEvents(events: AsyncIterator<ServerSentEvent>): AsyncGenerator<string> {
  let next = events.next();
  try {
    for (;;) {
      const result = await Promise.race([next, silence()]);
      if (result === null) yield ':\n\n';
      else if (result.done) return;
      else {
        const { id, event, data } = result.value;
        yield `id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
        next = events.next();
      }
    }
  } finally {
    // Whoever reads has gone, or the events have failed: what they come from is given back.
    void events.return?.();
  }
}

function silence(): Promise<null> {
  return new Promise((resolve) => setTimeout(() => resolve(null), HEARTBEAT).unref());
}
