"""Overlays as bytes: those that are stored are those that are sent, but for what is the reader's own."""

from __future__ import annotations

from tidings.v1 import message_pb2

from ..core.overlays import Overlay
from .fields import to_ms, to_timestamp
from .wire import element, text

_EVENT = 0x0A
_MESSAGE_STATE = 0x62
_OWN_REACTION = 0x4A


def dump_overlay(log: str, overlay: Overlay) -> bytes:
    """A serialised `tidings.v1.MessageState`."""
    state = message_pb2.MessageState(
        conversation_id=log,
        seq=overlay.seq,
        as_of=overlay.as_of,
        edit_seqs=overlay.edits,
        edit_time=to_timestamp(overlay.edit_ms),
        deleted=overlay.deleted,
        reactions=[
            message_pb2.ReactionCount(reaction=reaction, count=count)
            for reaction, count in overlay.reactions
        ],
        pin_seq=overlay.pin_seq,
    )
    if overlay.content:
        state.content.ParseFromString(overlay.content)
    return state.SerializeToString()


def load_overlay(raw: bytes) -> Overlay:
    """The overlay in such bytes."""
    state = message_pb2.MessageState.FromString(raw)
    return Overlay(
        state.seq,
        state.as_of,
        state.content.SerializeToString(),
        tuple(state.edit_seqs),
        to_ms(state.edit_time),
        state.deleted,
        tuple((r.reaction, r.count) for r in state.reactions),
        state.pin_seq,
    )


def state_event(raw: bytes, own_reaction: str = "") -> bytes:
    """One `events` element with a state, and the reader's own reaction."""
    return element(_EVENT, element(_MESSAGE_STATE, raw + text(_OWN_REACTION, own_reaction)))
