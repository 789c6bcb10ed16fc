/** What the core asks of the shell. */

import type { TidingsError } from "./errors.js";

/** Leave this connection and make another, after `delay` milliseconds or, without it, after the usual backoff. */
export interface Reconnect {
  readonly type: "reconnect";
  readonly error: TidingsError;
  readonly delay?: number | undefined;
}

/** Leave this connection when `delay` milliseconds are over, or it is gone, and make another. */
export interface GoAway {
  readonly type: "goAway";
  readonly delay: number;
}

/** Leave this connection and don't connect again, except with another token if that was what was wrong. */
export interface End {
  readonly type: "end";
  readonly error: TidingsError;
}

/** Get a new token and give it to `refreshToken`. */
export interface RefreshToken {
  readonly type: "refreshToken";
}

export type Action = Reconnect | GoAway | End | RefreshToken;
