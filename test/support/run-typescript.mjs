// `node --import ./test/support/run-typescript.mjs x.ts` runs a TypeScript program of the project as it stands.
import { register } from 'node:module';

register('./typescript-hooks.mjs', import.meta.url);
