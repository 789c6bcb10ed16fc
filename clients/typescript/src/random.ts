/** Randomness, passed in so that a test can repeat it. */

export interface Random {
  /** A number from 0 up to, not including, 1. */
  fraction(): number;
  /** A whole number of so many random bits. */
  bits(count: number): bigint;
}

/** The system's randomness: ids must not collide across devices. */
export const systemRandom: Random = {
  fraction: () => Math.random(),
  bits(count) {
    const bytes = crypto.getRandomValues(new Uint8Array(Math.ceil(count / 8)));
    let value = 0n;
    for (const byte of bytes) {
      value = (value << 8n) | BigInt(byte);
    }
    return value & ((1n << BigInt(count)) - 1n);
  },
};
