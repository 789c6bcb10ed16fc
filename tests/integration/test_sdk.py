"""The Python SDK against a real server, over real connections."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.integration.conftest import Serve, Served
from tests.integration.processes import ServerProcess
from tests.integration.wire import PATIENCE_S, token, until
from tidings import (
    Availability,
    Client,
    ClientConfig,
    Code,
    ConnectionState,
    ConnectionStatus,
    ConversationCreated,
    ConversationKind,
    ConversationLeft,
    Event,
    Gap,
    HistoryOrder,
    IncarnationChanged,
    InvalidArgument,
    LogEntry,
    Member,
    MemberRemoved,
    MemberRole,
    MembersAdded,
    Message,
    MessageDeleted,
    MessageEdited,
    MessageFailed,
    MessageFold,
    MessagePinned,
    NotFound,
    PermissionDenied,
    ReactionSet,
    TidingsError,
    Unauthenticated,
)
from tidings._core import SessionCore
from tidings.v1 import event_pb2, message_service_pb2
from tidings_server import maintenance

_EventT = TypeVar("_EventT", bound=Event)
ROOT = Path(__file__).parents[2]
QUICK = ClientConfig(backoff_base=0.05, backoff_cap=0.5)


def client(address: str, user: str, device: str = "phone", **options: Any) -> Client:
    options.setdefault("token_provider", lambda: token(user, device))
    options.setdefault("config", QUICK)
    return Client(address, **options)


class Watching:
    """A client whose events are taken as they come, and checked: each log ascends by one."""

    def __init__(self, sdk: Client) -> None:
        self.sdk = sdk
        self.events: list[Event] = []
        self.positions: dict[str, int] = defaultdict(int)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watching:
        await self.sdk.__aenter__()
        self._task = asyncio.create_task(self._take())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        await self.sdk.close()
        await self._task

    async def _take(self) -> None:
        async for event in self.sdk.events():
            self.events.append(event)
            if isinstance(event, LogEntry):
                assert event.seq > self.positions[event.log], event
                self.positions[event.log] = event.seq
            elif isinstance(event, Gap):
                self.positions[event.conversation_id] = event.to_seq

    def of(self, kind: type[_EventT]) -> list[_EventT]:
        return [event for event in self.events if isinstance(event, kind)]

    def texts(self, conversation_id: str) -> list[str]:
        return [e.text for e in self.of(Message) if e.conversation_id == conversation_id]

    async def until(self, condition: Callable[[], Any]) -> None:
        def there() -> bool:
            assert self._task is not None
            if self._task.done():
                self._task.result()
            return bool(condition())

        await until(there)


async def more(device: Watching, conversation_id: str, count: int) -> None:
    await device.until(lambda: len(device.texts(conversation_id)) >= count)


async def latest(device: Watching, conversation_id: str, text: str) -> None:
    await device.until(lambda: device.texts(conversation_id)[-1:] == [text])


async def settled(device: Watching) -> None:
    await device.until(lambda: not device.sdk.pending())


# The quickstart


def quickstart(readme: Path) -> str:
    (block,) = re.findall(r"```python\n(import asyncio\n.*?)```", readme.read_text(), re.DOTALL)
    return str(block)


async def test_the_quickstart_runs_as_written(server: Served, tmp_path: Path) -> None:
    code = quickstart(ROOT / "README.md")
    assert quickstart(ROOT / "clients/python/README.md") == code
    script = tmp_path / "quickstart.py"
    script.write_text(code.replace("localhost:50051", server.address))
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-u",
        str(script),
        env={**os.environ, "TIDINGS_TOKEN": token("alice")},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with Watching(client(server.address, "bob")) as bob:
            await bob.until(lambda: bob.of(Message))
            (message,) = bob.of(Message)
            assert (message.user_id, message.text) == ("alice", "Hello, Bob!")
            await bob.sdk.send(message.conversation_id, "Hello, Alice!")
            assert program.stdout is not None
            async with asyncio.timeout(PATIENCE_S):
                assert await program.stdout.readline() == b"alice: Hello, Bob!\n"
                assert await program.stdout.readline() == b"bob: Hello, Alice!\n"
    finally:
        program.kill()
        await program.wait()


# Everything once, in order


async def test_kills_of_the_server_neither_lose_nor_repeat_anything(
    process: ServerProcess,
) -> None:
    await process.start()
    port = process.port
    process.settings["GRPC__LISTEN"] = f"127.0.0.1:{port}"
    users = ("alice", "bob", "carol")
    async with (
        Watching(client(process.address, "alice")) as alice,
        Watching(client(process.address, "bob")) as bob,
        Watching(client(process.address, "carol")) as carol,
    ):
        devices = dict(zip(users, (alice, bob, carol), strict=True))
        group = (await alice.sdk.create_group("all", ["bob", "carol"])).conversation_id

        async def talk(user: str) -> None:
            for n in range(150):
                await devices[user].sdk.send(group, f"{user} {n}")
                if n % 10 == 0:
                    await asyncio.sleep(0.01)

        talking = [asyncio.create_task(talk(user)) for user in users]
        await alice.until(lambda: len(alice.texts(group)) > 50)
        for ending in (signal.SIGKILL, signal.SIGTERM):
            process.signal(ending)
            await process.ended()
            await process.start()
            await more(alice, group, min(len(alice.texts(group)) + 20, 450))
        await asyncio.gather(*talking)
        for device in devices.values():
            await more(device, group, 450)
            await settled(device)
            assert not device.of(MessageFailed)
            entries = [e for e in device.events if isinstance(e, LogEntry) and e.log == group]
            assert [entry.seq for entry in entries] == list(range(1, 452))
            for user in users:
                said = [e.text for e in entries if isinstance(e, Message) and e.user_id == user]
                assert said == [f"{user} {n}" for n in range(150)]
        assert alice.texts(group) == bob.texts(group) == carol.texts(group)
        history = [
            entry.text
            async for entry in alice.sdk.history(group, order=HistoryOrder.ASCENDING)
            if isinstance(entry, Message)
        ]
        assert history == alice.texts(group)


async def test_a_device_that_restarts_goes_on_where_it_was(server: Served, tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite3"
    async with Watching(client(server.address, "bob")) as bob:
        direct = (await bob.sdk.create_direct("alice")).conversation_id
        texts: list[str] = []
        for round_number in range(4):
            for n in range(25):
                await bob.sdk.send(direct, f"{round_number} {n}")
            async with Watching(client(server.address, "alice", state=state)) as alice:
                # The last one of before was handed over and perhaps not applied.
                await latest(alice, direct, f"{round_number} 24")
                again = alice.texts(direct)
                assert len(again) - 25 in (0, 1)
                texts = texts[: len(texts) - (len(again) - 25)] + again
                await alice.sdk.send(direct, f"alice {round_number}")
                await settled(alice)
                await latest(alice, direct, f"alice {round_number}")
                texts.append(alice.texts(direct)[-1])
        expected = [[f"{k} {n}" for n in range(25)] + [f"alice {k}"] for k in range(4)]
        assert texts == [text for part in expected for text in part]


async def test_what_was_written_without_a_server_goes_out_later(
    process: ServerProcess, tmp_path: Path
) -> None:
    await process.start()
    process.settings["GRPC__LISTEN"] = process.address
    state = tmp_path / "state.sqlite3"
    async with Watching(client(process.address, "alice", state=state)) as alice:
        direct = (await alice.sdk.create_direct("bob")).conversation_id
        await alice.sdk.wait_online()
    await process.kill()
    async with Watching(client(process.address, "alice", state=state)) as alice:
        for n in range(20):
            await alice.sdk.send(direct, f"offline {n}")
        assert len(alice.sdk.pending()) == 20
    await process.start()
    async with (
        Watching(client(process.address, "alice", state=state)) as alice,
        Watching(client(process.address, "bob")) as bob,
    ):
        await bob.until(lambda: len(bob.texts(direct)) == 20)
        assert bob.texts(direct) == [f"offline {n}" for n in range(20)]
        await alice.until(lambda: len(alice.texts(direct)) == 20)


# Memberships, gaps, beacons


async def test_beacons_agree_through_joining_leaving_and_catching_up(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: Counter[str] = Counter()
    on_beacon = SessionCore._on_beacon

    def counting(core: SessionCore, event: event_pb2.Event, now: float) -> Any:
        compared[core.session.device_id] += event.beacon.level and core.synced
        return on_beacon(core, event, now)

    monkeypatch.setattr(SessionCore, "_on_beacon", counting)
    server = await serve(limits={"beacon_interval_ms": 200, "new_device_messages": 5})
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        group = (await alice.sdk.create_group("group", ["carol"])).conversation_id
        await alice.sdk.create_direct("bob")
        for n in range(30):
            await (await alice.sdk.send(group, f"{n}")).sent()
        await alice.sdk.add_members(group, ["bob", Member("dave", MemberRole.OWNER)])
        await alice.sdk.send(group, "bob is here")
        await bob.until(lambda: bob.texts(group) == ["bob is here"])
        await alice.sdk.remove_member(group, "bob")
        await bob.until(lambda: bob.of(ConversationLeft))
        await (await alice.sdk.send(group, "bob is not here")).sent()
        await alice.sdk.add_members(group, ["bob"])
        await alice.sdk.send(group, "bob is back")
        await bob.until(lambda: bob.texts(group) == ["bob is here", "bob is back"])
        assert [event.removed_user_id for event in bob.of(MemberRemoved)] == ["bob"]
        joins = [event.members[0].join_seq for event in bob.of(MembersAdded)]
        assert joins == [event.seq for event in bob.of(MembersAdded)]
        async with Watching(client(server.address, "alice", "laptop")) as laptop:
            await laptop.until(lambda: laptop.texts(group)[-1:] == ["bob is back"])
            gaps = [gap for gap in laptop.of(Gap) if gap.conversation_id == group]
            assert len(gaps) == 1
            missed = [entry async for entry in laptop.sdk.missed(gaps[0])]
            assert [entry.seq for entry in missed] == list(range(1, gaps[0].to_seq + 1))
            assert isinstance(missed[0], ConversationCreated)
            compared.clear()
            await until(lambda: all(compared[name] >= 3 for name in ("phone", "laptop")))
        for device in (alice, bob, laptop):
            # Silence, where the machine is slow, is no difference.
            faults = [str(state.error) for state in device.of(ConnectionState) if state.error]
            assert not [fault for fault in faults if "nothing came" not in fault]


async def test_a_restored_store_is_noticed_and_followed(
    process: ServerProcess, tmp_path: Path
) -> None:
    await process.start()
    process.settings["GRPC__LISTEN"] = process.address
    state = tmp_path / "state.sqlite3"
    store, copy = process.folder / "tidings.db", tmp_path / "copy.db"
    async with (
        Watching(client(process.address, "alice", state=state)) as alice,
        Watching(client(process.address, "bob")) as bob,
    ):
        direct = (await alice.sdk.create_direct("bob")).conversation_id
        for n in range(5):
            await (await bob.sdk.send(direct, f"kept {n}")).sent()
        await asyncio.to_thread(maintenance.backup, store, copy, lambda _a, _b: None)
        for n in range(5):
            await (await bob.sdk.send(direct, f"lost {n}")).sent()
        await alice.until(lambda: len(alice.texts(direct)) == 10)
        await process.kill()
        for path in process.folder.glob("tidings.db*"):
            path.unlink()
        await asyncio.to_thread(maintenance.restore, copy, store, lambda _a, _b: None)
        alice.positions.clear()
        bob.positions.clear()
        await process.start()
        await alice.until(lambda: alice.of(IncarnationChanged))
        (changed,) = alice.of(IncarnationChanged)
        assert changed.positions[direct] == 6
        await bob.until(lambda: bob.of(IncarnationChanged))
        await (await bob.sdk.send(direct, "new")).sent()
        await alice.until(lambda: alice.texts(direct)[-1:] == ["new"])
        assert alice.of(Message)[-1].seq == 7


# Unary operations


async def test_every_operation(server: Served) -> None:
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        sdk = alice.sdk
        direct = await sdk.create_direct("bob")
        assert (direct.kind, direct.peer_user_id) == (ConversationKind.DIRECT, "bob")
        assert await sdk.create_direct("bob") == direct
        group = await sdk.create_group("Plans", ["bob", "carol"])
        assert (group.kind, group.title, group.member_count) == (ConversationKind.GROUP, "Plans", 3)
        assert group.role is MemberRole.OWNER
        log = group.conversation_id
        assert {one.conversation_id async for one in sdk.conversations(page_size=1)} == {
            direct.conversation_id,
            log,
        }
        assert [one.user_id async for one in sdk.members(log, page_size=2)] == [
            "alice",
            "bob",
            "carol",
        ]
        sent = await sdk.send(log, "first")
        assert await sent.sent() == 2
        reply = await sdk.send(log, "second", reply_to=sent.message_id)
        assert await reply.sent() == 3
        message = await sdk.get_message(log, message_id=reply.message_id)
        assert isinstance(message, Message)
        assert (message.text, message.reply_to, message.own) == ("second", sent.message_id, True)
        assert (await sdk.get_message(log, seq=2)).entry_id == sent.message_id
        assert await sdk.add_members(log, ["dave"]) == 4
        assert await sdk.add_members(log, ["dave"]) == 0
        assert await sdk.remove_member(log, "dave") == 5
        assert await bob.sdk.leave(log) == 6
        assert [entry.seq async for entry in sdk.history(log, page_size=2)] == [6, 5, 4, 3, 2, 1]
        up = sdk.history(log, 2, order=HistoryOrder.ASCENDING, until=4, page_size=2)
        assert [entry.seq async for entry in up] == [2, 3, 4]

        # bob has left, and keeps what he could read.
        left = await bob.sdk.get_conversation(log)
        assert (left.role, left.head_seq) == (MemberRole.UNSPECIFIED, 6)
        hello = await bob.sdk.send(direct.conversation_id, "hello")
        assert await hello.sent() == 2
        await alice.until(lambda: alice.texts(direct.conversation_id))
        assert (await sdk.unread([direct.conversation_id])).total == 1
        unread = await sdk.unread()
        assert unread.counts[direct.conversation_id].unread_count == 1
        after = await sdk.mark_read(direct.conversation_id, 2)
        assert (after.read_seq, after.unread_count) == (2, 0)
        assert await sdk.mark_delivered(direct.conversation_id, 2) == 2
        receipts = {one.user_id: one async for one in bob.sdk.receipts(direct.conversation_id)}
        assert (receipts["alice"].read_seq, receipts["alice"].delivered_seq) == (2, 2)

        status = await bob.sdk.set_status(Availability.AWAY, "lunch")
        assert (status.availability, status.status_text) == (Availability.AWAY, "lunch")
        presence = await sdk.presence(["bob", "a stranger"[2:]])
        assert presence["bob"].online
        assert presence["bob"].status_text == "lunch"
        assert "stranger" not in presence

        request = message_service_pb2.GetMessageRequest(conversation_id=log, seq=2)
        raw = await sdk.raw.messages.GetMessage(request)
        assert raw.entry.message.text == "first"


async def test_refusals_say_what_is_wrong(server: Served) -> None:
    async with Watching(client(server.address, "alice")) as alice:
        sdk = alice.sdk
        with pytest.raises(NotFound) as absent:
            await sdk.get_conversation("00000000-0000-8000-8000-000000000000")
        assert absent.value.reason == "CONVERSATION_NOT_FOUND"
        with pytest.raises(InvalidArgument) as wrong:
            await sdk.create_direct("no white space")
        assert (wrong.value.reason, wrong.value.field) == ("INVALID_FIELD", "user_ids[0]")
        group = (await sdk.create_group("group", ["bob"])).conversation_id
        async with client(server.address, "bob") as bob:
            with pytest.raises(PermissionDenied) as denied:
                await bob.add_members(group, ["carol"])
            assert denied.value.reason == "RIGHT_MISSING"
        handle = await sdk.send("00000000-0000-8000-8000-000000000000", "to nobody")
        with pytest.raises(NotFound):
            await handle.sent()
        await alice.until(lambda: alice.of(MessageFailed))
        (failed,) = alice.of(MessageFailed)
        assert (failed.text, failed.error.reason) == ("to nobody", "CONVERSATION_NOT_FOUND")


# Tokens and sessions


async def test_tokens_are_renewed_in_the_stream(serve: Serve) -> None:
    # The warning comes as soon as less than a minute is left: the first token is short, the next ones aren't.
    server = await serve(auth={"token_warning_s": 60}, limits={"beacon_interval_ms": 100})
    given: list[str] = []

    def provide() -> str:
        given.append(token("alice", ttl_s=30 if not given else 3600))
        return given[-1]

    async with Watching(client(server.address, "alice", token_provider=provide)) as alice:
        await alice.sdk.wait_online()
        await until(lambda: len(given) == 2)
        assert server.node.counters.sessions_opened == 1
        assert alice.sdk.connection.status is ConnectionStatus.ONLINE


async def test_a_token_that_is_not_believed_ends_the_client(server: Served) -> None:
    foreign = token("alice", issuer="somebody else")
    async with client(server.address, "alice", token_provider=lambda: foreign) as alice:
        with pytest.raises(Unauthenticated) as refused:
            await alice.wait_online()
        assert refused.value.reason == "TOKEN_INVALID"
        with pytest.raises(Unauthenticated):
            async for _ in alice.events():
                pass


async def test_an_expired_token_is_replaced(server: Served) -> None:
    tokens = iter([token("alice", ttl_s=-60), token("alice")])
    async with client(server.address, "alice", token_provider=lambda: next(tokens)) as alice:
        await alice.wait_online()
        assert alice.user_id == "alice"


async def test_a_newer_session_of_the_device_ends_the_older(server: Served) -> None:
    async with client(server.address, "alice") as older:
        await older.wait_online()
        async with client(server.address, "alice") as newer:
            await newer.wait_online()
            with pytest.raises(TidingsError) as ended:
                async for _ in older.events():
                    pass
            assert (ended.value.code, ended.value.reason) == (Code.ABORTED, "SESSION_REPLACED")
            await newer.wait_online()


# What becomes of messages


async def test_edits(serve: Serve) -> None:
    server = await serve()
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        group = (await alice.sdk.create_group("Plan", ["bob"])).conversation_id
        seq = await (await alice.sdk.send(group, "helo")).sent()
        await more(bob, group, 1)
        first = await alice.sdk.edit_message(group, seq, "hello")
        second = await alice.sdk.edit_message(group, seq, "hello!")
        await bob.until(lambda: len(bob.of(MessageEdited)) == 2)
        with pytest.raises(PermissionDenied) as caught:
            await bob.sdk.edit_message(group, seq, "mine now")
        assert caught.value.reason == "RIGHT_MISSING"
        for device in (alice, bob):
            fold = MessageFold()
            for event in device.events:
                fold.take(event)
            fetched = await device.sdk.get_message(group, seq=seq)
            assert isinstance(fetched, Message)
            fresh = MessageFold()
            fresh.take(fetched)
            assert list(fresh) == list(fold)
            (held,) = fold
            assert (held.text, held.state.edit_seqs) == ("hello!", (first, second))
            listed = [e async for e in device.sdk.history(group) if isinstance(e, Message)]
            assert listed == [fetched]
            edits = await device.sdk.edits(group, seq)
            assert [e.text for e in edits] == ["hello", "hello!"]


async def test_deletions(serve: Serve) -> None:
    server = await serve()
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        group = (await alice.sdk.create_group("Plan", ["bob"])).conversation_id
        seq = await (await bob.sdk.send(group, "secret one")).sent()
        await bob.sdk.edit_message(group, seq, "secret two")
        end = await alice.sdk.delete_message(group, seq)
        await bob.until(lambda: bob.of(MessageDeleted))
        assert await bob.sdk.delete_message(group, seq) == 0
        fold = MessageFold()
        for event in bob.events:
            fold.take(event)
        (held,) = fold
        assert (held.deleted, held.text, held.state.as_of) == (True, "", end)
        fetched = MessageFold()
        async for entry in bob.sdk.history(group):
            assert "secret" not in repr(entry)
            fetched.take(entry)
        assert list(fetched) == [held]
    async with Watching(client(server.address, "alice", "new")) as new:
        await new.until(lambda: new.of(MessageDeleted))
        assert "secret" not in repr(new.events)


async def test_reactions(serve: Serve) -> None:
    server = await serve()
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        group = (await alice.sdk.create_group("Plan", ["bob"])).conversation_id
        seq = await (await alice.sdk.send(group, "who comes?")).sent()
        await alice.sdk.set_reaction(group, seq, "👍")
        await bob.sdk.set_reaction(group, seq, "🎉")
        assert await bob.sdk.set_reaction(group, seq, "🎉") == 0
        await bob.sdk.set_reaction(group, seq, "👍")
        await alice.sdk.set_reaction(group, seq, "")
        await bob.until(lambda: len(bob.of(ReactionSet)) == 4)
        fold, fetched = MessageFold(), MessageFold()
        for event in bob.events:
            fold.take(event)
        async for entry in bob.sdk.history(group):
            fetched.take(entry)
        (held,) = fold
        assert (held.state.reactions, held.state.own_reaction) == ((("👍", 1),), "👍")
        assert list(fetched) == [held]
        assert [one async for one in bob.sdk.reactions(group, seq)] == [("bob", "👍")]


async def test_pins(serve: Serve) -> None:
    server = await serve()
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        group = (await alice.sdk.create_group("Plan", ["bob"])).conversation_id
        first = await (await alice.sdk.send(group, "when")).sent()
        second = await (await alice.sdk.send(group, "where")).sent()
        await bob.sdk.set_pin(group, first)
        pin = await alice.sdk.set_pin(group, second)
        assert await bob.sdk.set_pin(group, second) == 0
        await alice.sdk.edit_message(group, second, "there")
        await bob.sdk.set_pin(group, first, pinned=False)
        await bob.until(lambda: len(bob.of(MessagePinned)) == 3)
        fold, fetched = MessageFold(), MessageFold()
        for event in bob.events:
            fold.take(event)
        for message in await bob.sdk.pins(group):
            fetched.take(message)
        (listed,) = fetched
        assert listed == fold.get(second)
        assert (listed.pinned, listed.state.pin_seq, listed.text) == (True, pin, "there")
        await alice.sdk.delete_message(group, second)
        assert await bob.sdk.pins(group) == []
