// The import rules of the house (CONTRIBUTING.md), checked by `npm run lint`.
const never = (name, from, to) => ({
  name,
  severity: 'error',
  from: { path: from, pathNot: '\\.spec\\.ts$' },
  to: { path: to },
});
const only = (name, library, home) => ({
  name,
  severity: 'error',
  from: { pathNot: home },
  to: { path: `node_modules/${library}`, dependencyTypesNot: ['type-only'] },
});
const records = ['public-keys', 'recipes', 'images', 'remote-build-nodes'];

module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    never('protocol-is-a-leaf', '^src/protocol/', '^(?!src/protocol/)'),
    never(
      'worker-knows-no-server',
      '^src/worker/',
      '^src/(?!worker/|protocol/|artifacts/)|artifacts\\.module|node_modules/(@nestjs|typeorm|@kubernetes)',
    ),
    never(
      'launchers-look-nowhere-up',
      '^src/jobs/launcher/',
      '^src/(?!jobs/launcher/|protocol/)|node_modules/(@nestjs|typeorm)',
    ),
    never(
      'embedded-parts-know-no-service',
      '^src/embedded/',
      '^src/(?!embedded/|protocol/|config/)|node_modules/(@nestjs|typeorm|@aws-sdk)',
    ),
    ...records.map((record) =>
      never(
        `${record}-stand-alone`,
        `^src/${record}/`,
        `^src/(jobs|${records.filter((other) => other !== record).join('|')})/`,
      ),
    ),
    never(
      'controllers-only-route',
      '\\.controller\\.ts$',
      'node_modules/(typeorm|@nestjs/typeorm)|^src/(artifacts|jobs/launcher)/',
    ),
    never('no-dumping-grounds', '^src/', '^src/.*(utils|helpers|common)/'),
    only('kubernetes-has-one-home', '@kubernetes/client-node', '^src/jobs/launcher/kubernetes/'),
    only('s3-has-one-home', '@aws-sdk/', '^src/artifacts/s3-'),
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '\\.spec\\.ts$' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'node', 'default'],
      extensions: ['.ts', '.js'],
    },
  },
};
