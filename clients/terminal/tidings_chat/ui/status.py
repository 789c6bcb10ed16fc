"""What the lines around the messages say. Pure."""

from __future__ import annotations

from datetime import datetime, tzinfo

from textual.content import Content

from tidings import Availability, ConnectionState, ConnectionStatus, ScaleClass

from .. import when
from ..commands import matching
from ..explain import explain
from ..model import Chat, Loading, Model
from ..text import one_line, steady, truncate
from ..transcript import Bubble

_NAMES = 4
_AVAILABILITY = {
    Availability.AWAY: "away",
    Availability.DO_NOT_DISTURB: "busy",
}


def connection_line(state: ConnectionState, retry_in: float, queued: int, width: int) -> Content:
    """How the client stands to the server.

    Args:
        state: How it stands.
        retry_in: Seconds until the next try, while offline.
        queued: The own messages that wait.
        width: The cells that there are.
    """
    waiting = f" · {queued} waiting" if queued else ""
    reason = f" · {explain(state.error)}" if state.error is not None else ""
    match state.status:
        case ConnectionStatus.ONLINE:
            return Content.assemble(("● ", "$success"), "online", (waiting, "$warning"))
        case ConnectionStatus.SYNCING:
            return Content.assemble(("◐ ", "$success"), "catching up", (waiting, "$warning"))
        case ConnectionStatus.CONNECTING:
            return Content.assemble(("◌ ", "$warning"), "connecting", (waiting, "$warning"))
        case ConnectionStatus.OFFLINE:
            text = f"offline, next try in {max(1, round(retry_in))} s"
            if len(text) + len(waiting) + len(reason) + 2 > width:
                reason = ""
            return Content.assemble(
                ("○ ", "$error"), text, (waiting, "$warning"), (reason, "$faint")
            )
    return Content.assemble(("✗ ", "$error"), f"disconnected{reason}", (waiting, "$warning"))


def heading(chat: Chat, now: datetime, zone: tzinfo | None, width: int) -> Content:
    """The line above a conversation: its name, and who is there."""
    name = truncate(one_line(chat.name), max(8, width // 2))
    if chat.left:
        return Content.assemble((name, "bold"), ("  you are no longer a member", "$faint"))
    if chat.direct:
        return Content.assemble((name, "bold"), "  ", *_presence(chat, now, zone))
    count = f"{chat.member_count} member{'s' if chat.member_count != 1 else ''}"
    known = chat.marks.joined
    if known is not None and chat.scale_class is ScaleClass.SMALL:
        names = [one_line(user) for user in sorted(known)][:_NAMES]
        more = ", …" if len(known) > _NAMES else ""
        listed = f"{count}: {', '.join(['you', *names])}{more}"
        if len(listed) + len(name) + 2 <= width:
            count = listed
    return Content.assemble((name, "bold"), (f"  {count}", "$faint"))


def _presence(chat: Chat, now: datetime, zone: tzinfo | None) -> list[str | tuple[str, str]]:
    presence = chat.presence
    if presence is None:
        return []
    said = f" · {one_line(presence.status_text)}" if presence.status_text else ""
    if presence.online:
        mood = _AVAILABILITY.get(presence.availability)
        style = "$success" if mood is None else "$warning"
        return [("● ", style), (f"{mood or 'online'}{said}", "$faint")]
    if presence.last_seen_time is not None:
        seen = when.ago(presence.last_seen_time.astimezone(zone), now)
        return [("○ ", "$faint"), (f"last seen {seen}{said}", "$faint")]
    return [("○ ", "$faint"), (f"offline{said}", "$faint")]


def about(bubble: Bubble, chat: Chat, width: int) -> Content:
    """What is known of a chosen message, and what can be done with it."""
    keys = "Enter reply · C copy"
    if bubble.problem:
        keys = "T send again · D give up · C copy"
    facts = ""
    if bubble.own and bubble.seq and not chat.direct:
        readers = ", ".join(one_line(user) for user in chat.marks.readers(bubble.seq))
        got = ", ".join(one_line(user) for user in chat.marks.receivers(bubble.seq))
        facts = " · ".join(
            part
            for part in (
                f"read by {readers}" if readers else "",
                f"delivered to {got}" if got else "",
            )
            if part
        )
    room = width - len(keys) - 3
    shown = f"{truncate(facts, room)} · " if facts and room > 10 else ""
    return Content.assemble((shown, "$seen"), (keys, "$faint"))


def hint(typed: str, replying: Bubble | None, width: int) -> Content | None:
    """What helps to write: the commands that fit, or the message that is replied to; None if nothing does."""
    specs = matching(typed)
    if len(specs) == 1:
        (spec,) = specs
        usage = f"/{spec.name} {spec.usage}".rstrip()
        return Content.styled(truncate(f"{usage} · {spec.help}", width), "$faint")
    if specs:
        return Content.styled(truncate(" ".join(f"/{one.name}" for one in specs), width), "$faint")
    if replying is None:
        return None
    head = f"↩ {one_line(replying.sender)}: "
    text = truncate(one_line(replying.text), max(0, width - len(head) - 10))
    return Content.assemble((head, "$primary"), steady(text), ("  Esc", "$faint"))


def instead_of_messages(chat: Chat | None, model: Model, *, listed: bool, narrow: bool) -> str:
    """What stands where messages would be, or nothing when they are there.

    Args:
        chat: The conversation that is open, or None.
        model: What is known.
        listed: Whether the list was fetched.
        narrow: Whether the list stands there.
    """
    if chat is None:
        if model.chats:
            return "" if narrow else "Choose a conversation: Ctrl+N, Ctrl+P or Ctrl+K."
        if listed:
            return "No conversations yet.\n\nCtrl+T begins one, and so does /dm somebody."
        return "One moment …" if model.up else "There is no connection yet."
    if chat.timeline.loading is Loading.LOADED or chat.timeline.outgoing:
        return ""
    if chat.timeline.problem is not None:
        return f"The messages can't be had: {explain(chat.timeline.problem)}"
    return "Loading …" if model.up else "The messages come with the connection."


def brand(model: Model, open_id: str) -> Content:
    """The line above the list: who it is, and what is unread besides the open conversation."""
    unread = _unread_besides(model, open_id)
    badge = (f"  {unread} unread", "$accent") if unread else ""
    return Content.assemble(("Tidings ", "bold $primary"), (one_line(model.me), "$faint"), badge)


def way_back(model: Model, open_id: str) -> Content:
    """What leads back to the list in a narrow terminal, with what is unread there."""
    unread = _unread_besides(model, open_id)
    return Content.assemble(("\u2039 ", "$primary"), (f"{unread} " if unread else "", "$accent"))


def _unread_besides(model: Model, open_id: str) -> int:
    return sum(
        chat.unread
        for chat in model.chats.values()
        if chat.conversation_id != open_id and not chat.left
    )
