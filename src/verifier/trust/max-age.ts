/** How long an HTTP answer may be used again (RFC 9111 §5.2.2), as far as it says less than we would allow. */

/** @param most seconds that are allowed anyway. @returns seconds */
export function maxAgeOf(headers: Headers, most: number): number {
  const control = (headers.get('cache-control') ?? '').toLowerCase();
  if (/(^|,)\s*(no-store|no-cache)\s*(,|=|$)/.test(control)) return 0;
  const ages = [...control.matchAll(/(?:^|,)\s*max-age\s*=\s*"?(\d{1,9})/g)].map(([, age]) => Number(age));
  const spent = Number(/^\d{1,9}$/.exec(headers.get('age') ?? '')?.[0] ?? 0);
  return Math.max(0, Math.min(most, ...ages.map((age) => age - spent)));
}
