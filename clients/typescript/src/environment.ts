/** What happens around a client in a browser: the network comes and goes, pages are hidden, machines sleep. */

import type { Environment } from "./client.js";

const LOOK_MS = 5_000;
/** A timer that is so late was asleep; those of hidden pages are late by a minute at most. */
const ASLEEP_MS = 90_000;

/** Tells of the network and of sleep as a browser does. Where there is no page, such as in a worker, it does what it can. */
export const browserEnvironment: Environment = ({ wake, lost }) => {
  const leave: (() => void)[] = [];
  const on = (target: EventTarget | undefined, type: string, listener: () => void) => {
    target?.addEventListener(type, listener);
    leave.push(() => target?.removeEventListener(type, listener));
  };
  const page = typeof document === "undefined" ? undefined : document;
  on(globalThis, "online", wake);
  on(globalThis, "offline", () => lost("the browser says that it is offline"));
  // A page that comes out of the back/forward cache.
  on(globalThis, "pageshow", wake);
  on(page, "visibilitychange", () => {
    if (page?.visibilityState === "visible") {
      wake();
    }
  });
  on(page, "resume", wake);
  let last = Date.now();
  const timer = setInterval(() => {
    const now = Date.now();
    if (now - last > ASLEEP_MS) {
      wake();
    }
    last = now;
  }, LOOK_MS);
  leave.push(() => clearInterval(timer));
  return () => {
    for (const undo of leave) {
      undo();
    }
  };
};
