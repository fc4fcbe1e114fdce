import { VersioningType } from '@nestjs/common';
import type { NestFastifyApplication } from '@nestjs/platform-fastify';
import { DocumentBuilder, type OpenAPIObject, SwaggerModule } from '@nestjs/swagger';
import type { Config } from './config/config.js';
import { answerConditionally } from './conditional-requests.js';
import { Serializer } from './database/serializer.js';
import { ProblemFilter, sendProblem } from './errors/problem.filter.js';
import { ValidationPipe } from './errors/validation.pipe.js';
import { useJsonBodies } from './fastify.js';
import { SERVICE_VERSION } from './health/service-version.js';
import { Metrics } from './metrics/metrics.js';
import { WorkerAccess } from './jobs/worker-access.js';
import { KnownRoutes } from './errors/known-routes.js';

/** All that an application has beside its modules; the server and the tests have it from here. */
export function configureApp(app: NestFastifyApplication, config: Pick<Config, 'maxBodyBytes'>): void {
  app.enableVersioning({ type: VersioningType.URI });
  app.useGlobalPipes(new ValidationPipe());
  const routes = new KnownRoutes(app.getHttpAdapter().getInstance());
  app.useGlobalFilters(new ProblemFilter(config.maxBodyBytes, routes));
  app.useGlobalInterceptors(new Serializer());
  useJsonBodies(app);
  keepWorkersToTheirJobs(app);
  answerConditionally(app);
  measureAnswers(app);
  SwaggerModule.setup('docs', app, () => describeApi(app), {
    jsonDocumentUrl: 'docs/json',
    yamlDocumentUrl: 'docs/yaml',
    customSiteTitle: 'Image Management Service',
    swaggerOptions: { tryItOutEnabled: true, displayRequestDuration: true, docExpansion: 'list' },
  });
}

function keepWorkersToTheirJobs(app: NestFastifyApplication): void {
  const access = app.get(WorkerAccess);
  app
    .getHttpAdapter()
    .getInstance()
    .addHook('preHandler', (request, reply, done) => {
      if (!access.concerns(request)) return done();
      access.refusalOf(request).then((refusal) => (refusal ? sendProblem(reply, refusal) : done()), done);
    });
}

function measureAnswers(app: NestFastifyApplication): void {
  const metrics = app.get(Metrics);
  app
    .getHttpAdapter()
    .getInstance()
    .addHook('onResponse', ({ method, routeOptions }, { statusCode, elapsedTime }, done) => {
      metrics.answered(method, routeOptions.url ?? 'unknown', statusCode, elapsedTime / 1000);
      done();
    });
}

const DESCRIPTION = `Keeps records of SSH public keys and images, and runs jobs that change images.

The way through: register a public key, register an image with a link to its manifest, start a job of the type \`customize\`, and look at it until its status is \`waiting_on_user\`. Then log in with ssh to the address that the job gives, change the root file system, and \`touch\` the file \`complete\`. The job packs the new image and names it in \`resultant_image_id\`.

Every route also answers below \`/v2\` and without a version (which is the same as \`/v2\`), and all of them below \`/apis/ims\`. Errors are problems (RFC 7807).

New in version 3: lists take \`limit\`, \`after\` and filters, with the next page in the header \`Link\`; what GET answers has an \`ETag\`, and \`If-None-Match\` gets 304; \`Idempotency-Key\` lets POST be repeated; \`dry_run=true\` shows what DELETE, or POST of a job, would do.`;

/** The OpenAPI document: the routes of version 3 and those that have no version. The others differ as openapi/differences.md says. */
export function describeApi(app: NestFastifyApplication): OpenAPIObject {
  const options = new DocumentBuilder()
    .setTitle('Image Management Service')
    .setDescription(DESCRIPTION)
    .setVersion(SERVICE_VERSION)
    .setLicense('MIT', 'https://opensource.org/license/mit')
    .addServer('..', 'This service')
    .build();
  const document = SwaggerModule.createDocument(app, options, {
    operationIdFactory: (controller, method, version) =>
      [method, version && `v${version}`, controller.replace('Controller', '')].filter(Boolean).join('_'),
  });
  const isDocumented = (path: string) => path.startsWith('/v3/') || /^\/(healthz|version|metrics)/.test(path);
  return {
    ...document,
    paths: Object.fromEntries(Object.entries(document.paths).filter(([path]) => isDocumented(path))),
  };
}
