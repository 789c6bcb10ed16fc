"""The verification of a whole replay: histories, devices, memberships and unread counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from .api import Api, Refused
from .device_check import Expected, check_device
from .history_check import HistoryCheck
from .ledger import read_entry
from .player import Player
from .records import Records
from .script import Conversation, Script
from .world import World

_AT_ONCE: Final = 16
_LEVEL_S: Final = 180.0
_SAMPLE: Final = 100

_ItemT = TypeVar("_ItemT")


@dataclass(slots=True)
class Verified:
    """How much was verified, for the report."""

    conversations: int = 0
    history_entries: int = 0
    inboxes: int = 0
    devices: int = 0
    device_logs: int = 0
    device_entries: int = 0
    visitors: int = 0
    members: int = 0
    listed_users: int = 0
    unread_counts: int = 0
    level_after_s: float = 0.0


@dataclass(slots=True)
class Verifier:
    """Verifies what a player has played. Everything wrong goes to the findings of the world.

    `told` is called with what is being verified, how much is done, and how much there is.
    """

    world: World
    api: Api
    script: Script
    player: Player
    told: Callable[[str, int, int], None]
    verified: Verified = field(default_factory=Verified)
    histories: dict[str, HistoryCheck] = field(default_factory=dict)
    _conversations_of: dict[str, list[Conversation]] = field(default_factory=dict)

    async def run(self) -> Verified:
        """Verifies everything. What can't be verified since the server refuses is a finding too."""
        self._conversations_of = self.script.conversations_of()
        await self._wait_until_level()
        await self._each("histories", self.script.conversations, self._history)
        await self._each("rooms as members see them", self.script.rooms, self._room)
        devices: dict[str, list[tuple[Records, bool]]] = {}
        for device in self.player.steady:
            devices.setdefault(device.user, []).append((device.records, True))
        for visitor in self.player.visitors.devices:
            devices.setdefault(visitor.user, []).append((visitor.records, False))
        await self._each("devices", list(devices.items()), self._user_devices)
        rng = self.world.rng
        sample = list({device.user: None for device in self.player.steady})
        silent = [user for user in self._conversations_of if user not in devices]
        sample = rng.sample(sample, min(_SAMPLE, len(sample)))
        sample += rng.sample(silent, min(_SAMPLE, len(silent)))
        await self._each("conversation lists", sample, self._listed)
        await self._each("unread counts", sample, self._unread)
        return self.verified

    async def _each(
        self, what: str, items: Iterable[_ItemT], check: Callable[[_ItemT], Awaitable[None]]
    ) -> None:
        everything = list(items)
        slots = asyncio.Semaphore(_AT_ONCE)
        done = 0

        async def one(item: _ItemT) -> None:
            nonlocal done
            async with slots:
                try:
                    await check(item)
                except Refused as problem:
                    self.world.findings.add("refused", f"{what}: {problem}")
            done += 1
            self.told(what, done, len(everything))

        self.told(what, 0, len(everything))
        async with asyncio.TaskGroup() as group:
            for item in everything:
                group.create_task(one(item))

    # Being level

    async def _wait_until_level(self) -> None:
        """Every connected device reaches the heads by itself once all was sent."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        wanted = {
            user: [(c.id, c.entries) for c in conversations]
            + [(f"inbox:{user}", len(conversations))]
            for user, conversations in self._conversations_of.items()
        }
        waiting = list(self.player.steady)
        total = len(waiting)
        while waiting and loop.time() < began + _LEVEL_S:
            waiting = [d for d in waiting if d.fetching or _behind(d.records, wanted[d.user])]
            self.told("devices reach the heads", total - len(waiting), total)
            if waiting:
                await asyncio.sleep(0.1)
        self.verified.level_after_s = loop.time() - began
        for device in waiting:
            self.world.findings.add(
                "not level",
                f"{device.records.device} lags in {_behind(device.records, wanted[device.user])} logs",
            )

    # Histories

    async def _history(self, conversation: Conversation) -> None:
        check = HistoryCheck(
            conversation,
            self.world.board,
            self.world.findings,
            in_order=self.player.cast.in_order,
        )
        user = conversation.creator
        async for elements in self.api.history(user, conversation.id):
            check.ascending(elements)
        async for elements in self.api.history(user, conversation.id, ascending=False):
            check.descending(elements)
        check.finish()
        got = self.world.ledger.log(conversation.id)
        pairs = zip(got.digests, check.digests, strict=False)
        for seq, (on_stream, in_history) in enumerate(pairs, 1):
            if on_stream and on_stream != in_history:
                self.world.findings.add(
                    "altered", f"{conversation.name} at {seq}: devices got other bytes than history"
                )
        self.histories[conversation.id] = check
        self.verified.conversations += 1
        self.verified.history_entries += 2 * check.head

    async def _room(self, room: Conversation) -> None:
        """A room as the member sees it who came last, and the list of its members."""
        findings = self.world.findings
        user = room.members[-1]
        at = room.join_seq(user)
        check = self.histories[room.id]
        async for elements in self.api.history(user, room.id):
            for element in elements:
                seen, _ = read_entry(element)
                if seen.seq != at:
                    findings.add("members", f"{room.name}: {user} reads {seen.seq} at {at}")
                elif seen.digest != check.digests[at - 1]:
                    findings.add("altered", f"{room.name}: {user} reads something else at {at}")
                at = seen.seq + 1
        if at != check.head + 1:
            findings.add("lost", f"{room.name}: for {user} it ends before {at}")
        listed = {
            member.user_id: member.join_seq for member in await self.api.members(user, room.id)
        }
        wanted = {member: room.join_seq(member) for member in room.members}
        if listed != wanted:
            wrong = sorted(dict(listed.items() ^ wanted.items()))[:5]
            findings.add("members", f"{room.name}: the list is wrong for {', '.join(wrong)}")
        self.verified.members += len(listed)

    # Devices

    async def _user_devices(self, item: tuple[str, list[tuple[Records, bool]]]) -> None:
        user, devices = item
        digests, facts = await self._inbox(user)
        conversations = self._conversations_of[user]
        for by_facts in {records.by_facts for records, _ in devices}:
            expected = {
                f"inbox:{user}": Expected("inbox", 1, _sums(facts if by_facts else digests))
            }
            for c in conversations:
                sums = self.histories[c.id].sums(by_facts=by_facts)
                expected[c.id] = Expected(c.name, c.join_seq(user), sums)
            for records, steady in devices:
                if records.by_facts == by_facts:
                    check_device(records, expected, self.world.findings, steady=steady)
                    self.verified.devices += steady
                    self.verified.visitors += not steady
                    self.verified.device_logs += len(records.logs)
                    self.verified.device_entries += records.applied

    async def _inbox(self, user: str) -> tuple[list[int], list[int]]:
        """The digests of a user's inbox, which tells of each conversation once."""
        findings = self.world.findings
        log = f"inbox:{user}"
        digests: list[int] = []
        facts: list[int] = []
        joined: dict[str, int] = {}
        async for elements in self.api.history(user, log):
            for element in elements:
                seen, entry = read_entry(element)
                body = entry.conversation_joined
                if seen.seq != len(digests) + 1:
                    findings.add("lost", f"{log}: {seen.seq} stands after {len(digests)}")
                if body.conversation_id in joined:
                    findings.add("doubled", f"{log}: {body.conversation_id} was joined twice")
                joined[body.conversation_id] = body.seq
                digests.append(seen.digest)
                facts.append(seen.facts)
        wanted = {c.id: c.join_seq(user) for c in self._conversations_of[user]}
        if joined != wanted:
            findings.add(
                "members", f"{log} tells of {len(joined)} conversations, not {len(wanted)}"
            )
        self.verified.inboxes += 1
        return digests, facts

    # What users ask for

    async def _listed(self, user: str) -> None:
        findings = self.world.findings
        listed = {c.conversation_id: c for c in await self.api.conversations(user)}
        mine = {c.id: c for c in self._conversations_of[user]}
        if listed.keys() != mine.keys():
            findings.add("members", f"{user} is told of {len(listed)} conversations of {len(mine)}")
        for name in listed.keys() & mine.keys():
            told, conversation = listed[name], mine[name]
            is_so = (told.head_seq, told.join_seq, told.member_count)
            should = (conversation.entries, conversation.join_seq(user), len(conversation.members))
            if is_so != should:
                findings.add(
                    "members",
                    f"{user}: {conversation.name} has head, join, members {is_so}, not {should}",
                )
            self._check_unread(user, conversation, told.read_seq, told.unread_count)
        self.verified.listed_users += 1

    async def _unread(self, user: str) -> None:
        mine = {c.id: c for c in self._conversations_of[user]}
        answer = await self.api.unread(user)
        if answer.total != sum(count.unread_count for count in answer.counts):
            self.world.findings.add("unread", f"{user}: the total is {answer.total}")
        counts = {count.conversation_id: count for count in answer.counts}
        for name, conversation in mine.items():
            count = counts.get(name)
            if count is not None:
                self._check_unread(user, conversation, count.read_seq, count.unread_count)
            elif self._unread_after(conversation, user, self._asked(user, name)[1]):
                self.world.findings.add("unread", f"{user}: {conversation.name} is missing")
        conversation = self.world.rng.choice(list(mine.values()))
        await self._read_some(user, conversation)

    async def _read_some(self, user: str, conversation: Conversation) -> None:
        """Reads up to somewhere, and then to an earlier place, which changes nothing."""
        # What lies before their joining nobody reads: a mark there is none.
        joined = max(1, conversation.join_seq(user))
        seq = self.world.rng.randint(joined, conversation.entries)
        asked = self.world.reads.setdefault((user, conversation.id), [0, 0])
        asked[0] = max(asked[0], seq)
        first = await self.api.mark_read(user, conversation.id, seq)
        asked[1] = max(asked[1], first.read_seq, seq)
        self._check_unread(user, conversation, first.read_seq, first.unread_count)
        second = await self.api.mark_read(user, conversation.id, max(joined, seq // 2))
        self._check_unread(user, conversation, second.read_seq, second.unread_count)

    def _asked(self, user: str, conversation: str) -> tuple[int, int]:
        """The largest acknowledged read mark, and the largest that was asked for."""
        asked, acked = self.world.reads.get((user, conversation), (0, 0))
        return acked, asked

    def _unread_after(self, conversation: Conversation, user: str, seq: int) -> int:
        ordinals = self.histories[conversation.id].ordinals
        seq = max(seq, conversation.join_seq(user) - 1)
        return ordinals[-1] - (ordinals[seq - 1] if seq else 0)

    def _check_unread(
        self, user: str, conversation: Conversation, read_seq: int, unread: int
    ) -> None:
        findings = self.world.findings
        least, most = self._asked(user, conversation.id)
        where = f"{user}: {conversation.name}"
        if not least <= read_seq <= most:
            findings.add("unread", f"{where} is read up to {read_seq}, not {least} to {most}")
        right = self._unread_after(conversation, user, read_seq)
        if unread != right:
            findings.add("unread", f"{where} has {unread} unread after {read_seq}, not {right}")
        self.verified.unread_counts += 1


def _behind(records: Records, heads: list[tuple[str, int]]) -> int:
    """In how many logs a device is not at the head."""
    logs = records.logs
    return sum(1 for log, head in heads if log not in logs or logs[log].seq < head)


def _sums(digests: list[int]) -> list[int]:
    sums = [0]
    for digest in digests:
        sums.append(sums[-1] + digest)
    return sums
