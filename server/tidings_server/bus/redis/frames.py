"""Frames: what a publication is on the wire of Redis. Pure.

A frame begins with its version, its kind, the length of its head and the sender's id. Within a version a head may
grow at its end: a reader goes by the length and leaves alone what it does not know. A reader ignores versions and
kinds that it does not know, so a node sends what the oldest node beside it understands.
"""

from __future__ import annotations

import struct

from ...core.pages import Page
from ..base import HeadPublished, NoticePublished, PagePublished, Publication

VERSION = 1
LARGE_BYTES = 8 * 1024
"""A page with a longer body travels as a pointer to the head of its log."""
ORIGIN_BYTES = 8
_PAGE, _NOTICE, _HEAD, _RESYNC = 1, 2, 3, 4

_START = struct.Struct(">BBH8s")
_OF_PAGE = struct.Struct(">QIQQ16sIII")
_OF_HEAD = struct.Struct(">Q")
_PAGE_START = struct.Struct(_START.format + _OF_PAGE.format[1:])
_HEAD_START = struct.Struct(_START.format + _OF_HEAD.format[1:])


class UnknownFrame(Exception):
    """The bytes are no frame, or one of a version or kind that came later."""


class Resync:
    """Every node is to look at the heads of its sessions: publications were dropped."""


RESYNC = Resync()


def encode(publication: Publication, origin: bytes) -> bytes:
    """The frame of a publication. `origin` is the sender's id of 8 bytes."""
    if isinstance(publication, PagePublished):
        page = publication.page
        body, ids = page.body, page.ids
        if len(body) > LARGE_BYTES:
            return encode_head(page.last_seq, origin)
        return b"".join(
            (
                _PAGE_START.pack(
                    VERSION,
                    _PAGE,
                    _PAGE_START.size,
                    origin,
                    page.first_seq,
                    page.count,
                    page.stamp,
                    page.ordinal,
                    page.commit_id,
                    page.flags,
                    page.rev,
                    len(ids),
                ),
                ids,
                body,
            )
        )
    if isinstance(publication, NoticePublished):
        return _START.pack(VERSION, _NOTICE, _START.size, origin) + publication.frame
    return encode_head(publication.seq, origin)


def encode_head(seq: int, origin: bytes) -> bytes:
    """The frame that says how far a log goes."""
    return _HEAD_START.pack(VERSION, _HEAD, _HEAD_START.size, origin, seq)


def encode_resync(origin: bytes) -> bytes:
    """The frame that makes every node look at the heads of its sessions."""
    return _START.pack(VERSION, _RESYNC, _START.size, origin)


def origin_of(frame: bytes) -> bytes:
    """The sender's id, of whatever version."""
    return frame[4 : 4 + ORIGIN_BYTES]


def decode(frame: bytes, log: str) -> Publication | Resync:
    """The publication in a frame that came for a log. Raises UnknownFrame."""
    try:
        version, kind, start, _ = _START.unpack_from(frame)
        if version != VERSION or start > len(frame):
            raise UnknownFrame
        if kind == _PAGE:
            return PagePublished(log, _page(frame, start))
        if kind == _NOTICE:
            return NoticePublished(log, frame[start:])
        if kind == _HEAD:
            return HeadPublished(log, _OF_HEAD.unpack_from(frame, _START.size)[0])
    except struct.error:
        raise UnknownFrame from None
    if kind == _RESYNC:
        return RESYNC
    raise UnknownFrame


def _page(frame: bytes, start: int) -> Page:
    if start < _PAGE_START.size:
        raise UnknownFrame
    first, count, stamp, ordinal, commit_id, flags, rev, ids_length = _OF_PAGE.unpack_from(
        frame, _START.size
    )
    ids_end = start + ids_length
    if ids_end > len(frame):
        raise UnknownFrame
    return Page(
        first, count, stamp, ordinal, commit_id, frame[start:ids_end], flags, frame[ids_end:], rev
    )
