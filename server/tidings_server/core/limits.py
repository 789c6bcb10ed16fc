"""Limits: the sizes and numbers that the server holds everybody to."""

from __future__ import annotations

from dataclasses import dataclass

MAX_WINDOW = 8192
"""The largest window that a device may ask for, in entries."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that an operator may set. The defaults are those of the contract
    (`tidings.v1.Limits`).

    Attributes:
        window: Entries that a session may have sent and not yet seen acknowledged, unless the
            device asks for another number.
        max_text_bytes: Bytes of a message text in UTF-8.
        max_frame_bytes: Bytes of a frame from a client.
        max_commands_in_flight: Commands of a session, and unary calls of a user, that may wait for
            their results.
        outbox_bytes: Bytes that may wait in a session's outbox; what does not fit becomes lag.
        catch_up_limit: Missed entries sent for one conversation; what is more is announced as a
            gap.
        new_device_messages: Newest entries that a device without cursors gets for one conversation.
        new_device_conversations: Conversations for which a device without cursors gets entries, the
            latest active ones.
        max_members: Members of a group.
        beacon_interval_ms: Milliseconds between two beacons of a session.
    """

    window: int = 1024
    max_text_bytes: int = 16_384
    max_frame_bytes: int = 1_048_576
    max_commands_in_flight: int = 1024
    outbox_bytes: int = 1_048_576
    catch_up_limit: int = 10_000
    new_device_messages: int = 50
    new_device_conversations: int = 20
    max_members: int = 100_000
    beacon_interval_ms: int = 30_000
