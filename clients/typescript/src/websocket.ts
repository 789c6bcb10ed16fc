/** The transport for browsers: frames over a WebSocket (docs/bridge.md), unary operations over HTTP. */

import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { Code, ConnectionLost, codeOf, TidingsError } from "./errors.js";
import { OpeningSchema } from "./gen/tidings/v1/bridge_pb.js";
import {
  type ChatRequest,
  ChatRequestSchema,
  type ChatResponse,
  ChatResponseSchema,
} from "./gen/tidings/v1/chat_service_pb.js";
import { ErrorReasonSchema } from "./gen/tidings/v1/error_pb.js";
import { callOverHttp } from "./http.js";
import { type Connection, EndOfStream, type Transport } from "./transport.js";

const SUBPROTOCOL = "tidings.v1+proto";
const CLOSE_MS = 1_000;
/** So much may wait in the browser before the next frame waits. */
const MAX_BUFFERED = 1 << 20;
const BUFFER_LOOK_MS = 20;
/** Close codes that say that the client breaks the protocol. */
const BROKEN: ReadonlySet<number> = new Set([1002, 1003, 1007, 1009]);

/** A Transport over a WebSocket and HTTP. */
export class WebSocketTransport implements Transport {
  readonly #bases: URL[];

  /**
   * @param urls Where the bridge is: "https://chat.example.com", or several, of which the first is taken until it goes
   *   away. `/ws` and the names of operations are put behind it.
   * @throws TypeError: what is given is no URL. TidingsError INVALID_ARGUMENT: it is one of another kind.
   */
  constructor(urls: string | URL | readonly (string | URL)[]) {
    const given = Array.isArray(urls) ? urls : [urls];
    this.#bases = given.map((url) => new URL(url));
    if (!this.#bases.every(({ protocol }) => /^(http|ws)s?:$/.test(protocol))) {
      throw new TidingsError(Code.INVALID_ARGUMENT, "it is no http or https URL", { field: "url" });
    }
  }

  get #base(): string {
    return (this.#bases[0]?.href ?? "").replace(/\/+$/, "");
  }

  connect(token: string): Promise<Connection> {
    const socket = new WebSocket(`${this.#base.replace(/^http/, "ws")}/ws`, SUBPROTOCOL);
    return WebSocketConnection.open(socket, token);
  }

  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    token: string,
    timeout: number,
  ): Promise<MessageShape<O>> {
    return callOverHttp(this.#base.replace(/^ws/, "http"), method, request, token, timeout);
  }

  renew(): void {
    this.#bases.push(...this.#bases.splice(0, 1));
  }

  async close(): Promise<void> {}
}

/** One Chat stream over a WebSocket. */
class WebSocketConnection implements Connection {
  readonly #frames: ChatResponse[] = [];
  #end: Error | undefined;
  #wake: (() => void) | undefined;

  static open(socket: WebSocket, token: string): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const connection = new WebSocketConnection(socket, (error) => reject(error));
      socket.addEventListener("open", () => {
        socket.send(toBinary(OpeningSchema, create(OpeningSchema, { token })));
        resolve(connection);
      });
    });
  }

  private constructor(
    private readonly socket: WebSocket,
    ended: (error: Error) => void,
  ) {
    socket.binaryType = "arraybuffer";
    socket.addEventListener("message", ({ data }) => this.#take(data));
    socket.addEventListener("close", ({ code, reason }) => {
      this.#finish(endOf(code, reason));
      ended(this.#end as Error);
    });
  }

  #take(data: unknown): void {
    try {
      this.#frames.push(fromBinary(ChatResponseSchema, new Uint8Array(data as ArrayBuffer)));
    } catch {
      this.#finish(new ConnectionLost("the server sent a frame that is no ChatResponse"));
      this.socket.close();
    }
    this.#wake?.();
  }

  #finish(end: Error): void {
    this.#end ??= end;
    this.#wake?.();
  }

  async send(frame: ChatRequest): Promise<void> {
    while (this.#end === undefined && this.socket.bufferedAmount > MAX_BUFFERED) {
      await new Promise((resolve) => setTimeout(resolve, BUFFER_LOOK_MS));
    }
    if (this.#end !== undefined || this.socket.readyState !== WebSocket.OPEN) {
      throw new ConnectionLost("the stream is over");
    }
    this.socket.send(toBinary(ChatRequestSchema, frame));
  }

  async receive(): Promise<ChatResponse> {
    while (true) {
      const frame = this.#frames.shift();
      if (frame !== undefined) {
        return frame;
      }
      if (this.#end !== undefined) {
        throw this.#end;
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async close(graceful: boolean): Promise<void> {
    if (graceful && this.#end === undefined) {
      // What was sent before is carried over first.
      const closed = new Promise((resolve) => this.socket.addEventListener("close", resolve));
      const over = new Promise((resolve) => setTimeout(resolve, CLOSE_MS));
      this.socket.close(1000);
      await Promise.race([closed, over]);
    }
    // A socket whose other side is gone takes its time to close: nobody waits for it.
    this.#finish(new ConnectionLost("the stream was closed"));
    this.socket.close(1000);
  }
}

/** What a close code means; its hundreds say whether to connect again. */
function endOf(code: number, reason: string): Error {
  if (BROKEN.has(code)) {
    const error = new TidingsError(Code.INTERNAL, `the socket was closed with ${code} ${reason}`);
    return new EndOfStream(error, false);
  }
  if (code < 4000 || code > 4199) {
    return new ConnectionLost(`the socket was closed with ${code} ${reason}`.trim());
  }
  const known = ErrorReasonSchema.values.some(({ localName }) => localName === reason)
    ? { reason }
    : {};
  const error = new TidingsError(codeOf(code % 100), "the server closed the socket", known);
  return new EndOfStream(error, code < 4100);
}
