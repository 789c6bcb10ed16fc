/** Time and timers, passed in so that tests can move them. */

export interface Clock {
  /** Milliseconds of a clock that nobody sets. */
  now(): number;
  /** The device's own clock, in milliseconds since the Unix epoch. */
  wall(): number;
  /** Do something after some milliseconds; returns what takes that back. */
  after(ms: number, work: () => void): () => void;
  /** Let everything else that is due have its turn. */
  yield(): Promise<void>;
}

/** The system's clocks. */
export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after(ms, work) {
    const timer = setTimeout(work, ms);
    return () => clearTimeout(timer);
  },
  yield() {
    // Timers of tabs in the background come once a second only; messages come at once.
    return new Promise((resolve) => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => {
        port1.close();
        resolve();
      };
      port2.postMessage(0);
    });
  },
};
