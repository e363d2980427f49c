/** What every refusal has to look like. */
import { expect } from 'vitest';
import { AttestedError, type ErrorCode } from '../../src/errors.ts';

/** The error of a call that must fail, sync or async. Anything but an AttestedError fails the test. */
export async function refusalOf(attempt: () => unknown): Promise<AttestedError> {
  let result: unknown;
  try {
    result = await attempt();
  } catch (error) {
    expect(error, 'only AttestedError may leave this package').toBeInstanceOf(AttestedError);
    return error as AttestedError;
  }
  expect.fail(`was accepted: ${JSON.stringify(result)}`);
}

export async function expectRefusal(
  attempt: () => unknown,
  expected: { code: ErrorCode; rule?: string },
): Promise<AttestedError> {
  const error = await refusalOf(attempt);
  const { code, rule, message } = error;
  expect({ code, ...(expected.rule !== undefined && { rule }) }, message).toEqual(expected);
  return error;
}
