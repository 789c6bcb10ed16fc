"""When all is quiet: every device becomes level, without reconnecting, and what it knows is what is fetched fresh."""

from __future__ import annotations

import asyncio

from tidings import Client, MemberRole, MessageFold, TidingsError
from tidings._ids import id_time_ms
from tidings.v1 import chat_service_pb2, message_pb2

from .became import erased, unread_mentions, without_content
from .rules import FLAGS, TEXTS, settings_at
from .sdk_device import SdkDevice
from .truth import OPEN
from .violation import Violation
from .world import World

_HEAL_S = 240.0
"""Within this time a device notices a dead connection, connects and is brought level."""


class Quiet:
    """The checks of a world in which nothing goes wrong any more. They raise Violation."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def level(self) -> None:
        """Waits until every device is level: I5. Those that stay behind are a violation."""
        world = self._world
        beat = world.config.limits.beacon_interval_ms / 1000
        # What is dead and doesn't know it yet shows within this time.
        await asyncio.sleep(2.5 * beat + 10)
        patience = _HEAL_S + self._ahead()
        deadline = world.loop.time() + patience
        while behind := self._behind():
            if world.loop.time() > deadline:
                raise Violation("I5", f"after {patience:g} quiet seconds: {'; '.join(behind)}")
            await asyncio.sleep(0.25)

    def _ahead(self) -> float:
        """How many seconds unsent messages may have to wait until a server's clock reaches the time of their ids."""
        now_ms = min(server.clock.now_ms() for server in self._world.servers)
        clients = [device.client for device in self._world.sdk if device.client is not None]
        ids = [pending.message_id for client in clients for pending in client.pending()]
        return max((0, *(id_time_ms(message_id) - now_ms for message_id in ids))) / 1000

    async def stays_level(self) -> None:
        """Everybody says something: all are level within two beats, and nobody connects again: I13."""
        world = self._world
        beat = world.config.limits.beacon_interval_ms / 1000
        connects = {device.name: device.connects for device in world.devices}
        for device in world.sdk:
            for name in world.truth.conversations_of(device.user)[:3]:
                if world.truth.log(name).is_member(device.user):
                    device.say(name, 1)
        # The slowest: a delay each way and the store's for a handful of calls.
        patience = 2 * beat + 10 * world.config.delay + 40 * world.config.store_delay
        await asyncio.sleep(patience)
        behind = self._behind()
        if behind:
            raise Violation("I13", f"{patience:g} s after the last message: {'; '.join(behind)}")
        again = [d.name for d in world.devices if d.connects != connects[d.name]]
        if again:
            raise Violation("I13", f"connected again though nothing was wrong: {again}")

    def _behind(self) -> list[str]:
        """What is missing where."""
        world, truth = self._world, self._world.truth
        found = []
        for device in world.devices:
            watch = device.watch
            if watch is None or not watch.synced:
                found.append(f"{device.name} is not connected")
                continue
            if watch.unanswered:
                found.append(f"{device.name} has no result of {watch.unanswered}")
            if isinstance(device, SdkDevice) and not device.online:
                found.append(f"{device.name} is not online")
            for name in truth.names_visible_to(device.user):
                end = truth.log(name).visible_end(device.user)
                have = watch.positions.get(name, 0)
                if isinstance(device, SdkDevice):
                    have = min(have, device.data.positions.get(name, 0))
                if have < end:
                    found.append(f"{device.name} has {name}:{have} of {end}")
            if isinstance(device, SdkDevice) and device.client is not None:
                waiting = device.client.pending()
                if waiting:
                    found.append(f"{device.name} has {len(waiting)} unsent messages")
        return found

    # I12

    async def fresh(self) -> None:
        """What is fetched by each user is what the log says, and what the devices have: I12."""
        for device in self._world.sdk:
            task = self._world.loop.spawn(device.process, self._fetch(device))
            await asyncio.wait([task])
            try:
                task.result()
            except TidingsError as error:
                raise Violation("I12", f"{device.name} can't fetch: {error}") from error

    async def _fetch(self, device: SdkDevice) -> None:
        truth, user, client = self._world.truth, device.user, device.client
        assert client is not None
        fetched = {c.conversation_id: c async for c in client.conversations(page_size=2)}
        mine = {n for n in truth.conversations_of(user) if truth.log(n).is_member(user)}
        if set(fetched) != mine:
            raise Violation("I12", f"{user} lists {sorted(fetched)}, is in {sorted(mine)}")
        unread = await client.unread()
        for name, conversation in fetched.items():
            log = truth.log(name)
            stay = log.stays[user][-1]
            receipts = {r.user_id: r async for r in client.receipts(name, page_size=2)}
            read = receipts[user].read_seq if user in receipts else 0
            messages = sum(e.WhichOneof("body") == "message" for e in log.entries[:read])
            expected = (
                log.head,
                len(log.members()),
                stay.seen_from or stay.first,
                MemberRole(log.roles[user]),
                *(settings_at(log, log.head)[name] for name in (*TEXTS, *FLAGS)),
                {tuple(right) for right in log.settings["rights"]},
                read,
                min(unread_mentions(log, user, max(read, stay.first - 1)), 100),
                log.ordinal - max(stay.before, messages),
            )
            got = (
                conversation.head_seq,
                conversation.member_count,
                conversation.join_seq,
                conversation.role,
                *(getattr(conversation, name) for name in (*TEXTS, *FLAGS)),
                {(one.role, one.right, one.allowed) for one in conversation.rights},
                conversation.read_seq,
                conversation.unread_mention_count,
                conversation.unread_count,
            )
            if got != expected:
                raise Violation("I12", f"{user} fetches {name} as {got}, the log says {expected}")
            counted = unread.counts.get(name)
            if (counted.unread_count if counted else 0) != expected[-1]:
                raise Violation("I12", f"{user} has {counted} unread of {expected[-1]} in {name}")
            mentions = counted.unread_mention_count if counted else 0
            if mentions != expected[-2]:
                raise Violation("I12", f"{user} has {mentions} unread mentions in {name}")
            members = {m.user_id: m.role async for m in client.members(name, page_size=2)}
            if list(members) != log.members() or members != log.roles:
                raise Violation("I12", f"{name} has {members}, the log says {log.roles}")
            if device.data.positions.get(name, 0) != conversation.head_seq:
                raise Violation("I12", f"{device.name} has another head of {name}")
            await self._messages(device, client, name)

    async def _messages(self, device: SdkDevice, client: Client, name: str) -> None:
        """What a device made of the messages that it holds is what they are when they are fetched."""
        fetched = MessageFold()
        async for entry in client.history(name, page_size=7):
            fetched.take(entry)
        for held in device.data.folds.get(name, ()):
            now = fetched.get(held.message.seq)
            # What was erased stays so on devices that got it like that, although a restore brought the content back.
            if held.message.erased and self._world.judge.ended:
                continue
            if now != held:
                raise Violation("I12", f"{device.name} holds {name}: {held}, fetched is {now}")

    # At the end

    def final(self) -> None:
        """The invariants of what is stored: I1, the inboxes, the order and the number of what was said."""
        world, truth = self._world, self._world.truth
        world.judge.ledger.check(truth)
        self._inboxes()
        self._erasures()
        texts: dict[str, tuple[str, int]] = {}
        # What a restore took back, a device whose disk forgot the answer may send again, behind what came later.
        lost = {s.text for device in world.sdk for s in device.data.said.values() if s.lost}
        for name, log in truth.logs.items():
            last: dict[str, int] = {}
            for entry in log.entries:
                text = entry.message.text
                device, _, number = text.rpartition(".")
                if not device:
                    continue
                if text in texts:
                    raise Violation("I2", f"{text} is at {texts[text]} and at {(name, entry.seq)}")
                texts[text] = (name, entry.seq)
                if text in lost:
                    continue
                if last.get(device, 0) > int(number):
                    raise Violation(
                        "order", f"{name}:{entry.seq}: {text} comes after {device}.{last[device]}"
                    )
                last[device] = int(number)
        for device in world.sdk:  # type: ignore[assignment]
            self._holds(device)  # type: ignore[arg-type]
            for said in device.data.said.values():  # type: ignore[attr-defined]
                there = said.text in texts
                if said.kept and not there and not said.failed and not said.lost:
                    raise Violation("I1", f"{said.text} was taken by the SDK, and is nowhere")

    def _erasures(self) -> None:
        """What was deleted is nowhere any more."""
        disk, truth = self._world.disk, self._world.truth
        for name, log in truth.logs.items():
            gone = erased(log, log.head)
            for page in disk.read(name, 0, 1 << 40, None) if gone else ():
                for event in chat_service_pb2.ChatResponse.FromString(page.body).events:
                    seq = event.entry.seq
                    if seq in gone and event.entry != without_content(log.entries[seq - 1]):
                        raise Violation("erasure", f"{name}:{seq} was erased, and is stored")
            for row in disk.overlays(name, 1, log.head) if gone else ():
                state = message_pb2.MessageState.FromString(row.body)
                if row.seq in gone and state.HasField("content"):
                    raise Violation("erasure", f"{name}:{row.seq} was erased, its overlay is not")

    def _holds(self, device: SdkDevice) -> None:
        """What a device holds is what the log has at these positions, also after a restore."""
        for name, applied in device.data.applied.items():
            log = self._world.truth.log(name)
            for seq, entry_id in applied.items():
                if seq > log.head or log.entries[seq - 1].id != entry_id:
                    raise Violation("I4", f"{device.name} holds another entry at {name}:{seq}")

    def _inboxes(self) -> None:
        """Each change of a membership is noted once in the inbox of whom it concerns."""
        truth = self._world.truth
        expected: dict[str, list[tuple[str, str, int]]] = {}
        for name, log in truth.logs.items():
            for user, stays in log.stays.items():
                notes = expected.setdefault(f"inbox:{user}", [])
                for stay in stays:
                    notes.append((name, "joined", stay.first))
                    if stay.last != OPEN:
                        notes.append((name, "left", stay.last))
        for inbox, notes in expected.items():
            found = []
            for entry in truth.log(inbox).entries:
                joined, left = entry.conversation_joined, entry.conversation_left
                if entry.WhichOneof("body") == "conversation_joined":
                    found.append((joined.conversation_id, "joined", joined.seq))
                else:
                    found.append((left.conversation_id, "left", left.seq))
            if sorted(found) != sorted(notes):
                raise Violation("inbox", f"{inbox} holds {found}, due is {notes}")
