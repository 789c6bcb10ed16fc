/** Unary operations over HTTP: the Connect protocol, in protobuf. */

import {
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type Detail, errorOfStatus } from "./details.js";
import { Code, TidingsError } from "./errors.js";

/** What a proxy's status means where no Tidings server has spoken. */
const BY_STATUS: Readonly<Record<number, Code>> = {
  400: Code.INTERNAL,
  401: Code.UNAUTHENTICATED,
  403: Code.PERMISSION_DENIED,
  404: Code.UNIMPLEMENTED,
  429: Code.UNAVAILABLE,
  502: Code.UNAVAILABLE,
  503: Code.UNAVAILABLE,
  504: Code.UNAVAILABLE,
};

/**
 * Carry out an operation within `timeout` milliseconds.
 *
 * @param base Where the services are, without a slash at its end.
 * @throws TidingsError.
 */
export async function callOverHttp<I extends DescMessage, O extends DescMessage>(
  base: string,
  method: DescMethodUnary<I, O>,
  request: MessageShape<I>,
  token: string,
  timeout: number,
): Promise<MessageShape<O>> {
  try {
    const response = await fetch(`${base}/${method.parent.typeName}/${method.name}`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${token}`,
        "connect-protocol-version": "1",
        "connect-timeout-ms": String(Math.ceil(timeout)),
        "content-type": "application/proto",
      },
      body: toBinary(method.input, request) as Uint8Array<ArrayBuffer>,
      // The token is what counts, and no cookie is ever looked at.
      credentials: "omit",
      signal: AbortSignal.timeout(Math.ceil(timeout)),
    });
    if (!response.ok) {
      throw await errorOf(response);
    }
    return fromBinary(method.output, new Uint8Array(await response.arrayBuffer()));
  } catch (error) {
    if (error instanceof TidingsError) {
      throw error;
    }
    const late = error instanceof DOMException && error.name === "TimeoutError";
    throw new TidingsError(
      late ? Code.DEADLINE_EXCEEDED : Code.UNAVAILABLE,
      late ? `${method.name} took longer than ${timeout} ms` : String(error),
    );
  }
}

async function errorOf(response: Response): Promise<TidingsError> {
  const told = (await response.json().catch(() => ({}))) as Record<string, unknown>;
  const name = String(told.code).toUpperCase().replace("CANCELED", "CANCELLED");
  const code = name in Code ? Code[name as keyof typeof Code] : undefined;
  if (code === undefined) {
    return new TidingsError(BY_STATUS[response.status] ?? Code.UNKNOWN, `HTTP ${response.status}`);
  }
  const details = Array.isArray(told.details) ? told.details.map(detailOf) : [];
  return errorOfStatus(code, String(told.message ?? ""), details);
}

function detailOf(detail: { type: string; value: string }): Detail {
  const base64 = detail.value.replace(/-/g, "+").replace(/_/g, "/");
  return {
    type: detail.type,
    value: Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)),
  };
}
