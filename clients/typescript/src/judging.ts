/** Whether what ended a session may pass. */

import type { End, Reconnect } from "./actions.js";
import { Code, type TidingsError } from "./errors.js";
import type { TokenSource } from "./tokens.js";

const MAX_REFUSALS = 2;
const PASSING: ReadonlySet<Code> = new Set([
  Code.OK,
  Code.UNAVAILABLE,
  Code.ABORTED,
  Code.INTERNAL,
  Code.RESOURCE_EXHAUSTED,
  Code.DEADLINE_EXCEEDED,
  Code.UNKNOWN,
  Code.CANCELLED,
]);

/** Whether a refusal may pass: without a reason it isn't the server's word, and so may. */
export function judge(error: TidingsError): Reconnect | End {
  const passing = PASSING.has(error.code) || !error.reason;
  const type = error.code !== Code.UNAUTHENTICATED && passing ? "reconnect" : "end";
  return { type, error };
}

/** Counts how often the same token was refused. */
export class Refusals {
  #token = "";
  #count = 0;

  /** A refused token is replaced; when the provider gives the same again, that is the end. */
  judge(action: Reconnect | End, token: string, tokens: TokenSource): Reconnect | End {
    if (action.error.code !== Code.UNAUTHENTICATED) {
      return action;
    }
    tokens.refused(token);
    if (action.type === "reconnect" && action.error.reason === "TOKEN_INVALID") {
      // It could not be checked, and the same one may do later.
      return action;
    }
    this.#count = token === this.#token ? this.#count + 1 : 1;
    this.#token = token;
    return { type: this.#count >= MAX_REFUSALS ? "end" : "reconnect", error: action.error };
  }

  /** A token was taken. */
  clear(): void {
    this.#count = 0;
  }
}
