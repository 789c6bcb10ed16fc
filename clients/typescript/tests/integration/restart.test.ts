/** Servers that are killed, go away and come back, under clients over gRPC. */

import { afterEach, beforeEach, expect, test } from "vitest";
import { MemoryStateStore } from "../../src/node.js";
import { ServerProcess, until } from "./server.js";
import { Devices, type Watching, watching } from "./watching.js";

let server: ServerProcess;
let devices: Devices;

beforeEach(async () => {
  server = await new ServerProcess().start();
  devices = new Devices(server);
});

afterEach(async () => {
  await devices.close();
  await server.close();
});

/** Says so many things at once; gives the texts and what tells that they are sent. */
async function say(
  one: Watching,
  conversationId: string,
  texts: string[],
): Promise<Promise<number>[]> {
  const handles = [];
  for (const text of texts) {
    handles.push(await one.sdk.send(conversationId, text));
  }
  return handles.map((handle) => handle.sent());
}

test("a server killed and started again loses and doubles nothing, in order", async () => {
  const people = { alice: await devices.open("alice"), bob: await devices.open("bob") };
  // A device that comes for the first time gets the newest messages, and of those before them a gap.
  await Promise.all(Object.values(people).map((one) => one.sdk.waitOnline()));
  const { conversationId } = await people.alice.sdk.createDirect("bob");
  const said: Record<string, string[]> = { alice: [], bob: [] };
  const sent: Promise<number>[] = [];
  const all = async (round: string) => {
    for (const [user, one] of Object.entries(people)) {
      const texts = Array.from({ length: 100 }, (_, n) => `${user} ${round} ${n}`);
      said[user]?.push(...texts);
      sent.push(...(await say(one, conversationId, texts)));
    }
  };
  for (let round = 0; round < 3; round += 1) {
    await all(`${round} before`);
    // Some have their answer, and some are on their way.
    await until(() => people.bob.of("messageSent").length > round * 200 + 10);
    await server.kill();
    await all(`${round} after`);
    await server.start();
  }
  const seqs = await Promise.all(sent);
  expect(new Set(seqs).size).toBe(1200);
  const { alice, bob } = people;
  await alice.until(() => alice.texts(conversationId).length >= 1200);
  await bob.until(() => bob.texts(conversationId).length >= 1200);
  const texts = alice.texts(conversationId);
  expect(texts.length).toBe(1200);
  expect(bob.texts(conversationId)).toEqual(texts);
  for (const user of Object.keys(people)) {
    expect(texts.filter((text) => text.startsWith(user))).toEqual(said[user]);
  }
  const history: string[] = [];
  for await (const entry of alice.sdk.history(conversationId, { order: "ascending" })) {
    if (entry.type === "message") {
      history.push(entry.text);
    }
  }
  expect(history).toEqual(texts);
});

test("what is sent while there is no server is sent by the next client of the state", async () => {
  const state = new MemoryStateStore();
  const first = watching(server.address, "alice", { state });
  await first.open();
  const { conversationId } = await first.sdk.createDirect("bob");
  await server.kill();
  const texts = ["one", "two", "three"];
  for (const text of texts) {
    await first.sdk.send(conversationId, text);
  }
  await first.close();
  await server.start();
  const second = await devices.open("alice", { state });
  expect(second.sdk.pending().map((handle) => handle.conversationId)).toEqual([
    conversationId,
    conversationId,
    conversationId,
  ]);
  const bob = await devices.open("bob");
  await bob.until(() => bob.texts(conversationId).length === 3);
  expect(bob.texts(conversationId)).toEqual(texts);
  const restored = second.of("messagePending").filter((event) => event.restored);
  expect(restored.map((event) => event.text)).toEqual(texts);
});

test("a client leaves a server that goes away and comes back to it", async () => {
  const alice = await devices.open("alice");
  await alice.sdk.waitOnline();
  await server.end("SIGTERM");
  await alice.until(() => alice.of("connection").some((event) => event.status === "offline"));
  await server.start();
  await alice.sdk.waitOnline();
  const { conversationId } = await alice.sdk.createDirect("bob");
  expect(await (await alice.sdk.send(conversationId, "back")).sent()).toBe(2);
});
