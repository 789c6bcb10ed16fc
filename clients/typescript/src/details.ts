/** The details that a server adds to a status: why, which field, and how long to wait. */

import { fromBinary } from "@bufbuild/protobuf";
import { durationMs } from "./convert.js";
import { type Code, TidingsError } from "./errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";

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
    if (type === "google.rpc.ErrorInfo") {
      const info = fromBinary(ErrorInfoSchema, value);
      if (info.domain === DOMAIN) {
        reason = info.reason;
        metadata = info.metadata;
      }
    } else if (type === "google.rpc.BadRequest") {
      field = fromBinary(BadRequestSchema, value).fieldViolations[0]?.field ?? "";
    } else if (type === "google.rpc.RetryInfo") {
      const { retryDelay } = fromBinary(RetryInfoSchema, value);
      retryAfter = retryDelay && durationMs(retryDelay);
    }
  }
  return new TidingsError(code, message, { reason, field, retryAfter, metadata });
}
