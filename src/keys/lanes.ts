/** Jobs of one lane run one after another, in the order in which they came; lanes do not wait for each other. */
export interface Lanes {
  run<T>(lane: string, job: () => Promise<T>): Promise<T>;
  /** Resolves when every job that was there at the time of the call has ended. */
  idle(): Promise<void>;
}

export function createLanes(): Lanes {
  const tails = new Map<string, Promise<void>>();
  return {
    run(lane, job) {
      const result = (tails.get(lane) ?? Promise.resolve()).then(job);
      const tail: Promise<void> = result.then(
        () => done(),
        () => done(), // the caller sees the failure; the next in the lane is not concerned
      );
      const done = () => {
        if (tails.get(lane) === tail) tails.delete(lane);
      };
      tails.set(lane, tail);
      return result;
    },
    async idle() {
      await Promise.all(tails.values());
    },
  };
}
