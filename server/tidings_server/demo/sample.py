"""The sample: real conversations as commands, the same ones each time."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from tidings_server.codec.wire import text
from tidings_server.core.commands import ChangeId, CreateConversation, SendMessage
from tidings_server.core.entries import ConversationKind
from tidings_server.core.ids import derived_uuid7, id_bytes

HOST = "alice"
"""Who creates the groups, and tries the demo first."""
GUESTS = ("alice", "bob", "carol")
"""Who is in every group, so that those who try the demo find something to read."""

_EPOCH_MS = 1_735_689_600_000
_TEXT, _REPLY_TO = 0x0A, 0x12  # tags of MessageContent


@dataclass(slots=True)
class SampleConversation:
    """A conversation: who creates it, how, and its messages with their senders, oldest first."""

    creator: str
    create: CreateConversation
    messages: list[tuple[str, ChangeId, bytes]] = field(default_factory=list)

    def sends(self, conversation_id: str) -> Iterator[tuple[str, SendMessage]]:
        """The messages as commands of their senders."""
        for sender, change_id, content in self.messages:
            yield sender, SendMessage(conversation_id, change_id, content)


def load_sample() -> list[SampleConversation]:
    """The conversations of the demo, in the order of the files. A few hundred messages."""
    return [
        *_load("direct", ConversationKind.DIRECT),
        *_load("group", ConversationKind.GROUP),
        *_load("rooms", ConversationKind.GROUP),
    ]


def _load(name: str, kind: ConversationKind) -> list[SampleConversation]:
    raw = files("tidings_server.demo").joinpath("data", f"{name}.jsonl.gz").read_bytes()
    rows: list[dict[str, Any]] = [json.loads(line) for line in gzip.decompress(raw).splitlines()]
    ids = [_change_id(i, name, str(i)) for i in range(len(rows))]
    people: dict[str, dict[str, None]] = {}
    for row in rows:
        people.setdefault(row["conversation"], {})[row["sender"]] = None
    made: dict[str, SampleConversation] = {}
    for title, senders in people.items():
        if kind is ConversationKind.DIRECT:
            creator, peer = senders
            create = CreateConversation(kind, (peer,))
        else:
            creator = HOST
            others = tuple(p for p in {**dict.fromkeys(GUESTS), **senders} if p != HOST)
            create = CreateConversation(kind, others, title, _change_id(0, name, title))
        made[title] = SampleConversation(creator, create)
    for row, change_id in zip(rows, ids, strict=True):
        content = text(_TEXT, row["text"])
        if row["reply_to"] is not None:
            content += text(_REPLY_TO, ids[row["reply_to"]].text)
        made[row["conversation"]].messages.append((row["sender"], change_id, content))
    return list(made.values())


def _change_id(index: int, *cause: str) -> ChangeId:
    # The time is the sample's own: an id must be the same after a restart.
    time_ms = _EPOCH_MS + index * 1000
    made = derived_uuid7(time_ms, "demo", *cause)
    return ChangeId(made, id_bytes(made), time_ms)
