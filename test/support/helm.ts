import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadAll, YAML11_SCHEMA } from 'js-yaml';

export const CHART = path.resolve(import.meta.dirname, '../../helm/cray-ims');

/** A Kubernetes object as the chart makes it. */
export interface ChartObject {
  apiVersion: string;
  kind: string;
  metadata: {
    name: string;
    namespace?: string;
    labels: Record<string, string>;
    annotations?: Record<string, string>;
  };
  // Members differ by kind; tests compare them with whole values.
  [member: string]: unknown;
}

function findHelm(): string | null {
  const candidates = [process.env['IMS_HELM'], path.join(tmpdir(), 'ims-test-helm/helm'), 'helm'];
  return candidates.find((file) => file && spawnSync(file, ['version']).status === 0) ?? null;
}

/** The helm to run; null where there is none. */
export const HELM = findHelm();

/** `describe` where there is a helm; elsewhere the tests are skipped, and say how to get one. */
export function describeWithHelm(name: string, tests: () => void): void {
  if (HELM) return describe(name, tests);
  process.stderr.write(
    `skipped, there is no helm (test/helm/fetch-helm ${path.join(tmpdir(), 'ims-test-helm')} gets one): ${name}\n`,
  );
  describe.skip(name, tests);
}

/** Runs helm; `values` are handed to it as a file. */
export function helm(
  args: readonly string[],
  values: object = {},
): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(HELM!, [...args, '--values', '-'], {
    // JSON is YAML, but for the separators of lines that YAML knows besides.
    input: JSON.stringify(values).replaceAll('\u2028', String.raw`\u2028`),
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  return { code: status, stdout, stderr };
}

/**
 * The objects of a release `cray-ims` in namespace `services`, in a cluster that offers `resources` (`group/version/Kind`) beside its own; throws
 * what helm says where it refuses the values.
 */
export function render(values: object = {}, resources: readonly string[] = []): ChartObject[] {
  const offered = resources.flatMap((resource) => ['--api-versions', resource]);
  const { code, stdout, stderr } = helm(['template', 'cray-ims', CHART, '--namespace', 'services', ...offered], values);
  if (code !== 0) throw new Error(stderr);
  // Kubernetes reads YAML 1.1, where a bare `yes` is a boolean.
  return (loadAll(stdout, { schema: YAML11_SCHEMA }) as (ChartObject | null)[]).filter((object) => object !== null);
}
