import {
  imageRow,
  jobRow,
  type OriginalRecord,
  publicKeyRow,
  recipeRow,
  remoteBuildNodeRow,
  type Row,
} from './original-records.js';

/** One of the lists that the original keeps. */
export interface Kind {
  /** For people. */
  name: string;
  /** End of the name of its data file, behind the version. */
  file: string;
  isDeleted: boolean;
  /** Its path below the base url of the original's API. */
  path: string;
  table: string;
  key: 'id' | 'xname';
  /** @throws Unfit */
  rowOf(record: OriginalRecord): Promise<Row>;
}

const kind = (
  name: string,
  table: string,
  path: string,
  rowOf: (record: OriginalRecord, isDeleted: boolean) => Promise<Row>,
) => ({
  name,
  file: table,
  table,
  path,
  key: 'id' as const,
  isDeleted: false,
  rowOf: (r: OriginalRecord) => rowOf(r, false),
});

const recoverable = [
  { ...kind('public keys', 'public_keys', 'public-keys', publicKeyRow), rows: publicKeyRow },
  { ...kind('recipes', 'recipes', 'recipes', recipeRow), rows: recipeRow },
  { ...kind('images', 'images', 'images', imageRow), rows: imageRow },
];

/** All lists, in the order in which they are taken over. Live records come first: of a record in two lists the live one counts. */
export const KINDS: readonly Kind[] = [
  ...recoverable,
  ...recoverable.map(({ rows, ...live }) => ({
    ...live,
    name: `deleted ${live.name}`,
    path: `deleted/${live.path}`,
    isDeleted: true,
    rowOf: (record: OriginalRecord) => rows(record, true),
  })),
  kind('jobs', 'jobs', 'jobs', jobRow),
  { ...kind('remote build nodes', 'remote_build_nodes', 'remote-build-nodes', remoteBuildNodeRow), key: 'xname' },
];
