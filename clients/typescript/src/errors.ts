/** The errors of the SDK, by the codes of google.rpc.Code. */

/** google.rpc.Code, the codes of gRPC. */
export const Code = {
  OK: 0,
  CANCELLED: 1,
  UNKNOWN: 2,
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  OUT_OF_RANGE: 11,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

export type Code = (typeof Code)[keyof typeof Code];

const NAMES = Object.keys(Code) as (keyof typeof Code)[];

/** The code of a number; UNKNOWN for one that is newer than this SDK. */
export function codeOf(value: number): Code {
  return value in NAMES ? (value as Code) : Code.UNKNOWN;
}

/** What else is known of a failure. */
export interface ErrorDetails {
  /**
   * Why, for programs: a name of ErrorReason without its prefix, such as "ID_REUSED"; empty when the failure doesn't come
   * from a Tidings server (a network, a proxy, the SDK itself).
   */
  reason?: string;
  /** The path of the request's field at fault, or empty. */
  field?: string;
  /** Milliseconds to wait before trying again; undefined where waiting doesn't help or isn't known. */
  retryAfter?: number | undefined;
  /** Further facts, such as "seq" for ID_REUSED. */
  metadata?: Readonly<Record<string, string>>;
}

/** What the server or the SDK refused, and why. */
export class TidingsError extends Error {
  readonly code: Code;
  readonly reason: string;
  readonly field: string;
  readonly retryAfter: number | undefined;
  readonly metadata: Readonly<Record<string, string>>;
  /** What was said, a sentence for developers; `message` says the rest as well. */
  readonly detail: string;

  constructor(code: Code, detail: string, more: ErrorDetails = {}) {
    const name = NAMES[code] ?? "UNKNOWN";
    const what = more.reason ? `${name} (${more.reason})` : name;
    super(more.field ? `${what}: ${more.field}: ${detail}` : `${what}: ${detail}`);
    this.name = new.target.name;
    this.code = code;
    this.detail = detail;
    this.reason = more.reason ?? "";
    this.field = more.field ?? "";
    this.retryAfter = more.retryAfter;
    this.metadata = more.metadata ?? {};
  }
}

/** The client was closed while this was waiting, or before it was asked for. */
export class ClientClosed extends TidingsError {
  constructor(detail = "the client was closed") {
    super(Code.CANCELLED, detail);
  }
}

/** The state can't be used: in use by another client, of another user or device, or of a newer version. */
export class StateError extends TidingsError {
  constructor(detail: string) {
    super(Code.FAILED_PRECONDITION, detail);
  }
}

/** The connection broke, or could not be made. */
export class ConnectionLost extends TidingsError {
  constructor(detail: string) {
    super(Code.UNAVAILABLE, detail);
  }
}
