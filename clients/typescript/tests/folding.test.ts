/** The messages of a conversation, folded from the stream and from history in any mixture. */

import fc from "fast-check";
import { expect, test } from "vitest";
import type {
  Gap,
  Message,
  MessageChange,
  MessageDeleted,
  MessageEdited,
  MessageState,
} from "../src/events.js";
import { MessageFold } from "../src/folding.js";
import { seeded } from "./seeded.js";

const inLog = (seq: number, id: string) => ({
  conversationId: "c",
  log: "c",
  seq,
  ordinal: seq,
  time: new Date(1_750_000_000_000 + seq * 1000),
  userId: "bob",
  entryId: `${id}${seq}`,
});

const NOTHING = { text: null, replyTo: null, editSeqs: [], editTime: null, deleted: false };

function state(seq: number, asOf: number, more: Partial<MessageState> = {}): MessageState {
  const about = { conversationId: "c", seq, asOf };
  return { type: "messageState", ...about, ...NOTHING, reactions: [], ownReaction: "", ...more };
}

function message(seq: number, text = `text ${seq}`, became: MessageState | null = null): Message {
  const content = { text, replyTo: null, own: false, erased: false };
  return { type: "message", ...inLog(seq, "m"), ...content, state: became };
}

function edited(seq: number, messageSeq: number, text: string): MessageEdited {
  const content = { messageSeq, text, replyTo: null, erased: false };
  return { type: "messageEdited", ...inLog(seq, "e"), ...content };
}

function deleted(seq: number, messageSeq: number): MessageDeleted {
  return { type: "messageDeleted", ...inLog(seq, "d"), messageSeq };
}

const gap = (fromSeq: number, toSeq: number, staleFromSeq = 0): Gap => ({
  type: "gap",
  conversationId: "c",
  fromSeq,
  toSeq,
  staleFromSeq,
});

const seqs = (fold: MessageFold) => [...fold].map((held) => held.message.seq);

/** A conversation as the server has it: every entry, and the state of each message at a head. */
class Server {
  readonly entries: (Message | MessageChange)[] = [];

  constructor(pick: (below: number) => number, length: number) {
    const there: number[] = [];
    for (let seq = 1; seq <= length; seq += 1) {
      const about = there[pick(there.length || 1)];
      const kind = pick(10);
      if (about !== undefined && kind === 0) {
        there.splice(there.indexOf(about), 1);
        this.entries.push(deleted(seq, about));
      } else if (about !== undefined && kind < 7) {
        this.entries.push(edited(seq, about, `edit ${seq}`));
      } else {
        there.push(seq);
        this.entries.push(message(seq));
      }
    }
  }

  posted(head: number): number[] {
    return this.entries
      .slice(0, head)
      .filter((entry) => entry.type === "message")
      .map((entry) => entry.seq);
  }

  /** A message as it is fetched when the log ends at a head. */
  fetched(seq: number, head: number): Message {
    const posted = this.entries[seq - 1] as Message;
    const changes = this.entries
      .slice(0, head)
      .filter((entry) => entry.type !== "message" && entry.messageSeq === seq);
    const edits = changes.filter((change) => change.type === "messageEdited");
    const last = changes.at(-1);
    if (last === undefined) {
      return posted;
    }
    const gone = last.type === "messageDeleted";
    const became = state(seq, last.seq, {
      text: gone ? null : (edits.at(-1)?.text ?? null),
      editSeqs: edits.map((edit) => edit.seq),
      editTime: edits.at(-1)?.time ?? null,
      deleted: gone,
    });
    return { ...posted, state: became, erased: gone, text: gone ? "" : posted.text };
  }
}

test("whatever is fetched in between, the end is the same", () => {
  fc.assert(
    fc.property(fc.nat(), fc.integer({ min: 1, max: 40 }), (seed, head) => {
      const random = seeded(seed);
      const pick = (below: number) => Math.floor(random.fraction() * below);
      const server = new Server(pick, head);
      // What a device that was there from the beginning has.
      const whole = new MessageFold();
      for (const entry of server.entries) {
        whole.take(entry);
      }
      // A device that comes later, and fetches what came before, now and then, from a server that is further.
      const fold = new MessageFold();
      for (let at = pick(head + 1); at < head; at += 1) {
        fold.take(server.entries[at] as Message);
        const seen = at + 1 + pick(head - at);
        const old = server.posted(seen);
        for (let times = pick(3); times > 0 && old.length > 0; times -= 1) {
          fold.take(server.fetched(old[pick(old.length)] as number, seen));
        }
      }
      for (const seq of server.posted(head)) {
        fold.take(server.fetched(seq, head));
      }
      expect([...fold]).toEqual([...whole]);
      for (const held of whole) {
        const fetched = server.fetched(held.message.seq, head);
        expect(held.text).toBe(fetched.state?.text ?? fetched.text);
        expect(held.deleted).toBe(fetched.erased);
      }
    }),
    { numRuns: 300 },
  );
});

test("what looks otherwise is told", () => {
  const fold = new MessageFold();
  expect(fold.take(message(3, "a"))).toBe(3);
  expect(fold.take(message(3, "a"))).toBeUndefined();
  expect(fold.take(edited(4, 3, "b"))).toBe(3);
  expect(fold.take(edited(4, 3, "b"))).toBeUndefined();
  expect(fold.take(edited(5, 2, "x"))).toBeUndefined();
  const held = fold.get(3);
  expect([held?.text, held?.edited, held?.state.editSeqs]).toEqual(["b", true, [4]]);
  expect(fold.get(2)).toBeUndefined();
  expect(fold.take(message(2))).toBe(2);
  expect([...fold].map((one) => one.text)).toEqual(["x", "b"]);
  expect(fold.take(state(3, 9, { text: "c", editSeqs: [4, 9] }))).toBe(3);
  expect(fold.take(edited(9, 3, "c"))).toBeUndefined();
  expect(fold.take(state(7, 9, { text: "no" }))).toBeUndefined();
  expect(fold.size).toBe(2);
});

test("what lies in a gap is not held any more", () => {
  const fold = new MessageFold();
  for (let seq = 1; seq < 7; seq += 1) {
    fold.take(message(seq));
  }
  fold.take(gap(3, 5));
  expect(seqs(fold)).toEqual([1, 2, 6]);
  fold.take(gap(7, 9, 2));
  expect(seqs(fold)).toEqual([1]);
});

test("what was made beyond a position is dropped", () => {
  const fold = new MessageFold();
  const made = [message(1), message(2), edited(3, 1, "x"), message(4), edited(5, 2, "y")];
  for (const entry of made) {
    fold.take(entry);
  }
  fold.take(edited(6, 99, "z"));
  fold.drop(3);
  expect(seqs(fold)).toEqual([1]);
  expect(fold.take(message(99))).toBe(99);
  expect([...fold].map((held) => held.text)).toEqual(["x", "text 99"]);
});
