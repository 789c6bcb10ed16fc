/**
 * SHA-256 (FIPS 180-4) at once: the browser's own only comes with a promise, and the digests of beacons are made where
 * nothing waits. Of its own, since libraries weigh three times as much.
 */

/** The first 32 bits of the fractional parts of a root of a prime. */
function fraction(prime: number, root: number): number {
  return ((prime ** (1 / root) % 1) * 2 ** 32) | 0;
}

const PRIMES: number[] = [];
for (let n = 2; PRIMES.length < 64; n += 1) {
  if (PRIMES.every((prime) => n % prime !== 0)) {
    PRIMES.push(n);
  }
}
const START = PRIMES.slice(0, 8).map((prime) => fraction(prime, 2));
const ROUNDS = PRIMES.map((prime) => fraction(prime, 3));

const turned = (word: number, by: number) => (word >>> by) | (word << (32 - by));

/** The hash of some bytes, as eight words of 32 bits, the first one first. */
export function sha256(bytes: Uint8Array): Uint32Array {
  const padded = new Uint8Array((((bytes.length + 8) >> 6) + 1) << 6);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 4, bytes.length << 3);
  view.setUint32(padded.length - 8, bytes.length >>> 29);
  const hash = Int32Array.from(START);
  const words = new Int32Array(64);
  for (let at = 0; at < padded.length; at += 64) {
    block(hash, words, view, at);
  }
  return new Uint32Array(hash.buffer);
}

function block(hash: Int32Array, words: Int32Array, view: DataView, at: number): void {
  const word = (index: number) => words[index] as number;
  for (let n = 0; n < 64; n += 1) {
    if (n < 16) {
      words[n] = view.getInt32(at + n * 4);
    } else {
      const low = word(n - 15);
      const high = word(n - 2);
      words[n] =
        word(n - 16) +
        (turned(low, 7) ^ turned(low, 18) ^ (low >>> 3)) +
        word(n - 7) +
        (turned(high, 17) ^ turned(high, 19) ^ (high >>> 10));
    }
  }
  let [a, b, c, d, e, f, g, h] = hash as unknown as [
    number,
    number,
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  for (let n = 0; n < 64; n += 1) {
    const choice = (e & f) ^ (~e & g);
    const majority = (a & b) ^ (a & c) ^ (b & c);
    const first =
      h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + choice + (ROUNDS[n] as number) + word(n);
    const second = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + majority;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  for (const [index, value] of [a, b, c, d, e, f, g, h].entries()) {
    hash[index] = (hash[index] as number) + value;
  }
}
