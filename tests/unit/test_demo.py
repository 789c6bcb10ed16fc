"""The demo: people and messages that are there once, however often the server starts."""

from __future__ import annotations

import asyncio
import io
import random
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.tokens import SECRET, FixedClock
from tidings.v1.chat_service_pb2 import ChatResponse
from tidings.v1.message_pb2 import MessageContent
from tidings_server.auth import TokenPolicy, TokenVerifier
from tidings_server.bus.local import LocalBus
from tidings_server.config import Settings
from tidings_server.core.commands import (
    Command,
    ConversationsListed,
    HistoryListed,
    ListConversations,
    ListHistory,
    Result,
    SendMessage,
)
from tidings_server.core.ids import uuid7, uuid7_time
from tidings_server.core.principal import Principal
from tidings_server.demo import Demo, SecretUnusable, dev_secret_path, with_dev_secret
from tidings_server.demo.sample import load_sample
from tidings_server.node import Node
from tidings_server.storage.memory import MemoryDisk, MemoryStore

CLOCK = FixedClock()
ALICE = Principal("alice", "phone", CLOCK.ms + 3_600_000)


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    rng = random.Random(1)
    store = MemoryStore(MemoryDisk(), new_id=lambda: uuid7(CLOCK.ms, rng))
    await store.open()
    verifier = TokenVerifier(TokenPolicy(hs256_secret=SECRET), CLOCK)
    made = Node(store, LocalBus(), CLOCK, rng, verifier.verify)
    await made.start()
    yield made
    await made.stop()
    await store.close()


def demo() -> Demo:
    return Demo(TokenPolicy(hs256_secret=SECRET), CLOCK, io.StringIO())


async def history(node: Node, conversation: str) -> list[tuple[int, str, str, str]]:
    """Position, sender, text and reply of each message, oldest first."""
    found: list[tuple[int, str, str, str]] = []
    page_token = ""
    while True:
        listed = await node.handlers.execute(
            ALICE, ListHistory(conversation, 0, True, 100, page_token)
        )
        assert isinstance(listed, HistoryListed)
        for event in ChatResponse.FromString(listed.events).events:
            entry = event.entry
            if entry.HasField("message"):
                content = entry.message
                found.append((entry.seq, entry.user_id, content.text, content.reply_to_message_id))
        page_token = listed.next_page_token
        if not page_token:
            return found


async def conversations(node: Node) -> dict[str, str]:
    """Alice's conversations: title or peer to id."""
    listed = await node.handlers.execute(ALICE, ListConversations(200, ""))
    assert isinstance(listed, ConversationsListed)
    return {v.title or v.peer_user_id: v.conversation_id for v in listed.views}


async def test_people_find_real_conversations_in_order(node: Node) -> None:
    sent = await demo().seed(node.handlers.execute)
    sample = load_sample()
    assert sent == sum(len(part.messages) for part in sample) > 300
    found = await conversations(node)
    assert {"bob", "carol", "Small joys", "#rust"} <= found.keys()
    for part in sample:
        if "alice" not in {part.creator, *part.create.user_ids}:
            continue
        name = part.create.title or next(
            u for u in (part.creator, *part.create.user_ids) if u != "alice"
        )
        contents = [MessageContent.FromString(content) for _, _, content in part.messages]
        assert await history(node, found[name]) == [
            (i + 2, sender, content.text, content.reply_to_message_id)
            for i, ((sender, _, _), content) in enumerate(zip(part.messages, contents, strict=True))
        ]


async def test_a_restart_adds_nothing(node: Node) -> None:
    await demo().seed(node.handlers.execute)
    before = {name: await history(node, log) for name, log in (await conversations(node)).items()}
    assert await demo().seed(node.handlers.execute) == 0
    after = {name: await history(node, log) for name, log in (await conversations(node)).items()}
    assert after == before


async def test_a_start_that_was_cut_short_is_finished_by_the_next(node: Node) -> None:
    left = 150

    async def execute(caller: Principal, command: Command) -> Result:
        nonlocal left
        if isinstance(command, SendMessage):
            left -= 1
            if left < 0:
                raise ConnectionError
        return await node.handlers.execute(caller, command)

    with pytest.raises(ConnectionError):
        await demo().seed(execute)
    await asyncio.sleep(0)
    await demo().seed(node.handlers.execute)
    found = await conversations(node)
    for part in load_sample():
        if part.create.title:
            expected = [MessageContent.FromString(c).text for _, _, c in part.messages]
            texts = [m[2] for m in await history(node, found[part.create.title])]
            assert texts == expected


def test_the_sample_has_languages_replies_and_proper_ids() -> None:
    sample = load_sample()
    messages = [m for part in sample for m in part.messages]
    contents = [MessageContent.FromString(content) for _, _, content in messages]
    ids = {change_id.text for _, change_id, _ in messages}
    assert len(ids) == len(messages)
    assert all(uuid7_time(change_id.raw) < CLOCK.ms for _, change_id, _ in messages)
    assert all(c.reply_to_message_id in ids for c in contents if c.reply_to_message_id)
    assert sum(bool(c.reply_to_message_id) for c in contents) > 50
    everything = "".join(c.text for c in contents)
    for script in (
        "[\u4e00-\u9fff]",
        "[\uac00-\ud7a3]",
        "[\u0900-\u097f]",
        "[\U0001f300-\U0001faff]",
    ):
        assert re.search(script, everything), script


async def test_the_welcome_has_tokens_that_are_believed(tmp_path: Path) -> None:
    out = io.StringIO()
    Demo(TokenPolicy(hs256_secret=SECRET), CLOCK, out).welcome(
        "127.0.0.1:1", "127.0.0.1:3", "127.0.0.1:2"
    )
    text = out.getvalue()
    assert "127.0.0.1:1" in text
    assert "http://127.0.0.1:2/metrics" in text
    verifier = TokenVerifier(TokenPolicy(hs256_secret=SECRET), CLOCK)
    for user in ("alice", "bob"):
        found = re.search(rf"^    {user} +(eyJ\S+)$", text, re.MULTILINE)
        assert found is not None
        assert (await verifier.verify(found[1])).user_id == user


def settings_in(folder: Path) -> Settings:
    return Settings(store={"path": folder / "data" / "tidings.db"})  # type: ignore[arg-type]


def test_the_secret_is_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    assert with_dev_secret(settings, make=False) is settings
    first = with_dev_secret(settings, make=True).auth.hs256_secret
    again = with_dev_secret(settings, make=False).auth.hs256_secret
    assert first is not None
    assert again is not None
    assert first.get_secret_value() == again.get_secret_value()
    assert len(first.get_secret_value()) >= 32
    path = dev_secret_path(settings)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["dev-secret"]
    other = with_dev_secret(settings_in(tmp_path / "other"), make=True).auth.hs256_secret
    assert other != first


def test_a_configured_secret_is_left_alone(tmp_path: Path) -> None:
    settings = Settings(
        store={"path": tmp_path / "tidings.db"},  # type: ignore[arg-type]
        auth={"hs256_secret": SECRET.decode()},  # type: ignore[arg-type]
    )
    assert with_dev_secret(settings, make=True) is settings
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("x" * 40, 0o644, "can be read by others"),
        ("short", 0o600, "less than 32 bytes"),
        ("é" * 40, 0o600, "can't be read"),
    ],
)
def test_a_secret_that_is_none_is_refused(tmp_path: Path, text: str, mode: int, why: str) -> None:
    settings = settings_in(tmp_path)
    path = dev_secret_path(settings)
    path.parent.mkdir()
    path.write_text(text, "utf-8")
    path.chmod(mode)
    with pytest.raises(SecretUnusable, match=why):
        with_dev_secret(settings, make=True)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file", "utf-8")
    with pytest.raises(SecretUnusable, match="can't be"):
        with_dev_secret(settings_in(tmp_path), make=True)


def test_of_many_starts_at_once_one_makes_the_secret(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    code = (
        "import sys; from tests.unit.test_demo import *;"
        "with_dev_secret(settings_in(Path(sys.argv[1])), make=True)"
    )
    starts = [subprocess.Popen([sys.executable, "-c", code, tmp_path]) for _ in range(3)]
    assert [start.wait(60) for start in starts] == [0, 0, 0]
    assert [p.name for p in dev_secret_path(settings).parent.iterdir()] == ["dev-secret"]
