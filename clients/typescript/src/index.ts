/** Tidings for browsers: the client over a WebSocket. */

import { type ClientParts, CoreClient } from "./client.js";
import { browserEnvironment } from "./environment.js";
import { IndexedDbStateStore } from "./indexeddb.js";
import type { StateStore } from "./state.js";
import { WebSocketTransport } from "./websocket.js";

export * from "./common.js";
export { browserEnvironment } from "./environment.js";
export { IndexedDbStateStore } from "./indexeddb.js";
export { WebSocketTransport } from "./websocket.js";

/** What a client needs besides the address of the server. */
export type ClientOptions = Omit<ClientParts, "transport" | "state"> & {
  /**
   * Where the outbox and the positions are kept: the name of a database in IndexedDB, a StateStore, or by default in
   * memory for as long as the page lives.
   */
  state?: StateStore | string | undefined;
};

/** One device of one user, over a WebSocket. See CoreClient. */
export class Client extends CoreClient {
  /** @param url "https://chat.example.com", or several, of which the first is taken until it goes away. */
  constructor(url: string | readonly string[], options: ClientOptions) {
    const { state } = options;
    super({
      environment: browserEnvironment,
      ...options,
      transport: new WebSocketTransport(url),
      state: typeof state === "string" ? new IndexedDbStateStore(state) : state,
    });
  }
}
