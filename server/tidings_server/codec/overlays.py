"""Overlays as bytes: those that are stored are those that are sent, but for what is the reader's own."""

from __future__ import annotations

from tidings.v1 import message_pb2

from ..core.overlays import Overlay
from .fields import to_timestamp
from .wire import element

_EVENT = 0x0A
_MESSAGE_STATE = 0x62


def dump_overlay(log: str, overlay: Overlay) -> bytes:
    """A serialised `tidings.v1.MessageState`."""
    state = message_pb2.MessageState(
        conversation_id=log,
        seq=overlay.seq,
        as_of=overlay.as_of,
        edit_seqs=overlay.edits,
        edit_time=to_timestamp(overlay.edit_ms),
        deleted=overlay.deleted,
    )
    if overlay.content:
        state.content.ParseFromString(overlay.content)
    return state.SerializeToString()


def load_overlay(raw: bytes) -> Overlay:
    """The overlay in such bytes."""
    state = message_pb2.MessageState.FromString(raw)
    time = state.edit_time
    return Overlay(
        state.seq,
        state.as_of,
        state.content.SerializeToString(),
        tuple(state.edit_seqs),
        time.seconds * 1000 + time.nanos // 1_000_000,
        state.deleted,
    )


def state_event(raw: bytes) -> bytes:
    """One `events` element with a state."""
    return element(_EVENT, element(_MESSAGE_STATE, raw))
