"""What was typed, understood: text to send, a command, or why it is neither."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final, TypeAlias


@dataclass(frozen=True, slots=True)
class Spec:
    """What a command is called, takes and does.

    Attributes:
        name: Its name, without the slash.
        usage: Its arguments, for people.
        help: What it does.
        least: The least number of arguments.
        most: The largest number of arguments, or None.
    """

    name: str
    usage: str
    help: str
    least: int = 0
    most: int | None = 0


SPECS: Final = (
    Spec("dm", "user", "talk with one person", 1, 1),
    Spec("group", "title user …", "make a group; a title of several words in “quotes”", 2, None),
    Spec("add", "user …", "add people to this group", 1, None),
    Spec("remove", "user", "remove somebody from this group", 1, 1),
    Spec("role", "user guest|member|moderator|admin|owner", "give somebody a role here", 2, 2),
    Spec("mute", "user [minutes]", "let somebody post nothing here, for a while or for good", 1, 2),
    Spec("unmute", "user", "let somebody post here again", 1, 1),
    Spec("ban", "user [minutes]", "remove somebody and let nobody add them again", 1, 2),
    Spec("unban", "user", "let somebody be added again", 1, 1),
    Spec("owner", "user", "make somebody the owner of this group in your place", 1, 1),
    Spec("invite", "[uses] [minutes]", "make a link by which people can join this group", 0, 2),
    Spec("join", "link", "join a group by a link", 1, 1),
    Spec("leave", "", "leave this group"),
    Spec("freeze", "", "let only admins write here"),
    Spec("unfreeze", "", "let everybody write here again"),
    Spec("title", "text", "give this group another title", 1, None),
    Spec("describe", "[text]", "say what this group is for", 0, None),
    Spec("members", "", "show who is in this conversation"),
    Spec("status", "[available|away|busy] [text]", "say how you are", 0, None),
    Spec("edit", "text", "give your chosen message, or your last one, another text", 1, None),
    Spec(
        "react",
        "[emoji]",
        "react to the chosen message, or the last one; without: take it back",
        0,
        1,
    ),
    Spec("pin", "", "pin the chosen message, or the last one"),
    Spec("unpin", "", "pin it no more"),
    Spec("pins", "", "show what is pinned here"),
    Spec("delete", "", "delete the chosen message, or your last one, for everybody"),
    Spec("retry", "", "send again what has failed here"),
    Spec("theme", "", "switch between light and dark"),
    Spec("help", "", "show keys and commands"),
    Spec("quit", "", "leave the program"),
)
_BY_NAME: Final = {spec.name: spec for spec in SPECS}
_QUOTES: Final = str.maketrans("“”„", '"""')


@dataclass(frozen=True, slots=True)
class SendText:
    """Text for the conversation."""

    text: str


@dataclass(frozen=True, slots=True)
class Run:
    """A command with its arguments."""

    name: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wrong:
    """Neither: what is wrong, for people."""

    problem: str


Typed: TypeAlias = SendText | Run | Wrong


def parse(typed: str) -> Typed:
    """Understand what was typed. A line that begins with a slash is a command; two slashes send one."""
    text = typed.strip("\n")
    if not text.strip():
        return Wrong("")
    if text.startswith("//"):
        return SendText(text[1:])
    if not text.startswith("/") or "\n" in text:
        return SendText(text)
    name, _, rest = text[1:].partition(" ")
    spec = _BY_NAME.get(name.lower())
    if spec is None:
        return Wrong(f"There is no command /{name}. Begin with // to send it as text.")
    try:
        arguments = shlex.split(rest.translate(_QUOTES))
    except ValueError:
        # An apostrophe as in O'Hara opens no quotation that ends.
        arguments = rest.split()
    if len(arguments) < spec.least or (spec.most is not None and len(arguments) > spec.most):
        return Wrong(f"Usage: /{spec.name} {spec.usage}".rstrip())
    return Run(spec.name, tuple(arguments))


def matching(typed: str) -> tuple[Spec, ...]:
    """The commands that what was typed so far may become."""
    if not typed.startswith("/") or typed.startswith("//") or "\n" in typed:
        return ()
    name, space, _ = typed[1:].partition(" ")
    if space:
        spec = _BY_NAME.get(name.lower())
        return (spec,) if spec is not None else ()
    return tuple(spec for spec in SPECS if spec.name.startswith(name.lower()))


def user_id(typed: str) -> str:
    """A user as people write it: @bob is bob."""
    return typed.strip().removeprefix("@")
