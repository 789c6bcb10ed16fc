"""A conversation as it is read: its messages and what stands between them, from top to bottom. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Final, TypeAlias

from tidings import (
    ConversationCreated,
    ConversationUpdated,
    Entry,
    InvitationSet,
    MemberBanned,
    MemberMuted,
    MemberRemoved,
    MemberRole,
    MemberRoleSet,
    MembersAdded,
    Message,
    UnknownEntry,
)

from . import when
from .explain import explain
from .model import Chat, Loading, Outgoing, Progress
from .text import clean, one_line

_RUN: Final = timedelta(minutes=5)
_NAMES_AT_ONCE: Final = 3
_ROLES: Final = {
    MemberRole.GUEST: "a guest",
    MemberRole.MEMBER: "a member",
    MemberRole.MODERATOR: "a moderator",
    MemberRole.ADMIN: "an admin",
    MemberRole.OWNER: "an owner",
}
_REACTIONS: Final = 4


@dataclass(frozen=True, slots=True)
class Quote:
    """The message that another one replies to: who wrote it, and its text in one line."""

    sender: str
    text: str


@dataclass(frozen=True, slots=True)
class Bubble:
    """One message.

    Attributes:
        key: Names it for as long as it is shown, on its way and sent.
        seq: Its position, 0 while it has none.
        message_id: Its id.
        sender: Who wrote it.
        own: Whether the own user wrote it.
        begins_run: Whether it follows something else than a message of the same sender a moment before.
        named: Whether the sender's name is shown.
        text: Its text, harmless.
        time: The time of day.
        progress: How far an own one has come, or None.
        quote: What it replies to, or None.
        problem: Why it wasn't sent, or empty.
    """

    key: str
    seq: int
    message_id: str
    sender: str
    own: bool
    begins_run: bool
    named: bool
    text: str
    time: str
    progress: Progress | None = None
    quote: Quote | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that happened, in the middle of the line."""

    key: str
    text: str
    seq: int = 0


@dataclass(frozen=True, slots=True)
class DayLine:
    """A new day begins."""

    key: str
    text: str
    seq: int = 0


@dataclass(frozen=True, slots=True)
class NewLine:
    """What follows is new."""

    key: str = "new"
    text: str = "new"
    seq: int = 0


Item: TypeAlias = Bubble | Note | DayLine | NewLine


@dataclass(slots=True)
class _Run:
    """What stands right above."""

    day: date | None = None
    sender: str = ""
    time: datetime | None = None

    def extended_by(self, sender: str, time: datetime) -> bool:
        """Whether a message of a sender goes on with it."""
        goes_on = self.time is not None and self.sender == sender and time - self.time < _RUN
        self.sender, self.time = sender, time
        return goes_on

    def end(self) -> None:
        """Something else came."""
        self.sender, self.time = "", None


def transcript(
    chat: Chat, me: str, zone: tzinfo | None, today: date, new_after: int | None = None
) -> list[Item]:
    """The items of a conversation.

    Args:
        chat: The conversation.
        me: The own user.
        zone: The zone of the times, None for the system's.
        today: Today, there.
        new_after: Above the first message of others after this position a line says that it is new.
    """
    timeline = chat.timeline
    run = _Run()
    items: list[Item] = []
    if timeline.loading is Loading.LOADED:
        items.append(Note("top", _beginning(chat) if timeline.at_top else "· · ·"))
    for entry in timeline.entries:
        time = entry.time.astimezone(zone)
        items.extend(_day(run, time, today))
        if (
            new_after is not None
            and isinstance(entry, Message)
            and not entry.own
            and entry.seq > new_after
        ):
            new_after = None
            items.append(NewLine())
            run.end()
        if isinstance(entry, Message):
            items.append(_bubble(chat, entry, me, time, run))
        elif (text := describe(entry, me)) and not (chat.direct and entry.seq == 1):
            items.append(Note(f"#{entry.seq}", text, entry.seq))
            run.end()
    for own in timeline.outgoing.values():
        time = own.time.astimezone(zone)
        items.extend(_day(run, time, today))
        items.append(_outgoing(chat, own, me, time, run))
    return items


def _day(run: _Run, time: datetime, today: date) -> Iterator[DayLine]:
    if run.day is None or time.date() > run.day:
        run.day = time.date()
        run.end()
        yield DayLine(f"day{run.day}", when.day(run.day, today))


def _bubble(chat: Chat, message: Message, me: str, time: datetime, run: _Run) -> Bubble:
    goes_on = run.extended_by(message.user_id, time)
    return Bubble(
        key=f"{message.user_id}/{message.message_id}",
        seq=message.seq,
        message_id=message.message_id,
        sender=message.user_id,
        own=message.own,
        begins_run=not goes_on,
        named=not (goes_on or message.own or chat.direct),
        text="(deleted)" if message.erased else clean(message.text),
        time=_reactions(message) + when.clock(time) + _edited(message) + _pinned(message),
        progress=chat.progress(message.seq) if message.own else None,
        quote=_quote(chat, message.reply_to, me),
    )


def _reactions(message: Message) -> str:
    given = message.state.reactions if message.state is not None else ()
    shown = [
        one_line(what) + (f" {count}" if count > 1 else "") for what, count in given[:_REACTIONS]
    ]
    more = ["…"] if len(given) > _REACTIONS else []
    return "".join(f"{one}  " for one in (*shown, *more))


def _edited(message: Message) -> str:
    edited = message.state is not None and message.state.edit_seqs and not message.erased
    return " edited" if edited else ""


def _pinned(message: Message) -> str:
    return " pinned" if message.state is not None and message.state.pin_seq else ""


def _outgoing(chat: Chat, own: Outgoing, me: str, time: datetime, run: _Run) -> Bubble:
    progress = Progress.SENT if own.seq else Progress.QUEUED
    if own.error is not None:
        progress = Progress.FAILED
    return Bubble(
        key=f"{me}/{own.message_id}",
        seq=own.seq,
        message_id=own.message_id,
        sender=me,
        own=True,
        begins_run=not run.extended_by(me, time),
        named=False,
        text=clean(own.text),
        time=when.clock(time),
        progress=progress,
        quote=_quote(chat, own.reply_to, me),
        problem=explain(own.error) if own.error is not None else "",
    )


def _quote(chat: Chat, message_id: str | None, me: str) -> Quote | None:
    if message_id is None:
        return None
    waiting = chat.timeline.outgoing.get(message_id)
    if waiting is not None:
        return Quote(me, one_line(waiting.text))
    message = chat.timeline.find(message_id)
    if message is not None:
        text = "(deleted)" if message.erased else one_line(message.text)
        return Quote(message.user_id, text)
    return Quote("", "a message that can't be shown" if message_id in chat.timeline.quotes else "…")


def _beginning(chat: Chat) -> str:
    if chat.direct:
        return f"This is where you and {one_line(chat.peer)} begin"
    return f"This is where {one_line(chat.name)} begins for you"


def describe(entry: Entry, me: str) -> str:
    """What an entry other than a message tells, or nothing."""
    who = "You" if entry.user_id == me else one_line(entry.user_id)
    if isinstance(entry, ConversationCreated):
        others = [member.user_id for member in entry.members if member.user_id != entry.user_id]
        with_whom = f" with {_names(others, me)}" if others else ""
        named = f" “{one_line(entry.title)}”" if entry.title else ""
        return f"{who} made the group{named}{with_whom}"
    if isinstance(entry, InvitationSet):
        return f"{who} {'invited by a link' if entry.uses else 'took an invitation back'}"
    if isinstance(entry, MembersAdded) and entry.invitation_id:
        return f"{who} joined by a link"
    if isinstance(entry, MembersAdded):
        return f"{who} added {_names([member.user_id for member in entry.members], me)}"
    if isinstance(entry, MemberRemoved):
        if entry.left:
            return f"{who} left"
        verb = "banned" if entry.ban_expire_time is not None else "removed"
        return f"{who} {verb} {_names([entry.removed_user_id], me)}"
    if isinstance(entry, MemberMuted | MemberBanned):
        return _restricted(entry, who, me)
    if isinstance(entry, MemberRoleSet):
        given = [
            f"{_names([user], me)} {_ROLES.get(role, role.name.lower())}"
            for user, role in entry.roles.items()
        ]
        return f"{who} made {' and '.join(given)}"
    if isinstance(entry, ConversationUpdated):
        return f"{who} {_updated(entry)}"
    if isinstance(entry, UnknownEntry):
        return "Something that this version can't show"
    return ""


def _restricted(entry: MemberMuted | MemberBanned, who: str, me: str) -> str:
    if isinstance(entry, MemberMuted):
        verb = "unmuted" if entry.expire_time is None else "muted"
        return f"{who} {verb} {_names([entry.muted_user_id], me)}"
    verb = "lifted the ban of" if entry.expire_time is None else "banned"
    return f"{who} {verb} {_names([entry.banned_user_id], me)}"


def _updated(entry: ConversationUpdated) -> str:
    if entry.title:
        return f"named the group “{one_line(entry.title)}”"
    if entry.title is not None:
        return "took the name of the group away"
    if entry.description:
        return f"described the group: {one_line(entry.description)}"
    if entry.frozen is not None:
        return "froze the group" if entry.frozen else "let people write here again"
    if entry.history_for_newcomers is not None:
        shown = "shows" if entry.history_for_newcomers else "does not show"
        return f"{shown} new members what was said before"
    if entry.rights is not None:
        return "changed who may do what here"
    return "changed what is said of the group"


def _names(user_ids: list[str], me: str) -> str:
    # The own name comes first: it is what concerns.
    ordered = sorted(user_ids, key=lambda user: user != me)
    names = ["you" if user == me else one_line(user) for user in ordered]
    if len(names) > _NAMES_AT_ONCE + 1:
        names = [*names[:_NAMES_AT_ONCE], f"{len(names) - _NAMES_AT_ONCE} others"]
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
