/** Ids and the server's time. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { IdMaker, idTimeMs, ServerClock } from "../src/ids.js";
import { highest, seeded } from "./seeded.js";

test("ids are UUIDv7 of their time", () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(2 ** 47), { minLength: 1, maxLength: 50 }),
      fc.nat(),
      (times, seed) => {
        const maker = new IdMaker(seeded(seed));
        const made = times.map((ms) => maker.make(ms));
        expect(new Set(made).size).toBe(made.length);
        for (const text of made) {
          expect(text).toMatch(
            /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
          );
        }
        expect(idTimeMs(made[0] as string)).toBe(times[0]);
      },
    ),
  );
});

test("ids ascend though the clock stands or goes back a little", () => {
  const steps = fc.array(fc.integer({ min: -900, max: 5 }), { maxLength: 300 });
  fc.assert(
    fc.property(steps, fc.nat(), (moves, seed) => {
      const maker = new IdMaker(seeded(seed));
      let newest = 10 ** 12;
      const made = [maker.make(newest)];
      for (const move of moves) {
        const now = newest + move;
        newest = Math.max(newest, now);
        made.push(maker.make(now));
      }
      expect(made).toEqual([...made].sort());
      expect(idTimeMs(made.at(-1) as string)).toBe(newest);
    }),
  );
});

test("ids ascend when the random part runs over", () => {
  const maker = new IdMaker({ fraction: () => 0, bits: (count) => highest.bits(count) });
  const made = [maker.make(1000), maker.make(1000), maker.make(1000)];
  expect(made).toEqual([...made].sort());
});

test("a clock set back far is followed", () => {
  const maker = new IdMaker(seeded(1));
  maker.make(10 ** 12);
  expect(idTimeMs(maker.make(10 ** 12 - 86_400_000))).toBe(10 ** 12 - 86_400_000);
});

test("the server is asked for the time and not the device", () => {
  let wall = 5_000;
  const clock = new ServerClock(() => wall);
  expect([clock.known, clock.nowMs(0), clock.offsetMs(0)]).toEqual([false, 5_000, 0]);
  clock.set(100_000, 10_000);
  expect([clock.known, clock.nowMs(12_500), clock.offsetMs(12_500)]).toEqual([
    true,
    102_500,
    97_500,
  ]);
  // The device's clock is set while connected: ids don't follow it.
  wall = 999_000_000;
  expect(clock.nowMs(12_500)).toBe(102_500);
});
