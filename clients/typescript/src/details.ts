/**
 * The details that a server adds to a status: why, which field, and how long to wait.
 *
 * They are google.rpc's ErrorInfo, BadRequest and RetryInfo, read by field number: what describes all of that file's
 * messages would be loaded by every page.
 */

import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { type Code, TidingsError } from "./errors.js";

const DOMAIN = "tidings";

/** One detail: the full name of its type, and its serialised message. */
export interface Detail {
  readonly type: string;
  readonly value: Uint8Array;
}

/** The error of a status with its details. */
export function errorOfStatus(
  code: Code,
  message: string,
  details: readonly Detail[],
): TidingsError {
  let reason = "";
  let field = "";
  let retryAfter: number | undefined;
  let metadata: Record<string, string> = {};
  for (const { type, value } of details) {
    const fields = fieldsOf(value);
    if (type === "google.rpc.ErrorInfo" && textOf(fields.get(2)) === DOMAIN) {
      reason = textOf(fields.get(1));
      metadata = Object.fromEntries((fields.get(3) ?? []).map(pairOf));
    } else if (type === "google.rpc.BadRequest") {
      field = textOf(fieldsOf(bytesOf(fields.get(1))).get(1));
    } else if (type === "google.rpc.RetryInfo" && fields.has(1)) {
      const delay = fieldsOf(bytesOf(fields.get(1)));
      retryAfter = numberOf(delay.get(1)) * 1000 + numberOf(delay.get(2)) / 1_000_000;
    }
  }
  return new TidingsError(code, message, { reason, field, retryAfter, metadata });
}

/** What a field holds, as often as it is there. */
type Held = (Uint8Array | number)[];

/** The fields of a serialised message by number: numbers, and the bytes of strings and messages. */
function fieldsOf(bytes: Uint8Array): Map<number, Held> {
  const fields = new Map<number, Held>();
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    const held = fields.get(number) ?? [];
    if (wireType === WireType.Varint) {
      held.push(Number(reader.int64()));
    } else if (wireType === WireType.LengthDelimited) {
      held.push(reader.bytes());
    } else {
      reader.skip(wireType, number);
    }
    fields.set(number, held);
  }
  return fields;
}

function bytesOf(held: Held = []): Uint8Array {
  return held[0] instanceof Uint8Array ? held[0] : new Uint8Array();
}

function textOf(held?: Held): string {
  return new TextDecoder().decode(bytesOf(held));
}

function numberOf(held: Held = []): number {
  return typeof held[0] === "number" ? held[0] : 0;
}

/** An entry of a map from strings to strings. */
function pairOf(entry: Uint8Array | number): [string, string] {
  const fields = fieldsOf(bytesOf([entry]));
  return [textOf(fields.get(1)), textOf(fields.get(2))];
}
