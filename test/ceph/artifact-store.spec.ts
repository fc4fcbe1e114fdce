import { describeArtifactStore } from '../contracts/artifact-store.js';
import { s3StoreUnderTest } from '../support/s3-store.js';
import { missingCeph, Radosgw } from './radosgw.js';

/*
 * The contract of artifact stores on a real Ceph: `npm run test:ceph`. Ceph's packages are large, so that the other tests do without them.
 */

const missing = await missingCeph();
let ceph: Radosgw | null = null;

beforeAll(async () => {
  if (missing === null) ceph = await Radosgw.start();
}, 180_000);
afterAll(() => ceph?.stop());

if (missing === null)
  describeArtifactStore('S3ArtifactStore with Ceph radosgw', async () =>
    s3StoreUnderTest(ceph!.address, () => Promise.resolve()),
  );
else it.skip(`needs Ceph: ${missing}`, () => {});
