import type { RequestLine } from './scenario.js';

/** A line of the recordings that we answer otherwise on purpose. */
export interface Difference {
  /** Id of the difference in openapi/differences.md. */
  id: string;
  /** Statuses that we answer with. */
  status: number | number[];
}

interface Rule extends Difference {
  scenarios: RegExp;
  /** Name of the line. */
  line: RegExp;
}

const RULES: Rule[] = [];

/** What openapi/differences.md says of a line; null where it says nothing. */
export function findDifference(scenario: string, line: RequestLine): Difference | null {
  return RULES.find((rule) => rule.scenarios.test(scenario) && rule.line.test(line.name)) ?? null;
}

/** Ids of all differences that some line needs. */
export const DIFFERENCE_IDS = [...new Set(RULES.map(({ id }) => id))];
