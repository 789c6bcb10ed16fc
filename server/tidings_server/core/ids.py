"""Ids: UUIDv7 made by clients, ids derived from their cause, names of logs, and what a user id may
look like.
"""

from __future__ import annotations

import hashlib
import random
import unicodedata

INBOX_PREFIX = "inbox:"
MAX_USER_ID_BYTES = 128
SKEW_MS = 5 * 60 * 1000
"""How far the time of a new id may lie ahead of the sequencer's clock, and so how far a look-up
reaches back before it.
"""

_HEX = frozenset("0123456789abcdef")


def uuid7(now_ms: int, rng: random.Random) -> str:
    """A new UUIDv7 (RFC 9562) in lower-case text form."""
    value = (now_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | rng.getrandbits(12) << 64
    value |= 0b10 << 62 | rng.getrandbits(62)
    return _text(value)


def derived_uuid7(time_ms: int, *cause: str) -> str:
    """A UUIDv7 whose time is given and whose other bits are a hash of its cause: the same cause
    gives the same id.
    """
    digest = int.from_bytes(_digest(cause)[:16], "big")
    value = (time_ms & 0xFFFF_FFFF_FFFF) << 80 | 0x7 << 76 | (digest >> 64 & 0xFFF) << 64
    value |= 0b10 << 62 | digest & 0x3FFF_FFFF_FFFF_FFFF
    return _text(value)


def node_tag(node_id: str) -> bytes:
    """Four bytes that the ids of a node's commits begin with: they tell the few nodes that live from each other."""
    return _digest(("node", node_id))[:4]


def derived_uuid8(*cause: str) -> str:
    """A UUIDv8 that is a hash of its cause."""
    value = int.from_bytes(_digest(cause)[:16], "big")
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return _text(value)


def id_bytes(text: str) -> bytes:
    """The 16 bytes of a UUID in lower-case text form.

    Raises ValueError when it isn't one, whatever its version.
    """
    if len(text) != 36 or text[8] != "-" or text[13] != "-" or text[18] != "-" or text[23] != "-":
        raise ValueError("not a UUID in lower-case text form")
    digits = text.replace("-", "")
    if len(digits) != 32 or not _HEX.issuperset(digits):
        raise ValueError("not a UUID in lower-case text form")
    return bytes.fromhex(digits)


def uuid7_time(raw: bytes) -> int:
    """The time of a UUIDv7 in milliseconds since the Unix epoch.

    Raises ValueError when the 16 bytes are no UUIDv7.
    """
    if raw[6] >> 4 != 7 or raw[8] >> 6 != 0b10:
        raise ValueError("not a UUIDv7")
    return int.from_bytes(raw[:6], "big")


def direct_conversation_id(user_a: str, user_b: str) -> str:
    """The id of the one direct conversation of two users, in whichever order they are given."""
    first, second = sorted((user_a, user_b))
    return derived_uuid8("direct", first, second)


def group_conversation_id(creator: str, request_id: str) -> str:
    """The id of the group that a creator's request makes: nobody can take the id of another's."""
    return derived_uuid8("group", creator, request_id)


def inbox_log(user_id: str) -> str:
    """The name of a user's inbox."""
    return INBOX_PREFIX + user_id


def is_inbox(log: str) -> bool:
    """Whether a log is some user's inbox."""
    return log.startswith(INBOX_PREFIX)


def is_conversation_id(text: str) -> bool:
    """Whether the text has the form of a conversation id."""
    try:
        id_bytes(text)
    except ValueError:
        return False
    return True


def user_id_problem(user_id: str) -> str | None:
    """What is wrong with a user id, or None."""
    if not user_id:
        return "must not be empty"
    if (
        len(user_id) > MAX_USER_ID_BYTES
        or len(user_id.encode(errors="surrogatepass")) > MAX_USER_ID_BYTES
    ):
        return f"must be at most {MAX_USER_ID_BYTES} bytes of UTF-8"
    if user_id.isascii() and user_id.isprintable() and " " not in user_id:
        return None
    if any(unicodedata.category(c)[0] in "CZ" for c in user_id):
        return "must not contain white space or control characters"
    return None


def _digest(cause: tuple[str, ...]) -> bytes:
    sha = hashlib.sha256()
    for part in cause:
        raw = part.encode()
        # The length goes first, so that ("ab", "c") and ("a", "bc") differ.
        sha.update(len(raw).to_bytes(4, "big"))
        sha.update(raw)
    return sha.digest()


def _text(value: int) -> str:
    h = f"{value:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"
