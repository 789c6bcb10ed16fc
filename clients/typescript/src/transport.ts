/** What the client needs of a network: the port and its contract. */

import type { DescMessage, DescMethodUnary, MessageShape } from "@bufbuild/protobuf";
import { Code, TidingsError } from "./errors.js";
import type { ChatRequest, ChatResponse } from "./gen/tidings/v1/chat_service_pb.js";

/** The server ended the stream. */
export class EndOfStream extends Error {
  /**
   * @param error Why, with the code OK when no reason was given. Its reason is empty unless a Tidings server gave one.
   * @param reconnect Whether to connect again, where the server has said so; otherwise the error tells.
   */
  constructor(
    readonly error = new TidingsError(Code.OK, "the server ended the stream"),
    readonly reconnect?: boolean,
  ) {
    super(error.message);
    this.name = "EndOfStream";
  }
}

/** One Chat stream. */
export interface Connection {
  /**
   * Hand a frame to the network, waiting while it takes no more. One call at a time.
   *
   * Frames arrive in order. A return says nothing of their arrival. Throws ConnectionLost when the stream is over; then
   * `receive` throws as well, once it has returned what had arrived.
   */
  send(frame: ChatRequest): Promise<void>;

  /**
   * The next frame. One call at a time.
   *
   * Throws EndOfStream when the server ended the stream, and ConnectionLost when the network or `close` did.
   */
  receive(): Promise<ChatResponse>;

  /** End the stream, once. Gracefully, what was handed over before is carried over first, for a second at most. */
  close(graceful: boolean): Promise<void>;
}

/** Where the server is and how to get there. */
export interface Transport {
  /**
   * Open a Chat stream for the bearer of a token.
   *
   * Throws ConnectionLost, or TidingsError when the server refused; a refusal may as well come from `receive`.
   */
  connect(token: string): Promise<Connection>;

  /** Carry out a unary operation within `timeout` milliseconds. Throws TidingsError. */
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    token: string,
    timeout: number,
  ): Promise<MessageShape<O>>;

  /**
   * The server goes away: whatever begins from now on goes by a new connection, to another address if there are several.
   * What is under way is not disturbed.
   */
  renew(): void;

  /** Let go of everything. */
  close(): Promise<void>;
}
