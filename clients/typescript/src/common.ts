/** What every entry of the package exports. */

export type { ClientParts, Environment } from "./client.js";
export { CoreClient } from "./client.js";
export { type Clock, systemClock } from "./clock.js";
export type { ClientConfig } from "./config.js";
export {
  ClientClosed,
  Code,
  ConnectionLost,
  type ErrorDetails,
  StateError,
  TidingsError,
} from "./errors.js";
export type * from "./events.js";
export { type FoldedMessage, MessageFold } from "./folding.js";
export { SendHandle } from "./handles.js";
export type * from "./models.js";
export type { HistoryRange, Named, Operations, Paging } from "./operations.js";
export { type Random, systemRandom } from "./random.js";
export {
  MemoryStateStore,
  type StateStore,
  type StoredCursor,
  type StoredFailure,
  type StoredMessage,
  type StoredSession,
  type StoredState,
} from "./state.js";
export type { TokenProvider } from "./tokens.js";
export { type Connection, EndOfStream, type Transport } from "./transport.js";
