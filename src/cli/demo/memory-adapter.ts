/** oidc-provider's storage in this process's memory. The demo's life is too short for anything to expire in it. */
import type { Adapter, AdapterFactory, AdapterPayload } from 'oidc-provider';

export function memoryAdapter(): AdapterFactory {
  return (): Adapter => {
    const entries = new Map<string, AdapterPayload>();
    const findBy = async (member: 'uid' | 'userCode', value: string) =>
      [...entries.values()].find((payload) => payload[member] === value);
    return {
      upsert: async (id, payload) => void entries.set(id, payload),
      find: async (id) => entries.get(id),
      findByUid: (uid) => findBy('uid', uid),
      findByUserCode: (userCode) => findBy('userCode', userCode),
      destroy: async (id) => void entries.delete(id),
      consume: async (id) => {
        const payload = entries.get(id);
        if (payload !== undefined) payload.consumed = Math.floor(Date.now() / 1000);
      },
      revokeByGrantId: async (grantId) => {
        for (const [id, payload] of entries) if (payload.grantId === grantId) entries.delete(id);
      },
    };
  };
}
