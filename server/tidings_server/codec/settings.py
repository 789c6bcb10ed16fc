"""Settings of conversations: `ConversationSettings` with a field mask, as pairs of names and values."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from google.protobuf.field_mask_pb2 import FieldMask

from tidings.v1 import conversation_pb2

from ..core.entries import SETTINGS, RightOverride, Role, Setting
from ..core.permissions import FIXED_RIGHTS, Right
from ..errors import invalid
from . import fields

MAX_BYTES = {"title": 256, "description": 1024, "picture": 512, "custom_data": 2048}
"""The most bytes of UTF-8 of each text."""

_OTHER_ROLES = {int(role) for role in Role if role is not Role.OWNER}
_OTHER_RIGHTS = {int(right) for right in Right if right not in FIXED_RIGHTS}


def read_settings(
    settings: conversation_pb2.ConversationSettings, mask: FieldMask
) -> tuple[Setting, ...]:
    """The settings that the mask of a request names. Raises DomainError (INVALID_FIELD)."""
    if not mask.paths:
        raise invalid("update_mask", "must name at least one setting")
    for i, path in enumerate(mask.paths):
        if path not in SETTINGS:
            raise invalid(f"update_mask.paths[{i}]", f"must be one of {', '.join(SETTINGS)}")
    if "rights" in mask.paths:
        _check_overrides(settings.rights)
    changes = decode_settings(settings, mask)
    for name, value in changes:
        if isinstance(value, str):
            fields.text(f"settings.{name}", value, MAX_BYTES[name])
    if "picture" in mask.paths and any(
        one.isspace() or unicodedata.category(one) == "Cc" for one in settings.picture
    ):
        raise invalid("settings.picture", "must have no white space and no control characters")
    return changes


def _check_overrides(rights: Iterable[conversation_pb2.RightOverride]) -> None:
    seen = set()
    for i, override in enumerate(rights):
        at = f"settings.rights[{i}]"
        role, right = int(override.role), int(override.right)
        if role not in _OTHER_ROLES:
            raise invalid(f"{at}.role", "must be a role other than OWNER")
        if right not in _OTHER_RIGHTS:
            raise invalid(f"{at}.right", "must be a right other than READ, LEAVE and SET_RIGHTS")
        if (role, right) in seen:
            raise invalid(at, "must not name a role and a right that were named before")
        seen.add((role, right))


def decode_settings(
    settings: conversation_pb2.ConversationSettings, mask: FieldMask
) -> tuple[Setting, ...]:
    """The settings that the mask of an entry names. Raises ValueError when this version does not know one."""
    named = set(mask.paths)
    if not named <= set(SETTINGS):
        raise ValueError("a setting of a newer version")
    return tuple(
        (name, _overrides(settings.rights) if name == "rights" else getattr(settings, name))
        for name in SETTINGS
        if name in named
    )


def _overrides(rights: Iterable[conversation_pb2.RightOverride]) -> tuple[RightOverride, ...]:
    return tuple(sorted((int(Role(o.role)), int(Right(o.right)), o.allowed) for o in rights))


def to_overrides(rights: Iterable[RightOverride]) -> list[conversation_pb2.RightOverride]:
    """Overrides for the wire."""
    return [
        conversation_pb2.RightOverride(role=role, right=right, allowed=allowed)  # type: ignore[arg-type]
        for role, right, allowed in rights
    ]


def encode_settings(
    changes: tuple[Setting, ...], settings: conversation_pb2.ConversationSettings, mask: FieldMask
) -> None:
    """Writes settings into an entry."""
    for name, value in changes:
        if isinstance(value, tuple):
            settings.rights.extend(to_overrides(value))
        else:
            setattr(settings, name, value)
        mask.paths.append(name)
