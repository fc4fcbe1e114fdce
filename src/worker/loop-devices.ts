import { closeSync, existsSync, openSync } from 'node:fs';
import { freeLoopDevice, makeBlockDevice, SystemCallFailed } from './linux.js';

/** Major number of loop devices (Documentation/admin-guide/devices.txt of Linux). */
const LOOP_MAJOR = 7;

/**
 * Makes the node of the next free loop device where it is missing: the /dev of a container is a copy from when it was started. Where that is
 * not allowed, mount(8) says so.
 */
export function provideLoopDevice(): void {
  if (!existsSync('/dev/loop-control')) return;
  try {
    const control = openSync('/dev/loop-control', 'r');
    try {
      const number = freeLoopDevice(control);
      const node = `/dev/loop${number}`;
      if (!existsSync(node)) makeBlockDevice(node, LOOP_MAJOR, number);
    } finally {
      closeSync(control);
    }
  } catch (error) {
    const isRefused =
      error instanceof SystemCallFailed || ['EPERM', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '');
    if (!isRefused) throw error;
  }
}
