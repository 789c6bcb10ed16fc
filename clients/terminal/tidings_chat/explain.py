"""Errors in words for the person at the keyboard."""

from __future__ import annotations

from typing import Final

from tidings import Code, TidingsError

_BY_REASON: Final = {
    "CONVERSATION_NOT_FOUND": "you are not a member of this conversation",
    "MESSAGE_NOT_FOUND": "there is no such message",
    "RIGHT_MISSING": "your role here does not allow this",
    "INVITATION_LIMIT": "there are too many invitations already",
    "FROZEN": "only admins write here for now",
    "MUTED": "you are muted here for now",
    "MEMBER_BANNED": "one of them is banned from here",
    "MEMBER_NOT_FOUND": "there is no such member",
    "LAST_OWNER": "make somebody else the owner first, with /owner",
    "DENIED": "the server doesn't allow this",
    "TOO_LARGE": "it is too large",
    "TOKEN_INVALID": "the server doesn't accept the token",
    "TOKEN_EXPIRED": "the token has expired",
    "MEMBER_LIMIT": "the group is full",
    "PIN_LIMIT": "too much is pinned here",
    "DIRECT_FIXED": "a conversation of two can't be changed: make a group",
    "SESSION_REPLACED": "this device has signed in somewhere else",
    "STORE_UNAVAILABLE": "the server can't store anything at the moment",
    "OUTCOME_UNKNOWN": "the server can't say yet whether it was stored",
    "DRAINING": "the server is restarting",
    "TOO_MANY_IN_FLIGHT": "too much at once",
    "INTERNAL": "the server has a fault",
}
_BY_CODE: Final = {
    Code.UNAVAILABLE: "the server can't be reached",
    Code.DEADLINE_EXCEEDED: "the server didn't answer in time",
    Code.UNAUTHENTICATED: "the server doesn't accept the token",
    Code.PERMISSION_DENIED: "the server doesn't allow this",
    Code.INTERNAL: "the server has a fault",
}


def explain(error: TidingsError) -> str:
    """Why something failed, as the end of a sentence."""
    if (known := _BY_REASON.get(error.reason)) is not None:
        return known
    if (known := _BY_CODE.get(error.code)) is not None:
        return known
    return error.message or error.code.name.lower().replace("_", " ")
