/** TPMT_PUBLIC written from its fields (TPM 2.0 Part 2 §12.2.4). */
import { ALG_NULL, ciphers, curves, hashes, kdfs, modes, objectTypes, schemes } from './algorithms.ts';
import type { Area, EccArea, PublicArea, RsaArea, TpmScheme, TpmSymmetric } from './public-area.ts';
import { concat, sized, u16, u32 } from './wire.ts';

/** TPMT_PUBLIC from its fields; the inverse of `parsePublic`, byte for byte. */
export function encodePublic(area: PublicArea): Uint8Array {
  const attributes = typeof area.attributes === 'number' ? area.attributes : area.attributes.raw;
  return concat(
    u16(objectTypes[area.type]),
    u16(hashes[area.nameAlg].id),
    u32(attributes),
    sized(area.authPolicy),
    ...encodeArea(area),
  );
}

function encodeArea(area: Area): Uint8Array[] {
  switch (area.type) {
    case 'rsa': {
      const { keyBits, exponent, wireExponent = exponent === 65537 ? 0 : exponent } = area.parameters;
      return [...encodeBoth(area), u16(keyBits), u32(wireExponent), sized(area.unique)];
    }
    case 'ecc': {
      const { curve, kdf } = area.parameters;
      return [
        ...encodeBoth(area),
        u16(curves[curve].id),
        ...(kdf === null ? [u16(ALG_NULL)] : [u16(kdfs[kdf.name]), u16(hashes[kdf.hash].id)]),
        sized(area.unique.x),
        sized(area.unique.y),
      ];
    }
    case 'keyedhash':
      return [...encodeScheme(area.scheme), sized(area.unique)];
    case 'symcipher':
      return [...encodeSymmetric(area.symmetric), sized(area.unique)];
  }
}

const encodeBoth = (area: RsaArea | EccArea): Uint8Array[] => [
  ...encodeSymmetric(area.symmetric),
  ...encodeScheme(area.scheme),
];

function encodeSymmetric(symmetric: TpmSymmetric | null): Uint8Array[] {
  if (symmetric === null) return [u16(ALG_NULL)];
  return [u16(ciphers[symmetric.name]), u16(symmetric.keyBits), u16(modes[symmetric.mode])];
}

function encodeScheme(scheme: TpmScheme | null): Uint8Array[] {
  if (scheme === null) return [u16(ALG_NULL)];
  const { name, hash, count, kdf } = scheme;
  return [
    u16(schemes[name]),
    ...(hash === undefined ? [] : [u16(hashes[hash].id)]),
    ...(count === undefined ? [] : [u16(count)]),
    ...(kdf === undefined ? [] : [u16(kdfs[kdf])]),
  ];
}
