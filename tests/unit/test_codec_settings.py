"""Settings in requests: what a mask may name, and how large each may be."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tidings.v1.conversation_pb2 import ConversationSettings
from tidings_server.codec.settings import MAX_BYTES, decode_settings, read_settings
from tidings_server.errors import DomainError, Reason


def field_of_refusal(settings: ConversationSettings, *paths: str) -> str:
    with pytest.raises(DomainError) as caught:
        read_settings(settings, FieldMask(paths=paths))
    assert caught.value.reason is Reason.INVALID_FIELD
    return caught.value.field


def test_a_mask_names_something() -> None:
    assert field_of_refusal(ConversationSettings(title="x")) == "update_mask"


@pytest.mark.parametrize("path", ["", "*", "Title", "title.x", "settings.title", "kind"])
def test_a_mask_names_settings_only(path: str) -> None:
    settings = ConversationSettings(title="x")
    assert field_of_refusal(settings, "title", path) == "update_mask.paths[1]"
    with pytest.raises(ValueError, match="newer version"):
        decode_settings(settings, FieldMask(paths=["title", path]))


@pytest.mark.parametrize("name", MAX_BYTES)
def test_the_largest(name: str) -> None:
    most = "ä" * (MAX_BYTES[name] // 2)
    settings = ConversationSettings()
    setattr(settings, name, most)
    assert read_settings(settings, FieldMask(paths=[name]))
    more = ConversationSettings()
    setattr(more, name, most + "x")
    assert field_of_refusal(more, name) == f"settings.{name}"
    # What the mask does not name counts for nothing, however large.
    others = [other for other in MAX_BYTES if other != name]
    assert len(read_settings(more, FieldMask(paths=others))) == len(others)


@pytest.mark.parametrize("picture", ["a b", "a\n", "\x00", "a\u2028"])
def test_a_picture_has_no_white_space(picture: str) -> None:
    assert field_of_refusal(ConversationSettings(picture=picture), "picture") == "settings.picture"
    assert read_settings(
        ConversationSettings(title="x", picture=picture), FieldMask(paths=["title"])
    )


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ([(2, 2)], "settings.rights[0].role"),
        ([(0, 2)], "settings.rights[0].role"),
        ([(1, 2), (6, 2)], "settings.rights[1].role"),
        ([(1, 0)], "settings.rights[0].right"),
        ([(1, 1)], "settings.rights[0].right"),
        ([(1, 9)], "settings.rights[0].right"),
        ([(3, 16)], "settings.rights[0].right"),
        ([(3, 999)], "settings.rights[0].right"),
        ([(1, 2), (3, 2), (1, 2)], "settings.rights[2]"),
    ],
)
def test_rights_that_can_not_be_given(overrides: list[tuple[int, int]], field: str) -> None:
    settings = ConversationSettings()
    for role, right in overrides:
        settings.rights.add(role=role, right=right)
    assert field_of_refusal(settings, "rights") == field
    assert read_settings(settings, FieldMask(paths=["title"])) == (("title", ""),)


def test_a_right_of_a_newer_version_is_not_understood() -> None:
    settings = ConversationSettings()
    settings.rights.add(role=1, right=999)
    with pytest.raises(ValueError, match="999"):
        decode_settings(settings, FieldMask(paths=["rights"]))
