import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { startS3Server } from '../../src/embedded/s3/s3-server.js';
import { MemoryArtifactStore } from '../support/memory-artifact-store.js';
import { s3StoreUnderTest } from '../support/s3-store.js';
import { describeArtifactStore } from './artifact-store.js';

describeArtifactStore('MemoryArtifactStore', async () => {
  const store = new MemoryArtifactStore();
  return {
    store,
    buckets: ['ims', 'boot-images'],
    openUploads: async () => store.openUploads(),
    contentTypeOf: async (location) => store.contentTypeOf(location),
    close: async () => {},
  };
});

describeArtifactStore('S3ArtifactStore with the embedded store', async () => {
  const directory = await mkdtemp(path.join(tmpdir(), 'ims-s3-'));
  const credentials = { accessKey: 'contract', secretKey: 'of-the-artifact-store' };
  const server = await startS3Server({ directory, credentials });
  return s3StoreUnderTest({ endpoint: server.endpoint, ...credentials }, async () => {
    await server.close();
    await rm(directory, { recursive: true, force: true });
  });
});
