/** A map of bounded size that forgets what was used least recently. */
export interface Lru<V> {
  get(key: string): V | undefined;
  set(key: string, value: V): void;
  delete(key: string): void;
  clear(): void;
}

export function createLru<V>(limit: number): Lru<V> {
  const entries = new Map<string, V>(); // in order of use, oldest first
  return {
    get(key) {
      const value = entries.get(key);
      if (value !== undefined && entries.size > 1) {
        entries.delete(key);
        entries.set(key, value);
      }
      return value;
    },
    set(key, value) {
      entries.delete(key);
      entries.set(key, value);
      for (const oldest of entries.keys()) {
        if (entries.size <= limit) break;
        entries.delete(oldest);
      }
    },
    delete: (key) => void entries.delete(key),
    clear: () => entries.clear(),
  };
}
