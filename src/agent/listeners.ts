/** Listeners of one kind of news. A listener's fault stays its own: a broken log must not break a request. */

export interface Listeners<T> {
  emit(news: T): void;
  /** @returns a function that takes the listener away again */
  on(listener: (news: T) => void): () => void;
  size(): number;
}

export function openListeners<T>(first?: (news: T) => void): Listeners<T> {
  // each call of `on` counts, also with a function that listens already
  const held = new Set<{ listener: (news: T) => void }>(first === undefined ? [] : [{ listener: first }]);
  return {
    emit(news) {
      for (const { listener } of held) {
        try {
          listener(news);
        } catch {
          // see above
        }
      }
    },
    on(listener) {
      const entry = { listener };
      held.add(entry);
      return () => void held.delete(entry);
    },
    size: () => held.size,
  };
}
