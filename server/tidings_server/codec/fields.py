"""Fields that many messages have: how their values are checked when they are read, and written.

Those that read raise DomainError (INVALID_FIELD) with the name of the field.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256

from google.protobuf.timestamp_pb2 import Timestamp

from ..core import commands as c
from ..core.entries import Role
from ..core.ids import (
    id_bytes,
    is_conversation_id,
    is_inbox,
    user_id_problem,
    uuid7_time,
)
from ..errors import invalid

MAX_POSITION = 2**62
_CODE = re.compile(r"[A-Za-z0-9_-]{16,128}")
MAX_TIME_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, the last that a `google.protobuf.Timestamp` may have."""


def to_timestamp(time_ms: int) -> Timestamp | None:
    """A time in milliseconds since the Unix epoch; None for 0."""
    if not time_ms:
        return None
    return Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)


def to_ms(time: Timestamp) -> int:
    """Milliseconds since the Unix epoch; 0 for a time that is not set."""
    return time.seconds * 1000 + time.nanos // 1_000_000


def conversation_id(value: str, field: str = "conversation_id") -> str:
    """The id of a conversation."""
    if not is_conversation_id(value):
        raise invalid(field, "must be a UUID in lower-case text form")
    return value


def log(value: str) -> str:
    """A conversation's id, or the name of an inbox."""
    return value if is_inbox(value) else conversation_id(value)


def change_id(field: str, value: str) -> c.ChangeId:
    """A client's id of a change."""
    try:
        raw = id_bytes(value)
        return c.ChangeId(value, raw, uuid7_time(raw))
    except ValueError:
        raise invalid(field, "must be a UUIDv7 in lower-case text form") from None


def user(field: str, value: str) -> str:
    """A user id."""
    problem = user_id_problem(value)
    if problem:
        raise invalid(field, problem)
    return value


def users(field: str, values: Iterable[str]) -> tuple[str, ...]:
    """User ids, without doubles."""
    return tuple(dict.fromkeys(user(f"{field}[{i}]", v) for i, v in enumerate(values)))


def role(field: str, value: int) -> Role:
    """A role."""
    try:
        return Role(value)
    except ValueError:
        raise invalid(field, "must be a role of tidings.v1.MemberRole") from None


def time(field: str, value: Timestamp) -> int:
    """A time after the Unix epoch, in milliseconds since then; parts of them are cut off."""
    time_ms = to_ms(value)
    if not 1 <= time_ms <= MAX_TIME_MS or not 0 <= value.nanos < 1_000_000_000:
        raise invalid(field, "must be a time between 1970 and the end of 9999")
    return time_ms


def invitation(field: str, code: str) -> str:
    """The invitation that has a code: whoever only knows which it is can't join by it."""
    if not _CODE.fullmatch(code):
        raise invalid(field, "must be 16 to 128 characters of A-Z, a-z, 0-9, - and _")
    return sha256(code.encode()).hexdigest()


def position(field: str, value: int, *, least: int = 1) -> int:
    """A position."""
    if not least <= value <= MAX_POSITION:
        raise invalid(field, f"must be a position of at least {least}")
    return value


def page_size(value: int, default: int, most: int) -> int:
    """How many items a page has; more than the most are taken as that."""
    if value < 0:
        raise invalid("page_size", "must not be negative")
    return min(value or default, most)


def page_token(value: str) -> str:
    """Where a page begins."""
    if len(value) > 512:
        raise invalid("page_token", "is none that this server made")
    return value


def text(field: str, value: str, limit: int) -> None:
    """Refuses texts of more than `limit` bytes."""
    if len(value.encode()) > limit:
        raise invalid(field, f"must be at most {limit} bytes of UTF-8")
