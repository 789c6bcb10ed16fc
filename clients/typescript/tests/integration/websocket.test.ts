/** The client as browsers have it, over WebSockets to a real server. */

import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Code } from "../../src/index.js";
import { ServerProcess, tokenOf, until } from "./server.js";
import { Devices, type Watching, watching } from "./watching.js";

const server = new ServerProcess();
const devices = new Devices(server);

beforeAll(() => server.start());
afterEach(() => devices.close());
afterAll(() => server.close());

const browser = (user: string, options: Parameters<typeof devices.open>[1] = {}) =>
  devices.open(user, { ...options, address: server.url });

/** A direct conversation, made by a device of its own over gRPC. */
async function direct(user: string, peer: string): Promise<string> {
  const maker = watching(server.address, user, { device: "maker" });
  await maker.open();
  const { conversationId } = await maker.sdk.createDirect(peer);
  await maker.close();
  return conversationId;
}

async function say(one: Watching, conversationId: string, texts: string[]): Promise<number[]> {
  const handles = [];
  for (const text of texts) {
    handles.push(await one.sdk.send(conversationId, text));
  }
  return Promise.all(handles.map((handle) => handle.sent()));
}

test("two users chat over WebSockets", async () => {
  const conversationId = await direct("alice", "bob");
  const alice = await browser("alice");
  const bob = await browser("bob");
  await bob.sdk.waitOnline();
  const texts = Array.from({ length: 200 }, (_, n) => `message ${n} 🌼`);
  const [first] = await say(alice, conversationId, texts);
  expect(first).toBe(2);
  await bob.until(() => bob.texts(conversationId).length === 200);
  expect(bob.texts(conversationId)).toEqual(texts);
  expect(await say(bob, conversationId, ["Hi!"])).toEqual([202]);
  await alice.until(() => alice.texts(conversationId).at(-1) === "Hi!");
});

test("a token that isn't believed is the end, with the server's reason", async () => {
  const carol = watching(server.url, "carol", { tokenProvider: () => "nonsense" });
  await carol.open();
  const refusal = { code: Code.UNAUTHENTICATED, reason: "TOKEN_INVALID" };
  await expect(carol.sdk.waitOnline()).rejects.toMatchObject(refusal);
  await expect(carol.close()).rejects.toMatchObject(refusal);
});

test("a token that runs out is renewed within the session", async () => {
  const asked: string[] = [];
  const tokenProvider = () => {
    asked.push("");
    return tokenOf("dora", "phone", asked.length === 1 ? 2 : 3600);
  };
  const dora = await browser("dora", { tokenProvider });
  await until(() => asked.length > 1);
  await dora.sdk.waitOnline();
  expect(dora.sdk.ended).toBeUndefined();
});

test("a newer session of the same device ends the older one", async () => {
  const older = await browser("emil");
  await older.sdk.waitOnline();
  const newer = await browser("emil");
  const ended = await until(() => [older, newer].find((one) => one.sdk.ended !== undefined));
  devices.forget(ended);
  await expect(ended.close()).rejects.toMatchObject({ reason: "SESSION_REPLACED" });
});

test("a server killed and started again loses and doubles nothing, in order", async () => {
  const conversationId = await direct("fay", "gus");
  const fay = await browser("fay");
  const gus = await browser("gus");
  // A device that comes for the first time gets the newest messages, and of those before them a gap.
  await Promise.all([fay.sdk.waitOnline(), gus.sdk.waitOnline()]);
  const said: string[] = [];
  const sent: Promise<number[]>[] = [];
  for (let round = 0; round < 2; round += 1) {
    for (const when of ["before", "after"]) {
      const texts = Array.from({ length: 100 }, (_, n) => `${round} ${when} ${n}`);
      said.push(...texts);
      sent.push(say(fay, conversationId, texts));
      if (when === "before") {
        await until(() => fay.of("messageSent").length > round * 200 + 10);
        await server.kill();
      }
    }
    await server.start();
  }
  expect(new Set((await Promise.all(sent)).flat()).size).toBe(400);
  await gus.until(() => gus.texts(conversationId).length >= 400);
  await fay.until(() => fay.texts(conversationId).length >= 400);
  expect(gus.texts(conversationId)).toEqual(said);
  expect(fay.texts(conversationId)).toEqual(said);
});
