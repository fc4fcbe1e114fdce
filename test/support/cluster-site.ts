import { kubectl, kubectlApply } from './cluster.js';
import { CREDENTIALS } from './system.js';

/** The container image of the site, as test/cluster/run builds it. */
const IMAGE = 'localhost/cray-ims-site:test';
const PORTS = { database: 5432, store: 9000 } as const;
type Part = keyof typeof PORTS;

/** Runs both in one container. The database listens on a socket, to which a port leads. */
const PROGRAM = `
import { connect, createServer } from 'node:net';
import { startEmbeddedPostgres } from '/opt/ims/dist/src/embedded/postgres.js';
import { startS3Server } from '/opt/ims/dist/src/embedded/s3/s3-server.js';

const { url } = await startEmbeddedPostgres({ directory: '/var/lib/ims/postgres', durable: false });
const socket = new URL(url).searchParams.get('host') + '/.s.PGSQL.${PORTS.database}';
createServer((client) => {
  const database = connect(socket);
  for (const end of [client, database]) end.on('error', () => [client, database].forEach((other) => other.destroy()));
  client.pipe(database).pipe(client);
}).listen(${PORTS.database}, '0.0.0.0');
await startS3Server({
  directory: '/var/lib/ims/s3',
  host: '0.0.0.0',
  port: ${PORTS.store},
  credentials: ${JSON.stringify(CREDENTIALS)},
});
`;

/** PostgreSQL and an S3 store as pods of a namespace, each behind a Service of its own. */
export class ClusterSite {
  private constructor(private readonly namespace: string) {}

  static async start(namespace: string): Promise<ClusterSite> {
    const site = new ClusterSite(namespace);
    const probe = { tcpSocket: { port: PORTS.store }, periodSeconds: 1 };
    const container = { name: 'site', image: IMAGE, imagePullPolicy: 'Never', readinessProbe: probe };
    const command = ['node', '--no-warnings', '--input-type=module', '--eval', PROGRAM];
    await kubectlApply(
      {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'site', namespace, labels: { part: 'site' } },
        spec: { terminationGracePeriodSeconds: 0, containers: [{ ...container, command }] },
      },
      site.service('database'),
      site.service('store'),
    );
    await kubectl('-n', namespace, 'wait', '--for=condition=Ready', 'pod/site', '--timeout=120s');
    return site;
  }

  private service(name: Part, part = 'site'): object {
    const ports = [{ port: PORTS[name] }];
    return {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: this.namespace },
      spec: { selector: { part }, ports },
    };
  }

  /** Host and port of a part for pods. */
  hostOf(part: Part): string {
    return `${part}.${this.namespace}.svc.cluster.local:${PORTS[part]}`;
  }

  /** Host and port of a part for this machine, which does not know the names of the cluster. */
  async addressOf(part: Part): Promise<string> {
    const address = await kubectl('-n', this.namespace, 'get', 'service', part, '-o', 'jsonpath={.spec.clusterIP}');
    return `${address}:${PORTS[part]}`;
  }

  /** Has nobody behind the Service of a part, or again the part. */
  async setAway(part: Part, isAway: boolean): Promise<void> {
    await kubectlApply(this.service(part, isAway ? 'nobody' : 'site'));
  }
}
