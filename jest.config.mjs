/** @type {import('jest').Config} */
export default {
  testEnvironment: 'node',
  roots: ['<rootDir>/src', '<rootDir>/test'],
  testRegex: '\\.spec\\.ts$',
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  transform: {
    '^.+\\.ts$': ['@swc/jest'],
    // An ES module that @fastify/static requires: Node does that, Jest on Node 20 does not.
    '/node_modules/content-disposition/.+\\.js$': ['@swc/jest', { swcrc: false, module: { type: 'commonjs' } }],
  },
  transformIgnorePatterns: ['/node_modules/(?!content-disposition/)'],
  globalSetup: '<rootDir>/test/global-setup.mjs',
  globalTeardown: '<rootDir>/test/global-teardown.mjs',
  testPathIgnorePatterns: [
    '/node_modules/',
    // Run by `npm run test:ceph` and `npm run test:cluster`.
    ...(process.env.IMS_CEPH ? [] : ['<rootDir>/test/ceph/']),
    ...(process.env.IMS_CLUSTER ? [] : ['<rootDir>/test/cluster/']),
  ],
  testTimeout: 30_000,
};
