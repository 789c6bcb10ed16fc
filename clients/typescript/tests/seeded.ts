/** Randomness that a test can repeat, and randomness that isn't random. */

import type { Random } from "../src/random.js";

/** The same numbers for the same seed. */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  const fraction = () => {
    // mulberry32: small, and good enough to vary tests.
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    fraction,
    bits(count) {
      let value = 0n;
      for (let left = count; left > 0; left -= 16) {
        const some = Math.min(16, left);
        value = (value << BigInt(some)) | BigInt(Math.floor(fraction() * 2 ** some));
      }
      return value;
    },
  };
}

/** Always the longest wait. */
export const highest: Random = {
  fraction: () => 1,
  bits: (count) => (1n << BigInt(count)) - 1n,
};
