/** Tidings for Node: the client over gRPC. */

import { type ClientParts, CoreClient } from "./client.js";
import { type GrpcOptions, GrpcTransport } from "./grpc.js";

export * from "./common.js";
export { type GrpcOptions, GrpcTransport } from "./grpc.js";

/** What a client needs besides the address of the server. */
export type ClientOptions = Omit<ClientParts, "transport"> & GrpcOptions;

/** One device of one user, over gRPC. See CoreClient. */
export class Client extends CoreClient {
  /** @param target "localhost:50051", or several, of which the first is taken until it goes away. */
  constructor(target: string | readonly string[], options: ClientOptions) {
    const callTimeout = options.callTimeout ?? options.config?.callTimeout;
    super({ ...options, transport: new GrpcTransport(target, { ...options, callTimeout }) });
  }
}
