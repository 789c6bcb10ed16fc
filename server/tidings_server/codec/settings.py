"""Settings of conversations: `ConversationSettings` with a field mask, as pairs of names and values."""

from __future__ import annotations

import unicodedata

from google.protobuf.field_mask_pb2 import FieldMask

from tidings.v1 import conversation_pb2

from ..core.entries import SETTINGS, Setting
from ..errors import invalid
from . import fields

MAX_BYTES = {"title": 256, "description": 1024, "picture": 512, "custom_data": 2048}
"""The most bytes of UTF-8 of each text."""


def read_settings(
    settings: conversation_pb2.ConversationSettings, mask: FieldMask
) -> tuple[Setting, ...]:
    """The settings that the mask of a request names. Raises DomainError (INVALID_FIELD)."""
    if not mask.paths:
        raise invalid("update_mask", "must name at least one setting")
    for i, path in enumerate(mask.paths):
        if path not in SETTINGS:
            raise invalid(f"update_mask.paths[{i}]", f"must be one of {', '.join(SETTINGS)}")
    changes = decode_settings(settings, mask)
    for name, value in changes:
        fields.text(f"settings.{name}", value, MAX_BYTES[name])
    picture = dict(changes).get("picture", "")
    if any(one.isspace() or unicodedata.category(one) == "Cc" for one in picture):
        raise invalid("settings.picture", "must have no white space and no control characters")
    return changes


def decode_settings(
    settings: conversation_pb2.ConversationSettings, mask: FieldMask
) -> tuple[Setting, ...]:
    """The settings that the mask of an entry names. Raises ValueError when this version does not know one."""
    named = set(mask.paths)
    if not named <= set(SETTINGS):
        raise ValueError("a setting of a newer version")
    return tuple((name, getattr(settings, name)) for name in SETTINGS if name in named)


def encode_settings(
    changes: tuple[Setting, ...], settings: conversation_pb2.ConversationSettings, mask: FieldMask
) -> None:
    """Writes settings into an entry."""
    for name, value in changes:
        setattr(settings, name, value)
        mask.paths.append(name)
