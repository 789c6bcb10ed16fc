"""The script: who says what, where, in answer to which message, read from files of real conversations."""

from __future__ import annotations

import gzip
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tidings_server.core.ids import user_id_problem

ADD_AT_ONCE = 500
"""The most members that one AddMembers takes."""
FOUNDERS = 100
"""Members that a room is created with; the others are added."""


@dataclass(slots=True, eq=False)
class Row:
    """One message to be sent. `index` is its place in the script, `at` its original time in seconds."""

    index: int
    conversation: Conversation
    sender: str
    text: str
    reply_to: Row | None
    at: float | None


@dataclass(slots=True, eq=False)
class Conversation:
    """A conversation of the script.

    A room goes on all the time and has its members from the start; a dialogue begins with its first message, and each
    message answers the one before. `id` is given when the server has made it.
    """

    name: str
    room: bool
    direct: bool = False
    members: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    id: str = ""
    _places: dict[str, int] = field(default_factory=dict)

    @property
    def creator(self) -> str:
        """Who makes it."""
        return self.members[0]

    @property
    def founders(self) -> list[str]:
        """The members that it is created with."""
        return self.members[:FOUNDERS]

    @property
    def additions(self) -> list[list[str]]:
        """The members that are added afterwards, by request."""
        return [
            self.members[begin : begin + ADD_AT_ONCE]
            for begin in range(FOUNDERS, len(self.members), ADD_AT_ONCE)
        ]

    @property
    def entries(self) -> int:
        """How many entries it has when all of it was played."""
        return 1 + len(self.additions) + len(self.rows)

    def join_seq(self, user: str) -> int:
        """The position of the entry that makes a user a member; 0 for others."""
        if not self._places:
            self._places = {member: place for place, member in enumerate(self.members)}
        place = self._places.get(user)
        if place is None:
            return 0
        return 1 if place < FOUNDERS else 2 + (place - FOUNDERS) // ADD_AT_ONCE


@dataclass(slots=True)
class Script:
    """Everything that is to be played."""

    files: list[str]
    conversations: list[Conversation]
    rows: list[Row]

    @property
    def rooms(self) -> list[Conversation]:
        """The conversations that go on all the time."""
        return [c for c in self.conversations if c.room]

    @property
    def dialogues(self) -> list[Conversation]:
        """The others, in the order in which they begin."""
        return [c for c in self.conversations if not c.room]

    def by_activity(self) -> dict[str, int]:
        """How many messages each person sends, the most active first."""
        return dict(Counter(row.sender for row in self.rows).most_common())

    def conversations_of(self) -> dict[str, list[Conversation]]:
        """The conversations of each person."""
        found: dict[str, list[Conversation]] = {}
        for conversation in self.conversations:
            for member in conversation.members:
                found.setdefault(member, []).append(conversation)
        return found


def user_id(sender: str, file: str, prefix: str = "") -> str:
    """The user of a sender: nicks as they are, speakers of dialogues with their file, for "usr" is another in each."""
    name = sender if file.startswith("chat_") else f"{file.partition('_')[2]}/{sender}"
    name = prefix + name
    return quote(name, safe="/") if user_id_problem(name) else name


def load(
    paths: Sequence[Path],
    *,
    messages: int | None = None,
    prefix: str = "",
    silent_members: bool = True,
) -> Script:
    """Read a script. `messages` bounds it: rooms are cut at the end and dialogues left out, in proportion.

    `prefix` goes before every user id. Without `silent_members` only those are members who speak in what is played.
    Raises OSError and ValueError.
    """
    files = [(path.name.split(".")[0], _read(path)) for path in paths]
    total = sum(len(rows) for _, rows in files)
    share = 1.0 if messages is None else min(1.0, messages / max(total, 1))
    script = Script([name for name, _ in files], [], [])
    pairs: set[frozenset[str]] = set()
    for name, rows in files:
        _add_file(script, name, rows, share, prefix, pairs, silent_members=silent_members)
    return script


def _read(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        if not isinstance(row.get("text"), str) or not isinstance(row.get("sender"), str):
            raise ValueError(f"{path.name} holds rows that are no messages")  # noqa: TRY004
    return rows


def _add_file(
    script: Script,
    file: str,
    rows: list[dict[str, Any]],
    share: float,
    prefix: str,
    pairs: set[frozenset[str]],
    *,
    silent_members: bool,
) -> None:
    room = file.startswith("chat_")
    made: dict[int, Row] = {}
    grouped: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for number, row in enumerate(rows):
        grouped.setdefault(row["conversation"], []).append((number, row))
    chosen = grouped.items() if room else _spread(list(grouped.items()), share)
    for name, parts in chosen:
        conversation = Conversation(f"{file}:{name}", room)
        played = parts[: max(1, round(len(parts) * share))] if room else parts
        # The most active first.
        speaking = parts if silent_members else played
        activity = Counter(user_id(row["sender"], file, prefix) for _, row in speaking)
        conversation.members = [user for user, _ in activity.most_common()]
        pair = frozenset(conversation.members)
        if not room and len(pair) == 2 and pair not in pairs:
            pairs.add(pair)
            conversation.direct = True
        for number, row in played:
            replied = row["reply_to"]
            made[number] = Row(
                index=len(script.rows),
                conversation=conversation,
                sender=user_id(row["sender"], file, prefix),
                text=row["text"],
                reply_to=None if replied is None else made.get(replied),
                at=_seconds(row["sent_at"]),
            )
            conversation.rows.append(made[number])
            script.rows.append(made[number])
        script.conversations.append(conversation)


def _spread(
    conversations: list[tuple[str, list[tuple[int, dict[str, Any]]]]], share: float
) -> Iterable[tuple[str, list[tuple[int, dict[str, Any]]]]]:
    """About a share of the conversations, from all over the file."""
    if share >= 1:
        return conversations
    ends: Iterator[float] = itertools.accumulate(itertools.repeat(share, len(conversations)))
    taken = (end % 1 < share for end in ends)
    return [c for c, take in zip(conversations, taken, strict=True) if take] or conversations[:1]


def _seconds(time: str | None) -> float | None:
    return None if time is None else datetime.fromisoformat(time).timestamp()
