import { randomUUID } from 'node:crypto';
import { DeleteBucketCommand, HeadObjectCommand, ListMultipartUploadsCommand, S3Client } from '@aws-sdk/client-s3';
import { S3ArtifactStore } from '../../src/artifacts/s3-artifact-store.js';
import type { StoreUnderTest } from '../contracts/artifact-store.js';

/** Any server that speaks S3. */
export interface S3Address {
  endpoint: string;
  accessKey: string;
  secretKey: string;
}

/** Two new buckets of a server, for the contract suite. The buckets are removed at the end, then `stopServer` is called. */
export function s3StoreUnderTest(address: S3Address, stopServer: () => Promise<void>): StoreUnderTest {
  const store = new S3ArtifactStore({ ...address, sslValidate: false });
  const client = new S3Client({
    endpoint: address.endpoint,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: { accessKeyId: address.accessKey, secretAccessKey: address.secretKey },
  });
  const id = randomUUID();
  const buckets = [`ims-${id}`, `boot-images-${id}`] as const;
  return {
    store,
    buckets,
    openUploads: async () => {
      const pages = buckets.map((bucket) => client.send(new ListMultipartUploadsCommand({ Bucket: bucket })));
      return (await Promise.all(pages)).flatMap(({ Uploads = [] }) => Uploads.map(({ Key = '' }) => Key));
    },
    contentTypeOf: async ({ bucket, key }) =>
      (await client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }))).ContentType ?? '',
    close: async () => {
      for (const bucket of buckets) await client.send(new DeleteBucketCommand({ Bucket: bucket }));
      client.destroy();
      store.close();
      await stopServer();
    },
  };
}
