"""What members may do in a conversation, by rules of its own: roles, ranks, and the owner that every group has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tidings.v1 import conversation_pb2, entry_pb2

from .violation import Violation

if TYPE_CHECKING:
    from .truth import Log

OWNER = conversation_pb2.MEMBER_ROLE_OWNER
_RANKS: list[int] = [
    conversation_pb2.MEMBER_ROLE_GUEST,
    conversation_pb2.MEMBER_ROLE_MEMBER,
    conversation_pb2.MEMBER_ROLE_MODERATOR,
    conversation_pb2.MEMBER_ROLE_ADMIN,
    OWNER,
]
PIN = 20
MENTION_ALL = 21
_NEEDS = {
    "message": 2,
    "message_edited": 3,
    "reaction_set": 4,
    "message_pinned": PIN,
    "message_deleted": 5,
    "members_added": 7,
    "member_removed": 8,
    "conversation_updated": 10,
    "member_role_set": 11,
    "member_muted": 12,
    "member_banned": 13,
    "invitation_set": 17,
}
"""The right that each kind of entry needs."""
DELETE_OTHERS, _FREEZE, _POST_FROZEN, _SET_RIGHTS = 6, 14, 15, 16
_LEAST = {
    2: 1,
    3: 1,
    4: 0,
    5: 0,
    6: 2,
    7: 3,
    8: 2,
    10: 3,
    11: 3,
    12: 2,
    13: 2,
    14: 3,
    15: 3,
    16: 4,
    17: 3,
    PIN: 1,
    MENTION_ALL: 4,
}
"""The lowest rank that has a right, where nothing else is said."""
_SETTING_NEEDS = {"frozen": _FREEZE, "rights": _SET_RIGHTS}
_SPEAKING = ("message", "message_edited", "reaction_set", "message_pinned")
TEXTS = ("title", "description", "picture", "custom_data")
FLAGS = ("frozen", "history_for_newcomers")
SETTINGS = (*TEXTS, *FLAGS, "rights")


def rank(log: Log, user: str) -> int:
    """How high a member stands."""
    return _RANKS.index(log.roles[user])


def may(log: Log, user: str, right: int) -> bool:
    """Whether a member has a right."""
    for role, number, given in log.settings["rights"]:
        if (role, number) == (log.roles[user], right):
            return bool(given)
    return rank(log, user) >= _LEAST[right]


def allowed(log: Log, entry: entry_pb2.Entry, where: str) -> None:
    """A member has changed something. Raises Violation when it should have been refused."""
    user, kind = entry.user_id, entry.WhichOneof("body") or ""
    own, stamp = rank(log, user), entry.create_time.ToMilliseconds()
    leaves = kind == "member_removed" and entry.member_removed.user_id == user
    needs = {_NEEDS[kind]}
    if kind == "conversation_updated":
        names = entry.conversation_updated.update_mask.paths
        needs = {_SETTING_NEEDS.get(name, _NEEDS[kind]) for name in names}
    if kind in _SPEAKING and log.settings["frozen"]:
        needs.add(_POST_FROZEN)
    if not all(may(log, user, right) for right in needs) and not leaves:
        raise Violation("decision", f"{where}: {kind} by {user}, whose rank is {own}")
    if kind in _SPEAKING and log.muted.get(user, 0) > stamp:
        raise Violation("decision", f"{where}: {kind} by {user}, who is muted")
    for other, role in [] if leaves else _concerned(log, entry):
        above = [_RANKS.index(role)]
        if other in log.roles and other != user:
            above.append(rank(log, other))
        if log.roles[user] != OWNER and max(above) >= own:
            raise Violation("decision", f"{where}: {kind} of {other}, {role} by {user}")
    _sound(log, entry, where)


def _concerned(log: Log, entry: entry_pb2.Entry) -> list[tuple[str, int]]:
    """Users whom an entry is about, each with the role that it gives or takes."""
    match entry.WhichOneof("body"):
        case "members_added":
            return [(m.user_id, m.role) for m in entry.members_added.members]
        case "member_role_set":
            return [(c.user_id, c.role) for c in entry.member_role_set.changes]
        case "member_removed":
            return [(entry.member_removed.user_id, entry.member_removed.role)]
        case "member_muted":
            muted = entry.member_muted.user_id
            return [(muted, log.roles[muted])]
    return []


def _sound(log: Log, entry: entry_pb2.Entry, where: str) -> None:
    """Raises Violation when an entry says what is not so, or changes nothing."""
    match entry.WhichOneof("body"):
        case "members_added":
            stamp = entry.create_time.ToMilliseconds()
            for member in entry.members_added.members:
                if log.banned.get(member.user_id, 0) > stamp:
                    raise Violation("decision", f"{where}: {member.user_id} is banned")
        case "member_role_set":
            for change in entry.member_role_set.changes:
                before = log.roles.get(change.user_id)
                if before != change.previous_role or before == change.role:
                    raise Violation("decision", f"{where}: {change} of one who is {before}")
        case "member_removed":
            removed = entry.member_removed
            if log.roles.get(removed.user_id) != removed.role:
                raise Violation("decision", f"{where}: {removed} of one who is otherwise")
        case "member_banned":
            banned = entry.member_banned
            if log.is_member(banned.user_id) and banned.HasField("expire_time"):
                raise Violation("decision", f"{where}: a ban of a member who stays one")
        case "conversation_updated":
            for name, value in _given(entry.conversation_updated).items():
                if value == log.settings[name]:
                    raise Violation("decision", f"{where}: {name} was so already")


def has_owner(log: Log, where: str) -> None:
    """A group with members has an owner. Raises Violation."""
    if log.kind == conversation_pb2.CONVERSATION_KIND_GROUP and log.roles and not log.owners:
        raise Violation("owner", f"{where} leaves a group without an owner")


def settings_at(log: Log, end: int) -> dict[str, Any]:
    """The settings after the entries up to a position."""
    found = no_settings()
    for entry in log.entries[:end]:
        change_settings(found, entry)
    return found


def no_settings() -> dict[str, Any]:
    """The settings of a conversation of which nothing is said."""
    return {**dict.fromkeys(TEXTS, ""), **dict.fromkeys(FLAGS, False), "rights": ()}


def change_settings(settings: dict[str, Any], entry: entry_pb2.Entry) -> None:
    """Takes an entry into the settings."""
    if entry.WhichOneof("body") == "conversation_created":
        settings["title"] = entry.conversation_created.title
    elif entry.WhichOneof("body") == "conversation_updated":
        settings.update(_given(entry.conversation_updated))


def _given(updated: entry_pb2.ConversationUpdated) -> dict[str, Any]:
    names = updated.update_mask.paths
    return {name: _value(getattr(updated.settings, name)) for name in names}


def _value(value: Any) -> Any:
    if isinstance(value, str | bool):
        return value
    return tuple((int(o.role), int(o.right), o.allowed) for o in value)


def told(log: Log, user: str, conversation: conversation_pb2.Conversation, who: str) -> None:
    """A user is told of a conversation. Raises Violation when it is another than the entries say up to its head."""
    where = f"{log.name} as of {conversation.head_seq}"
    stays = log.stays.get(user)
    if not stays or not log.visible(user, conversation.head_seq):
        raise Violation("I9", f"{who} is told of {where}")
    expected = settings_at(log, conversation.head_seq)
    got = {name: _value(getattr(conversation, name)) for name in SETTINGS}
    if not conversation.role:
        # Of what was changed after they had left nothing is told, nor that it was.
        if got != expected and any(got.values()):
            raise Violation(
                "I12", f"{who}, who has left, is told {where}: {got}, it was {expected}"
            )
        return
    roles = roles_at(log, conversation.head_seq)
    if (got, conversation.role, conversation.member_count) != (expected, roles[user], len(roles)):
        raise Violation("I12", f"{who} is told of {where}: {conversation}, it is {expected}")


def roles_at(log: Log, end: int) -> dict[str, int]:
    """The members and their roles after the entries up to a position."""
    roles: dict[str, int] = {}
    for entry in log.entries[:end]:
        change_roles(roles, entry)
    return roles


def change_roles(roles: dict[str, int], entry: entry_pb2.Entry) -> None:
    """Takes an entry into the roles of the members."""
    match entry.WhichOneof("body"):
        case "conversation_created":
            roles.update((m.user_id, m.role) for m in entry.conversation_created.members)
        case "members_added":
            roles.update((m.user_id, m.role) for m in entry.members_added.members)
        case "member_removed":
            roles.pop(entry.member_removed.user_id, None)
        case "member_role_set":
            roles.update((c.user_id, c.role) for c in entry.member_role_set.changes)


def restrict(log: Log, entry: entry_pb2.Entry) -> None:
    """Takes an entry into what is kept from users, and until when."""
    match entry.WhichOneof("body"):
        case "member_muted":
            muted = entry.member_muted
            log.muted[muted.user_id] = muted.expire_time.ToMilliseconds()
        case "member_banned":
            banned = entry.member_banned
            log.banned[banned.user_id] = banned.expire_time.ToMilliseconds()
        case "member_removed" if entry.member_removed.HasField("ban_expire_time"):
            removed = entry.member_removed
            log.banned[removed.user_id] = removed.ban_expire_time.ToMilliseconds()
        case "invitation_set":
            made = entry.invitation_set
            until = made.expire_time.ToMilliseconds()
            log.invitations[made.invitation_id] = (made.uses, until)
        case "members_added" if entry.members_added.invitation_id:
            uses, until = log.invitations[entry.members_added.invitation_id]
            log.invitations[entry.members_added.invitation_id] = (uses - 1, until)


def invited(log: Log, entry: entry_pb2.Entry, where: str) -> None:
    """Somebody has joined by an invitation. Raises Violation when that did not hold for them."""
    user, added = entry.user_id, entry.members_added
    stamp = entry.create_time.ToMilliseconds()
    uses, until = log.invitations.get(added.invitation_id, (0, 0))
    role = conversation_pb2.MEMBER_ROLE_MEMBER
    if uses < 1 or until <= stamp or [(m.user_id, m.role) for m in added.members] != [(user, role)]:
        raise Violation("decision", f"{where}: {added} by {user}, for {uses} until {until}")
    _sound(log, entry, where)
