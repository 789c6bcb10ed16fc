/** The transport over gRPC, for Node: one HTTP/2 connection for the stream and the unary operations. */

import type { DescMessage, DescMethodUnary, MessageShape } from "@bufbuild/protobuf";
import { Code as ConnectCode, ConnectError, type Transport as Stubs } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { type Detail, errorOfStatus } from "./details.js";
import { Code, ConnectionLost, codeOf, TidingsError } from "./errors.js";
import {
  type ChatRequest,
  type ChatResponse,
  ChatService,
} from "./gen/tidings/v1/chat_service_pb.js";
import { type Connection, EndOfStream, type Transport } from "./transport.js";

const CLOSE_MS = 1_000;
/** A page of history may hold 1,000 messages of 16 KiB. */
const MAX_MESSAGE_BYTES = 64 << 20;
/** Fixed windows instead of the 64 KiB that HTTP/2 begins with: a backlog comes without waiting for each piece. */
const WINDOW_BYTES = 1 << 20;

/** How to reach a server over gRPC. */
export interface GrpcOptions {
  /** True for TLS, false for plain text; by default plain text to this machine and TLS to all others. */
  tls?: boolean | undefined;
  /** PEM certificates to trust with TLS; by default the well-known ones. */
  rootCertificates?: string | Uint8Array | undefined;
  /** How often the connection is pinged at the least, in milliseconds; by default 20,000. */
  keepalive?: number | undefined;
  /** How long unary operations that are under way when the server goes away may take, in milliseconds. */
  callTimeout?: number | undefined;
}

/** Whether "host:port" is this machine, so that plain text stays on it. */
export function isLocal(target: string): boolean {
  const host = new URL(`http://${target}`).hostname;
  return host === "localhost" || host === "[::1]" || /^127(\.\d+){3}$/.test(host);
}

interface Way {
  readonly sessions: Http2SessionManager;
  readonly stubs: Stubs;
}

/** A Transport over gRPC. */
export class GrpcTransport implements Transport {
  readonly #targets: string[];
  #way: Way;
  readonly #left = new Map<Way, NodeJS.Timeout>();

  /**
   * @param targets "host:port", or several of them, of which the first is taken until it goes away.
   * @throws TidingsError INVALID_ARGUMENT: a target is a URL, or none was given.
   */
  constructor(
    targets: string | readonly string[],
    private readonly options: GrpcOptions = {},
  ) {
    this.#targets = typeof targets === "string" ? [targets] : [...targets];
    const valid = (target: string) => target !== "" && !/[/\s]/.test(target);
    if (this.#targets.length === 0 || !this.#targets.every(valid)) {
      throw new TidingsError(Code.INVALID_ARGUMENT, "a target is host:port, not a URL", {
        field: "target",
      });
    }
    this.#way = this.#open();
  }

  #open(): Way {
    const target = this.#targets[0] ?? "";
    const tls = this.options.tls ?? !isLocal(target);
    const baseUrl = `${tls ? "https" : "http"}://${target}`;
    const keepalive = this.options.keepalive ?? 20_000;
    const sessions = new Http2SessionManager(
      baseUrl,
      { pingIntervalMs: keepalive, pingTimeoutMs: 10_000, pingIdleConnection: true },
      {
        settings: { initialWindowSize: WINDOW_BYTES },
        ...(tls && this.options.rootCertificates !== undefined
          ? { ca: Buffer.from(this.options.rootCertificates) }
          : {}),
      },
    );
    const stubs = createGrpcTransport({
      baseUrl,
      sessionManager: sessions,
      readMaxBytes: MAX_MESSAGE_BYTES,
    });
    return { sessions, stubs };
  }

  async connect(token: string): Promise<Connection> {
    return new GrpcConnection(this.#way.stubs, token);
  }

  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageShape<I>,
    token: string,
    timeout: number,
  ): Promise<MessageShape<O>> {
    try {
      const { stubs } = this.#way;
      // A message is an initial value of itself; the type that says so depends on I.
      const init = request as Parameters<typeof stubs.unary<I, O>>[4];
      const answer = await stubs.unary(method, undefined, Math.ceil(timeout), bearer(token), init);
      return answer.message;
    } catch (error) {
      throw errorOf(error);
    }
  }

  renew(): void {
    const way = this.#way;
    this.#targets.push(...this.#targets.splice(0, 1));
    this.#way = this.#open();
    const timer = setTimeout(() => this.#abandon(way), this.options.callTimeout ?? 30_000);
    timer.unref();
    this.#left.set(way, timer);
  }

  #abandon(way: Way): void {
    clearTimeout(this.#left.get(way));
    this.#left.delete(way);
    way.sessions.abort();
  }

  async close(): Promise<void> {
    for (const way of [...this.#left.keys(), this.#way]) {
      this.#abandon(way);
    }
  }
}

/** One Chat stream. */
class GrpcConnection implements Connection {
  readonly #outbound = new Outbound();
  readonly #cancel = new AbortController();
  readonly #incoming: Promise<AsyncIterator<ChatResponse>>;
  #over = false;
  #closed = false;

  constructor(stubs: Stubs, token: string) {
    const response = stubs.stream(
      ChatService.method.chat,
      this.#cancel.signal,
      undefined,
      bearer(token),
      this.#outbound,
    );
    // It comes with the first frame, and `receive` tells what went wrong.
    this.#incoming = response.then(({ message }) => message[Symbol.asyncIterator]());
    this.#incoming.catch(() => {});
  }

  send(frame: ChatRequest): Promise<void> {
    return this.#outbound.push(frame);
  }

  async receive(): Promise<ChatResponse> {
    try {
      const { done, value } = await (await this.#incoming).next();
      if (!done) {
        return value;
      }
    } catch (error) {
      this.#finish();
      throw this.#closed ? new ConnectionLost("the stream was closed") : endOf(errorOf(error));
    }
    this.#finish();
    throw new EndOfStream();
  }

  #finish(): void {
    this.#over = true;
    this.#outbound.stop();
  }

  async close(graceful: boolean): Promise<void> {
    if (this.#closed) {
      return;
    }
    if (graceful && !this.#over) {
      this.#outbound.end();
      await this.#ended();
    }
    this.#closed = true;
    this.#outbound.stop();
    this.#cancel.abort();
  }

  /** Wait until whoever receives has seen the end, for a second at most. */
  #ended(): Promise<void> {
    return new Promise((resolve) => {
      const started = Date.now();
      const look = () => {
        if (this.#over || Date.now() - started > CLOSE_MS) {
          resolve();
        } else {
          setTimeout(look, 5);
        }
      };
      look();
    });
  }
}

/** Frames on their way into a stream: each is asked for when the one before was taken by the network. */
class Outbound implements AsyncIterableIterator<ChatRequest> {
  #frame: ChatRequest | undefined;
  #taken: { resolve: () => void; reject: (error: Error) => void } | undefined;
  #asked: ((result: IteratorResult<ChatRequest, undefined>) => void) | undefined;
  #handedOver = false;
  #ending = false;
  #stopped = false;

  [Symbol.asyncIterator](): this {
    return this;
  }

  push(frame: ChatRequest): Promise<void> {
    if (this.#stopped || this.#ending) {
      return Promise.reject(new ConnectionLost("the stream is over"));
    }
    return new Promise((resolve, reject) => {
      this.#taken = { resolve, reject };
      this.#frame = frame;
      this.#handOver();
    });
  }

  /** What was pushed is the last. */
  end(): void {
    this.#ending = true;
    this.#handOver();
  }

  /** Nothing is carried any more. */
  stop(): void {
    this.#stopped = true;
    this.#taken?.reject(new ConnectionLost("the stream is over"));
    this.#taken = undefined;
    this.#handOver();
  }

  next(): Promise<IteratorResult<ChatRequest, undefined>> {
    if (this.#handedOver) {
      this.#handedOver = false;
      this.#taken?.resolve();
      this.#taken = undefined;
    }
    return new Promise((resolve) => {
      this.#asked = resolve;
      this.#handOver();
    });
  }

  async return(): Promise<IteratorResult<ChatRequest, undefined>> {
    this.stop();
    return { done: true, value: undefined };
  }

  async throw(): Promise<IteratorResult<ChatRequest, undefined>> {
    return this.return();
  }

  #handOver(): void {
    const asked = this.#asked;
    const frame = this.#frame;
    if (asked === undefined) {
      return;
    }
    if (!this.#stopped && frame !== undefined) {
      this.#asked = this.#frame = undefined;
      this.#handedOver = true;
      asked({ done: false, value: frame });
    } else if (this.#stopped || this.#ending) {
      this.#asked = undefined;
      asked({ done: true, value: undefined });
    }
  }
}

function bearer(token: string): Headers {
  return new Headers({ authorization: `Bearer ${token}` });
}

/** A status with a reason is the server's word; so is a refused token, whoever says it. The rest is the network. */
function endOf(error: TidingsError): ConnectionLost | EndOfStream {
  if (error.reason || error.code === Code.UNAUTHENTICATED) {
    return new EndOfStream(error);
  }
  return new ConnectionLost(error.message);
}

/** The error of a call. A server that was killed is "canceled" to connect-node; nothing here cancels a call. */
function errorOf(thrown: unknown): TidingsError {
  const error = ConnectError.from(thrown);
  const details = error.details.filter(
    (detail): detail is Detail & typeof detail =>
      "value" in detail && detail.value instanceof Uint8Array,
  );
  const code = error.code === ConnectCode.Canceled ? Code.UNAVAILABLE : codeOf(error.code);
  return errorOfStatus(code, error.rawMessage, details);
}
