import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/**
 * How many processes of the control group of this one the kernel has killed so far, since they took more memory than the group may; 0 where
 * it does not tell (cgroups(7), "memory.events"; of version 1 `memory.oom_control`).
 */
export async function countOomKills(root = '/sys/fs/cgroup'): Promise<number> {
  const self = await readFile('/proc/self/cgroup', 'utf8').catch(() => '');
  const groupOf = (line: RegExp) => line.exec(self)?.[1] ?? '';
  const places = [
    join(root, groupOf(/^0::(.*)$/m), 'memory.events'),
    join(root, 'memory', groupOf(/^\d+:(?:.*,)?memory(?:,.*)?:(.*)$/m), 'memory.oom_control'),
    // In a container the group that it has by its own name is mounted there.
    join(root, 'memory/memory.oom_control'),
  ];
  for (const place of places) {
    const told = /^oom_kill (\d+)$/m.exec(await readFile(place, 'utf8').catch(() => ''));
    if (told) return Number(told[1]);
  }
  return 0;
}
