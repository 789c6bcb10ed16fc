"""Devices that run the SDK: its client, core and outbox over a simulated transport, with an application on top."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tidings import (
    Client,
    ClientConfig,
    ConnectionStatus,
    ConversationRight,
    Event,
    Gap,
    HistoryOrder,
    Member,
    MemberRole,
    Mention,
    RightOverride,
    TidingsError,
)

from .app import App, AppData, Said
from .call_watch import CallWatch
from .clock import SimClock
from .loop import Process, SimLoop
from .network import DeviceEnd, Network
from .rules import FLAGS, TEXTS
from .state_store import DeviceDisk, SimStateStore
from .stream_watch import StreamWatch
from .violation import Violation
from .watch import Judge

_RIGHTS = (2, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15)
"""Rights that can be given; posting is tried the most."""


_CODES = ("an-invitation-to-all", "another-for-a-few---")


@dataclass(frozen=True, slots=True)
class Habits:
    """How a device and its application behave. Times in seconds.

    `apply_delay` passes before an event is applied. The application says for itself what it has applied unless
    `auto_apply`, and then only every `apply_every` events.
    """

    auto_apply: bool = True
    apply_every: int = 1
    apply_delay: float = 0.0
    window: int = 1024
    catch_up_limit: int = 10_000
    store_delay: float = 0.0


class SdkDevice:
    """One device of one user. Its disk and its application's data outlive its process."""

    def __init__(
        self,
        loop: SimLoop,
        network: Network,
        judge: Judge,
        rng: random.Random,
        clock: SimClock,
        user: str,
        device: str,
        habits: Habits,
        token: Callable[[str, str], str],
    ) -> None:
        self.loop = loop
        self.user = user
        self.device = device
        self.habits = habits
        self.clock = clock
        self.disk = DeviceDisk()
        self.data = AppData()
        self.process: Process | None = None
        self.client: Client | None = None
        self.app: App | None = None
        self.watch: StreamWatch | None = None
        self.connects = 0
        self.calm = False
        self.failing = 0.0
        self.network = network
        self._judge = judge
        self._rng = rng
        self._token = token
        self.calls = CallWatch(judge, user, device)
        self._store: SimStateStore | None = None
        self._starts = 0
        self._edits = 0

    @property
    def name(self) -> str:
        """User and device."""
        return f"{self.user}/{self.device}"

    # The process

    def start(self) -> None:
        """Starts the program."""
        self._starts += 1
        self.process = Process(f"{self.name}-{self._starts}")
        self.loop.spawn(self.process, self._run())

    def crash(self, *, power: bool) -> None:
        """Kills the program; with a loss of power the disk forgets what wasn't durable."""
        if self.process is None:
            return
        self.loop.kill(self.process)
        self.network.device_died(self.process)
        self.process = self.client = self.app = self.watch = None
        if power:
            self.disk.lose_power(self._rng)

    async def close(self) -> None:
        """Ends the program in an orderly way; returns when it has ended, or was killed meanwhile."""
        process, client = self.process, self.client
        if process is None or client is None:
            return
        task = self.loop.spawn(process, client.close())
        while process.alive and not task.done():  # noqa: ASYNC110 - a killed process ends nothing
            await asyncio.sleep(0.05)
        if process.alive:
            task.result()
            self.crash(power=False)

    async def _run(self) -> None:
        habits = self.habits
        store = SimStateStore(
            self.disk,
            self._rng,
            delay=habits.store_delay,
            failing=0.0 if self.calm else self.failing,
        )
        self._store = store
        config = ClientConfig(
            auto_apply=habits.auto_apply,
            window=habits.window,
            catch_up_limit=habits.catch_up_limit,
            connect_timeout=5.0,
            call_timeout=15.0,
            backoff_base=0.2,
            backoff_cap=3.0,
        )
        saved = {cursor.log: cursor.seq for cursor in self.disk.cursors.values()}
        client = Client(
            "simulated",
            token_provider=lambda: self._token(self.user, self.device),
            state=store,
            config=config,
            transport=lambda _target, _config: _Transport(self),
            wall_clock=self.clock.now_ms,
            rng=self._rng,
        )
        try:
            self.app = App(
                self.name,
                self.user,
                self.data,
                saved,
                self.disk.session.incarnation,
                self._judge.truth_of,
                lambda: bool(self._judge.ended),
            )
            async with client:
                self.client = client
                await self._apply_all(client, self.app)
        except Violation as violation:
            self._judge.report(violation)

    async def _apply_all(self, client: Client, app: App) -> None:
        habits = self.habits
        waiting: list[Event] = []
        async for event in client.events():
            # The first one comes without a word.
            app.incarnation = app.incarnation or client._runner.core.session.incarnation
            if habits.apply_delay and not self.calm:
                await asyncio.sleep(self._rng.random() * habits.apply_delay)
            app.take(event)
            if isinstance(event, Gap) and self._rng.random() < 0.5:
                self._spawn(self._fetch(client, event))
            if habits.auto_apply:
                continue
            waiting.append(event)
            if self.calm or len(waiting) >= min(habits.apply_every, habits.window):
                for done in waiting:
                    client.applied(done)
                waiting.clear()

    async def _fetch(self, client: Client, gap: Gap) -> None:
        page_size = self._rng.choice((3, 20, 200))
        async for _ in client.missed(gap, page_size=page_size):
            pass

    async def connect(self, token: str) -> DeviceEnd:
        """Opens a stream for the SDK. Raises ConnectionLost."""
        self.connects += 1
        assert self.process is not None
        watch = StreamWatch(self._judge, self.user, self.device, self.connects)
        end = await self.network.connect(self.process, token, watch)
        self.watch = watch
        return end

    # What the workload makes it do

    @property
    def online(self) -> bool:
        """Whether the client says that it is."""
        client = self.client
        return client is not None and client.connection.status is ConnectionStatus.ONLINE

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self.process is None:
            work.close()
            return
        self.loop.spawn(self.process, self._quietly(work))

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except TidingsError as error:
            self._judge.story("call", f"{self.name}: {error}")

    def say(self, conversation: str, count: int) -> None:
        """Queues messages, one after the other."""
        client = self.client
        if client is not None:
            self._spawn(self._say(client, conversation, count))

    async def _say(self, client: Client, conversation: str, count: int) -> None:
        data = self.data
        for _ in range(count):
            number = len(data.said) + 1
            text = f"{self.name}.{number}"
            said = data.said[text] = Said(conversation, text, number)
            handle = await client.send(
                conversation,
                text,
                reply_to=self._answered(conversation),
                mentions=self._mentioned(conversation, text),
            )
            said.kept = True
            data.by_id[handle.message_id] = said

    def _answered(self, conversation: str) -> str | None:
        """The id of the message that the next one replies to; now and then that of one which isn't there."""
        rng = self._rng
        if rng.random() < 0.75:
            return None
        held = [message.message.message_id for message in self.data.folds.get(conversation, ())]
        if held and rng.random() < 0.95:
            return rng.choice(held)
        everywhere = [message_id for message_id, said in self.data.by_id.items() if not said.failed]
        return rng.choice(everywhere) if everywhere else None

    def _mentioned(self, conversation: str, text: str) -> list[Mention]:
        """Whom a text mentions; now and then somebody who is no member, or everybody."""
        rng = self._rng
        if rng.random() < 0.7:
            return []
        log = self._judge.truth.logs.get(conversation)
        known = sorted(log.stays) if log is not None else []
        places = rng.sample(range(len(text)), min(rng.choice((1, 1, 2)), len(text)))
        whom = [None, *known, self.user, "nobody"]
        return [Mention(at, at + 1, rng.choice(whom)) for at in sorted(places)]

    def call_on(self, what: str, conversation: str, users: list[str]) -> None:
        """Begins a unary operation."""
        client = self.client
        if client is not None:
            self._spawn(self._operate(client, what, conversation, users))

    async def _operate(  # noqa: C901, PLR0912 - one branch for each thing a person does
        self,
        client: Client,
        what: str,
        conversation: str,
        users: list[str],
    ) -> None:
        rng = self._rng
        match what:
            case "create group":
                await client.create_group("a group", users)
            case "create direct":
                await client.create_direct(users[0])
            case "add":
                roles = rng.choices(list(MemberRole), weights=(5, 2, 1, 1, 1, 1), k=len(users))
                members = [Member(u, role) for u, role in zip(users, roles, strict=True)]
                await client.add_members(conversation, members)
            case "remove":
                await client.remove_member(conversation, users[0])
            case "remove and add":
                await client.remove_member(conversation, users[0])
                await asyncio.sleep(rng.choice((0.0, 0.1)))
                await client.add_members(conversation, users)
            case "leave":
                await client.leave(conversation)
            case "settings" | "rights" | "role" | "invite" | "mute" | "ban" | "transfer":
                await self._govern(client, what, conversation, users)
            case "join":
                await client.join(conversation, rng.choice(_CODES))
            case "look":
                await client.get_conversation(conversation)
            case "read":
                head = self.data.positions.get(conversation, 0)
                if head:
                    await client.mark_read(conversation, rng.randint(max(1, head - 5), head + 2))
            case "delivered":
                head = self.data.positions.get(conversation, 0)
                if head:
                    await client.mark_delivered(conversation, rng.randint(1, head + 2))
            case "history":
                order = rng.choice(tuple(HistoryOrder))
                left = rng.randint(1, 60)
                stream = client.history(
                    conversation,
                    rng.choice((None, None, rng.randint(1, 30))),
                    order=order,
                    page_size=rng.choice((1, 7, 100)),
                )
                async with aclosing(stream):  # type: ignore[type-var]
                    async for _ in stream:
                        left -= 1
                        if not left:
                            break
            case "get":
                head = self.data.positions.get(conversation, 0)
                if head:
                    await client.get_message(conversation, seq=rng.randint(1, head))
            case "pins":
                await client.pins(conversation)
            case "change a message":
                await self._change_message(client, conversation)
            case "receipts":
                async for _ in client.receipts(conversation, page_size=rng.choice((1, 100))):
                    pass
            case _:
                async for _ in client.conversations(page_size=rng.choice((1, 3, 100))):
                    pass
                await client.unread()

    async def _govern(self, client: Client, what: str, conversation: str, users: list[str]) -> None:
        """Does what moderators, admins and owners may do."""
        rng = self._rng
        match what:
            case "settings":
                names = rng.sample(TEXTS, rng.choice((0, 1, 2)))
                changes: dict[str, Any] = {
                    name: rng.choice(("", "a", f"{self.name}")) for name in names
                }
                if not names or rng.random() < 0.3:
                    changes[rng.choice(FLAGS)] = rng.random() < 0.4
                await client.update_conversation(conversation, **changes)
            case "invite":
                ends = datetime.fromtimestamp(self.clock.now_ms() / 1000 + 60, UTC)
                uses = rng.choice((0, 1, 1, 3))
                code = rng.choice(_CODES)
                await client.set_invitation(conversation, code, uses, ends if uses else None)
            case "rights":
                roles = rng.sample([r for r in MemberRole if r not in (0, MemberRole.OWNER)], 2)
                rights = [
                    RightOverride(role, ConversationRight(rng.choice(_RIGHTS)), rng.random() < 0.7)
                    for role in roles
                ]
                await client.update_conversation(conversation, rights=rights)
            case "role":
                role = rng.choice([role for role in MemberRole if role])
                whom = rng.choice((users[0], users[0], self.user))
                await client.set_role(conversation, whom, role)
            case "mute" | "ban":
                until = None
                if rng.random() < 0.7:
                    seconds = rng.choice((0.5, 3, 20))
                    until = datetime.fromtimestamp(self.clock.now_ms() / 1000 + seconds, UTC)
                set_it = client.set_mute if what == "mute" else client.set_ban
                await set_it(conversation, users[0], until)
                if what == "ban" and rng.random() < 0.8:
                    await client.add_members(conversation, users)
            case "transfer":
                await client.transfer_ownership(conversation, users[0])

    async def _change_message(self, client: Client, conversation: str) -> None:
        """Does something with a message that is held; now and then with one that may not be there."""
        rng = self._rng
        fold = self.data.folds.get(conversation, ())
        held = [message.message for message in fold]
        own = [message for message in held if message.own] or held
        seqs = [message.seq for message in (own if rng.random() < 0.7 else held)][-6:]
        seq = rng.choice(seqs) if seqs and rng.random() < 0.9 else rng.randint(1, 40)
        if rng.random() < 0.4:
            await client.set_reaction(conversation, seq, rng.choice(("👍", "🎉", "x", "")))
            return
        if rng.random() < 0.3:
            await client.set_pin(conversation, seq, pinned=rng.random() < 0.7)
            return
        if rng.random() < 0.25:
            await client.delete_message(conversation, seq)
            return
        for _ in range(rng.choice((1, 1, 1, 4))):
            self._edits += 1
            text = f"{self.name} edits {self._edits}"
            mentions = self._mentioned(conversation, text)
            await client.edit_message(conversation, seq, text, mentions=mentions)


class _Transport:
    """The SDK's way to the simulated network."""

    def __init__(self, device: SdkDevice) -> None:
        self._device = device

    async def connect(self, token: str) -> DeviceEnd:
        """See `tidings.Transport`."""
        return await self._device.connect(token)

    async def call(self, method: str, request: bytes, token: str, timeout: float) -> bytes:
        """See `tidings.Transport`."""
        return await self._device.network.call(method, request, token, timeout, self._device.calls)

    def renew(self) -> None:
        """See `tidings.Transport`. Here each stream and each call goes to any server."""

    async def close(self) -> None:
        """See `tidings.Transport`."""
