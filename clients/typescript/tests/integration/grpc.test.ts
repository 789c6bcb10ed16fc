/** The client over gRPC against a real server, over real connections. */

import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { Code, MemoryStateStore, MessageFold } from "../../src/node.js";
import { ServerProcess, tokenOf, until } from "./server.js";
import { Devices, watching } from "./watching.js";

const server = new ServerProcess();
const devices = new Devices(server);
const open = devices.open;

beforeAll(() => server.start());
afterEach(() => devices.close());
afterAll(() => server.close());

test("two users chat", async () => {
  const alice = await open("alice");
  const bob = await open("bob");
  const { conversationId, peerUserId } = await alice.sdk.createDirect("bob");
  expect(peerUserId).toBe("bob");
  const handle = await alice.sdk.send(conversationId, "Hello, Bob 👋");
  const seq = await handle.sent();
  const got = await bob.until(() => bob.of("message")[0]);
  expect(got).toMatchObject({
    conversationId,
    seq,
    text: "Hello, Bob 👋",
    userId: "alice",
    entryId: handle.messageId,
    own: false,
  });
  const answer = await bob.sdk.send(conversationId, "Hi!", { replyTo: handle.messageId });
  await answer.sent();
  const back = await alice.until(() => alice.of("message").find((message) => !message.own));
  expect(back).toMatchObject({ text: "Hi!", replyTo: handle.messageId, seq: seq + 1 });
  expect(alice.of("messagePending").map((event) => event.messageId)).toEqual([handle.messageId]);
  expect(alice.of("messageSent").map((event) => event.seq)).toEqual([seq]);
  expect(alice.sdk.pending()).toEqual([]);
  expect([alice.sdk.userId, alice.sdk.deviceId]).toEqual(["alice", "phone"]);
});

test("everything that can be asked", async () => {
  const ann = await open("ann");
  const ben = await open("ben");
  const cat = await open("cat");
  await Promise.all([ann, ben, cat].map((one) => one.sdk.waitOnline()));
  const group = await ann.sdk.createGroup("Garden", ["ben"]);
  const id = group.conversationId;
  expect(group).toMatchObject({ kind: "group", title: "Garden", role: "owner", memberCount: 2 });
  expect(await ann.sdk.addMembers(id, ["cat"])).toBe(2);
  expect(await ann.sdk.addMembers(id, [{ userId: "cat", role: "owner" }])).toBe(0);
  const members = [];
  for await (const member of ann.sdk.members(id, { pageSize: 1 })) {
    members.push(`${member.userId} ${member.role}`);
  }
  expect(members).toEqual(["ann owner", "ben member", "cat member"]);

  expect(await ann.sdk.updateConversation(id, { title: "Garden 🌱", customData: "{}" })).toBe(3);
  expect(await ann.sdk.updateConversation(id, { title: "Garden 🌱" })).toBe(0);
  const updated = await ben.until(() => ben.of("conversationUpdated")[0]);
  expect(updated.settings).toEqual({ title: "Garden 🌱", customData: "{}" });
  expect(await ben.sdk.getConversation(id)).toMatchObject({ title: "Garden 🌱", description: "" });

  const texts = Array.from({ length: 25 }, (_, n) => `message ${n}`);
  const handles = [];
  for (const text of texts) {
    handles.push(await ann.sdk.send(id, text));
  }
  const seqs = await Promise.all(handles.map((handle) => handle.sent()));
  expect(seqs).toEqual(texts.map((_, n) => n + 4));
  const newest = [];
  for await (const entry of ben.sdk.history(id, { pageSize: 7, until: 21 })) {
    newest.push(entry.seq);
  }
  expect(newest).toEqual([28, 27, 26, 25, 24, 23, 22, 21]);

  await ann.sdk.editMessage(id, 4, "edited");
  await ben.sdk.setReaction(id, 4, "👍");
  await ann.sdk.setReaction(id, 4, "👍");
  await ann.sdk.deleteMessage(id, 5);
  const message = await ben.sdk.getMessage(id, { seq: 4 });
  expect(message).toMatchObject({
    text: "message 0",
    state: { text: "edited", reactions: [{ reaction: "👍", count: 2 }], ownReaction: "👍" },
  });
  expect((await ben.sdk.edits(id, 4)).map((edit) => edit.text)).toEqual(["edited"]);
  const reactions = [];
  for await (const reaction of ben.sdk.reactions(id, 4)) {
    reactions.push(reaction.userId);
  }
  expect(reactions).toEqual(["ann", "ben"]);
  // The state at the start and the events applied are the state fetched fresh.
  await ben.until(() => ben.of("messageDeleted").length === 1);
  const lived = new MessageFold();
  ben.events.forEach((event) => {
    lived.take(event);
  });
  const fetched = new MessageFold();
  for await (const entry of ben.sdk.history(id)) {
    fetched.take(entry);
  }
  expect([...lived]).toEqual([...fetched]);

  expect(await ben.sdk.markRead(id, 11)).toMatchObject({ readSeq: 11, unreadCount: 17 });
  await ann.until(() =>
    ann.of("receipt").some((receipt) => receipt.userId === "ben" && receipt.readSeq === 11),
  );
  const unread = await ben.sdk.unread();
  expect([unread.total, unread.counts.get(id)?.readSeq]).toEqual([17, 11]);
  const receipts = new Map<string, number>();
  for await (const receipt of ann.sdk.receipts(id)) {
    receipts.set(receipt.userId, receipt.readSeq);
  }
  expect(receipts.get("ben")).toBe(11);
  expect(await ben.sdk.markDelivered(id, 12)).toBeGreaterThanOrEqual(12);

  await ann.sdk.setStatus("away", "at lunch");
  const presence = (await ben.sdk.presence(["ann", "nobody"])).get("ann");
  expect(presence).toMatchObject({ online: true, availability: "away", statusText: "at lunch" });

  expect(await ann.sdk.removeMember(id, "cat")).toBeGreaterThan(0);
  await cat.until(() => cat.of("conversationLeft").length === 1);
  await ben.sdk.leave(id);
  const left = await ann.until(() => ann.of("memberRemoved")[1]);
  expect([left.removedUserId, left.userId]).toEqual(["ben", "ben"]);
  const conversations = [];
  for await (const conversation of ann.sdk.conversations({ pageSize: 1 })) {
    conversations.push(conversation.conversationId);
  }
  expect(conversations).toEqual([id]);
  expect((await ann.sdk.getConversation(id)).memberCount).toBe(1);
});

test("what the server refuses is told with its reason", async () => {
  const dora = await open("dora");
  await expect(dora.sdk.getConversation("not an id")).rejects.toMatchObject({
    code: Code.INVALID_ARGUMENT,
    reason: "INVALID_FIELD",
    field: "conversation_id",
  });
  const nowhere = "00000000-0000-7000-8000-000000000000";
  await expect(dora.sdk.getConversation(nowhere)).rejects.toMatchObject({
    code: Code.NOT_FOUND,
    reason: "CONVERSATION_NOT_FOUND",
  });
  const handle = await dora.sdk.send(nowhere, "into the void");
  await expect(handle.sent()).rejects.toMatchObject({ reason: "CONVERSATION_NOT_FOUND" });
  const failed = await dora.until(() => dora.of("messageFailed")[0]);
  expect([failed.text, failed.error.code]).toEqual(["into the void", Code.NOT_FOUND]);
  await expect(dora.sdk.send(nowhere, "")).rejects.toMatchObject({ field: "text" });
  await expect(dora.sdk.send(nowhere, "\ud800")).rejects.toMatchObject({ field: "text" });
  await expect(dora.sdk.send("", "x")).rejects.toMatchObject({ field: "conversation_id" });
});

test("a newer session of the same device ends the older one", async () => {
  const older = await open("emil");
  await older.sdk.waitOnline();
  // It tries once more, since a connection of its own could have replaced it: then the newer one is the older.
  const newer = await open("emil");
  const ended = await until(() => [older, newer].find((one) => one.sdk.ended !== undefined));
  devices.forget(ended);
  await expect(ended.close()).rejects.toMatchObject({ reason: "SESSION_REPLACED" });
  const other = ended === older ? newer : older;
  await other.sdk.waitOnline();
});

test("a token that is refused twice is the end, and one that runs out is renewed", async () => {
  const refused = watching(server.address, "fay", { tokenProvider: () => "nonsense" });
  await refused.open();
  await expect(refused.sdk.waitOnline()).rejects.toMatchObject({ code: Code.UNAUTHENTICATED });
  await expect(refused.close()).rejects.toMatchObject({ code: Code.UNAUTHENTICATED });

  const asked: string[] = [];
  const tokenProvider = () => {
    const token = tokenOf("gus", "phone", asked.length === 0 ? 2 : 3600);
    asked.push(token);
    return token;
  };
  const gus = await open("gus", { tokenProvider });
  await gus.sdk.waitOnline();
  await until(() => asked.length > 1);
  const { conversationId } = await gus.sdk.createDirect("fay");
  expect(await (await gus.sdk.send(conversationId, "still here")).sent()).toBeGreaterThan(0);
  expect(gus.sdk.ended).toBeUndefined();
});

test("applied positions are kept: nothing comes twice to the next client of the state", async () => {
  const state = new MemoryStateStore();
  const hana = await open("hana");
  const first = watching(server.address, "ivo", { state });
  await first.open();
  const { conversationId } = await hana.sdk.createDirect("ivo");
  await hana.sdk.send(conversationId, "one");
  await first.until(() => first.texts(conversationId).length === 1);
  await first.close();
  const handle = await hana.sdk.send(conversationId, "two");
  await handle.sent();
  const second = await open("ivo", { state });
  await second.until(() => second.texts(conversationId).length === 1);
  expect(second.texts(conversationId)).toEqual(["two"]);
});

test("what was missed beyond the limit comes as a gap, which can be listed", async () => {
  const jon = await open("jon");
  const { conversationId } = await jon.sdk.createDirect("kim");
  const handles = [];
  for (let n = 1; n <= 40; n += 1) {
    handles.push(await jon.sdk.send(conversationId, String(n)));
  }
  await Promise.all(handles.map((handle) => handle.sent()));
  const kim = await open("kim", { config: { catchUpLimit: 10 } });
  const gap = await kim.until(() =>
    kim.of("gap").find((event) => event.conversationId === conversationId),
  );
  await kim.until(() => kim.texts(conversationId).at(-1) === "40");
  const missed: string[] = [];
  for await (const entry of kim.sdk.missed(gap, { pageSize: 7 })) {
    if (entry.type === "message") {
      missed.push(entry.text);
    }
  }
  const all = Array.from({ length: 40 }, (_, n) => String(n + 1));
  expect([...missed, ...kim.texts(conversationId)]).toEqual(all);
});
