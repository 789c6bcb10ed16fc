"""Erasing: entries without their content, at the same positions and with the same ids."""

from __future__ import annotations

from collections.abc import Set

from tidings.v1 import chat_service_pb2


def erased(body: bytes, seqs: Set[int]) -> bytes:
    """The bytes of a page with the content of the entries at some positions erased; the same where it is already."""
    page = chat_service_pb2.ChatResponse.FromString(body)
    changed = False
    for event in page.events:
        entry = event.entry
        if entry.seq not in seqs or entry.erased:
            continue
        match entry.WhichOneof("body"):
            case "message":
                entry.message.Clear()
                entry.message.SetInParent()
            case "message_edited":
                entry.message_edited.ClearField("content")
            case _:
                continue
        entry.erased = changed = True
    return page.SerializeToString() if changed else body
