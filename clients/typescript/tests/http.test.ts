/** Unary operations over HTTP, against Connect's own server. */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { create } from "@bufbuild/protobuf";
import { Code as ConnectCode, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Code } from "../src/errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  RetryInfoSchema,
} from "../src/gen/google/rpc/error_details_pb.js";
import {
  GetMessageRequestSchema,
  MessageService,
} from "../src/gen/tidings/v1/message_service_pb.js";
import { WebSocketTransport } from "../src/websocket.js";

let server: Server;
let base = "";
let answer: () => Promise<unknown> = async () => ({});
let seen: Headers | undefined;

beforeAll(async () => {
  const adapter = connectNodeAdapter({
    routes: (router) => {
      router.rpc(MessageService.method.getMessage, async (request, context) => {
        seen = context.requestHeader;
        await answer();
        return { entry: { conversationId: request.conversationId, seq: 7n } };
      });
    },
  });
  server = createServer(adapter);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

function get(url = base, timeout = 10_000) {
  const request = create(GetMessageRequestSchema, { conversationId: "c" });
  const transport = new WebSocketTransport(url);
  return transport.call(MessageService.method.getMessage, request, "a token", timeout);
}

test("an operation is carried out with the token", async () => {
  answer = async () => {};
  const { entry } = await get();
  expect([entry?.conversationId, entry?.seq]).toEqual(["c", 7n]);
  expect(seen?.get("authorization")).toBe("Bearer a token");
});

test("what the server refuses is told with all its details", async () => {
  answer = async () => {
    throw new ConnectError("no such thing", ConnectCode.NotFound, undefined, [
      {
        desc: ErrorInfoSchema,
        value: { domain: "tidings", reason: "MESSAGE_NOT_FOUND", metadata: { seq: "7" } },
      },
      { desc: BadRequestSchema, value: { fieldViolations: [{ field: "key" }] } },
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 1n, nanos: 500_000_000 } } },
    ]);
  };
  await expect(get()).rejects.toMatchObject({
    code: Code.NOT_FOUND,
    detail: "no such thing",
    reason: "MESSAGE_NOT_FOUND",
    field: "key",
    retryAfter: 1500,
    metadata: { seq: "7" },
  });
});

test("every code is told as it is", async () => {
  for (const code of Object.values(ConnectCode).filter((one) => typeof one === "number")) {
    answer = async () => {
      throw new ConnectError("refused", code);
    };
    await expect(get()).rejects.toMatchObject({ code: Number(code) });
  }
});

test("an answer that doesn't come in time is DEADLINE_EXCEEDED", async () => {
  answer = () => new Promise((resolve) => setTimeout(resolve, 500));
  await expect(get(base, 20)).rejects.toMatchObject({ code: Code.DEADLINE_EXCEEDED });
});

test("what is no answer of a Tidings server is told by its status", async () => {
  await expect(get(`${base}/elsewhere`)).rejects.toMatchObject({
    code: Code.UNIMPLEMENTED,
    reason: "",
  });
  await expect(get("http://127.0.0.1:1")).rejects.toMatchObject({ code: Code.UNAVAILABLE });
});

test("an address that is none is refused", () => {
  expect(() => new WebSocketTransport("ftp://chat.example.com")).toThrow(/url/);
  expect(() => new WebSocketTransport("chat.example.com")).toThrow(TypeError);
});
