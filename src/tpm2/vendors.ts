/** TPM manufacturers by the id that the TCG gave them (TCG TPM Vendor ID Registry): up to four ASCII characters. */

const vendors: ReadonlyMap<string, string> = new Map([
  ['AMD', 'AMD'],
  ['ANT', 'Ant Group'],
  ['ATML', 'Atmel (Microchip)'],
  ['BRCM', 'Broadcom'],
  ['CSCO', 'Cisco'],
  ['FLYS', 'Flyslice Technologies'],
  ['GOOG', 'Google'],
  ['HISI', 'Huawei'],
  ['HPE', 'Hewlett Packard Enterprise'],
  ['HPI', 'HP Inc.'],
  ['IBM', 'IBM'],
  ['IFX', 'Infineon'],
  ['INTC', 'Intel'],
  ['LEN', 'Lenovo'],
  ['MSFT', 'Microsoft'],
  ['NSG', 'NSING Technologies'],
  ['NSM', 'National Semiconductor'],
  ['NTC', 'Nuvoton'],
  ['NTZ', 'Nationz'],
  ['QCOM', 'Qualcomm'],
  ['ROCC', 'Fuzhou Rockchip'],
  ['SEAL', 'WISeKey'],
  ['SECE', 'SecEdge'],
  ['SMSC', 'SMSC'],
  ['SMSN', 'Samsung'],
  ['SNS', 'Sinosun'],
  ['STM', 'STMicroelectronics'],
  ['TXN', 'Texas Instruments'],
  ['WEC', 'Winbond'],
  // a number, not characters: what libtpms calls itself
  ['\u0000\u0000\u0010\u0014', 'swtpm (libtpms)'],
]);

const AS_HEX = /^id:([0-9a-f]{8})$/i;

export interface Vendor {
  /** `id:` and eight digits in upper case, such as `id:494E5443`: one text for one manufacturer. */
  id: string;
  /** Absent for an id that is not in the table. */
  name?: string;
}

/**
 * Reads a manufacturer id as certificates have it: `id:` and the four bytes in hexadecimal, in either case, or the
 * characters themselves (of which the missing ones are taken for NUL). Undefined for anything else.
 */
export function readVendor(text: string): Vendor | undefined {
  const hex = AS_HEX.exec(text)?.[1];
  if (hex === undefined && !/^[A-Z0-9]{2,4}$/i.test(text)) return undefined;
  const bytes = hex === undefined ? Buffer.from(text.toUpperCase().padEnd(4, '\0'), 'latin1') : Buffer.from(hex, 'hex');
  const name = vendors.get(bytes.toString('latin1').replace(/[\0 ]+$/, ''));
  return { id: `id:${bytes.toString('hex').toUpperCase()}`, ...(name !== undefined && { name }) };
}
