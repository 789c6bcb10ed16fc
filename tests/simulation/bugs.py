"""Bugs to plant: each is a mistake that somebody could make, to prove that the simulator would find it.

Most replace a line of a function by its source, so that what runs is the real code but for the mistake; when the line
is no longer there, planting fails, and the bug must be told anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tidings import _logs, _outbox
from tidings_server import node
from tidings_server.bus.redis import bus as redis_bus
from tidings_server.bus.redis import publisher
from tidings_server.core import memberships, permissions, state
from tidings_server.core.entries import MESSAGE_CHANGES
from tidings_server.delivery import catch_up, hub, outbox, position, resume, session, sync
from tidings_server.errors import store_unavailable
from tidings_server.messaging import (
    batch,
    effect_writing,
    forwarding,
    intents,
    lookup,
    mentions,
    message_states,
    proposals,
    receipts,
    sequencer,
    takeover,
)
from tidings_server.presence import redis as leases_in_redis

from .config import BusKind, Config
from .planting import changed, replaced


@dataclass(frozen=True, slots=True)
class Bug:
    """A planted bug. `within` is the number of seeds, from 0 on, that are known to find it.

    `where` makes of each seed's world one in which the bug can show, as other worlds would only cost time.
    """

    name: str
    what: str
    plant: Callable[[], Any]
    within: int
    where: Callable[[Config], Config] = lambda world: world


def _alone(world: Config) -> Config:
    """One server that crashes often."""
    return replace(world, nodes=1, faults=replace(world.faults, crash=0.25))


def _strangers(world: Config) -> Config:
    """Servers that append much to the same logs, and hear little of each other."""
    return replace(
        world,
        nodes=3,
        actions=160,
        homes=False,
        bus=BusKind.WIRE,
        bus_delay=0.4,
        faults=replace(world.faults, bus_loss=0.5),
    )


def _homes(world: Config) -> Config:
    """Servers that append for each other, whose links break."""
    return replace(world, nodes=3, homes=True, faults=replace(world.faults, peers=0.5))


def _redis(world: Config) -> Config:
    """Servers on a Redis that breaks."""
    return replace(
        world,
        nodes=max(2, world.nodes),
        bus=BusKind.REDIS,
        presence=True,
        faults=replace(world.faults, redis=0.3),
    )


def _restored(world: Config) -> Config:
    return replace(world, faults=replace(world.faults, restore=0.15))


def _narrow(world: Config) -> Config:
    """Outboxes are small, and so is what is on its way."""
    return replace(
        world,
        capacity=300,
        limits=replace(world.limits, outbox_bytes=500, max_commands_in_flight=4),
    )


def _wrong_clocks(world: Config) -> Config:
    """Clocks jump, and little of what was appended is kept in memory."""
    return replace(
        world,
        faults=replace(world.faults, clock=0.4, crash=0.25),
        rude_devices=tuple((user, replace(m, ahead_ms=290_000)) for user, m in world.rude_devices),
    )


def _crowded(world: Config) -> Config:
    """Much goes into a page."""
    return replace(world, sizes=replace(world.sizes, page_entries=100), store_delay=0.05, nodes=1)


def _ack_before_commit() -> Any:
    def build(*args: Any) -> batch.Batch | None:
        made = real(*args)
        if made is not None:
            for proposal, committed in made.accepted:
                if not proposal.changes_state:
                    proposal.done(committed)
                    proposal.done = _told
        return made

    real = sequencer.build  # type: ignore[attr-defined]
    return replaced(sequencer, "build", build)


def _told(_: object) -> None:
    """Who was told too early is not told again."""


def _resume_off_by_one() -> Any:
    def start(**known: Any) -> resume.Start:
        begin = real(**known)
        if known["named"] and not begin.passed and begin.sent < known["end"]:
            return resume.Start(begin.sent + 1, ())
        return begin

    real = sync.start  # type: ignore[attr-defined]
    return replaced(sync, "start", start)


def _unknown_is_failed() -> Any:
    def unsettled(self: Any, entry: Any, made: batch.Batch, span: object) -> None:
        for proposal, _ in made.accepted:
            proposal.done(store_unavailable())
        entry.state = None
        self._advance(entry)

    return replaced(sequencer.Sequencer, "_unsettled", unsettled)


def _level_after_one_chunk() -> Any:
    async def advance(self: Any, position: Any) -> bool | None:
        more: bool | None = await real(self, position)
        if more and position.sent < position.end and not self._window.unacked % 3:
            position.lagging = False
            return False
        return more

    real = catch_up.CatchUp._advance
    return replaced(catch_up.CatchUp, "_advance", advance)


def _effects_not_repeated() -> Any:
    async def repeat(_self: Any, state: Any) -> None:
        state.pending = ()

    return replaced(effect_writing.EffectWriter, "repeat", repeat)


def _lost_overlay_effect() -> Any:
    async def repeat(self: Any, state: Any) -> None:
        effects = self.effects

        async def of_memberships(log: str, change: Any, conversation: Any) -> None:
            if not isinstance(change.body, MESSAGE_CHANGES):
                await effects(log, change, conversation)

        only = effect_writing.EffectWriter(self._store, {}, None)
        only.effects = of_memberships
        await real(only, state)

    real = effect_writing.EffectWriter.repeat
    return replaced(effect_writing.EffectWriter, "repeat", repeat)


def _follow_late() -> Any:
    async def follow(self: Any, logs: list[str]) -> None:
        self._following = logs

        async def later() -> None:
            await asyncio.sleep(0.3)
            await self._services.hub.join(logs, self)

        self._spawn(later())

    return replaced(session.Session, "_follow", follow)


def _applied_when_handed_on() -> Any:
    def hand(self: Any, seq: int) -> None:
        real(self, seq)
        self.applied = self.handed

    real = _logs.Log.hand
    return replaced(_logs.Log, "hand", hand)


def _new_id_when_sent_again() -> Any:
    def requeue(self: Any, lane: Any, item: Any) -> None:
        real(self, lane, item)
        old = item.message.message_id
        # The last digits of an id are random.
        new = old[:-1] + "0123456789abcdef"[(int(old[-1], 16) + 1) % 16]
        self.seal(item, new)

    real = _outbox.Outbox._requeue
    return replaced(_outbox.Outbox, "_requeue", requeue)


def _no_predecessor_named() -> Any:
    def predecessor(_self: Any, _item: Any) -> None:
        return None

    return replaced(_outbox._Lane, "predecessor", predecessor)


def _removal_not_un_joined() -> Any:
    def un_join(_self: Any, _log: str, _page: object) -> None:
        return None

    return replaced(hub.Hub, "_un_join", un_join)


BUGS = {
    bug.name: bug
    for bug in (
        Bug(
            "ack-before-commit",
            "a message is acknowledged when its append is begun",
            _ack_before_commit,
            3,
        ),
        Bug(
            "no-five-minutes",
            "the look-up of an old id covers only pages with a stamp of at least its time",
            lambda: replaced(lookup, "earliest_stamp", lambda id_time_ms: id_time_ms),
            200,
            _wrong_clocks,
        ),
        Bug(
            "node-clock",
            "a page's stamp is the node's clock, not the larger of that and the stamp before",
            lambda: changed(batch, "_stamp", "max(now_ms, state.stamp)", "now_ms"),
            20,
        ),
        Bug(
            "resume-off-by-one",
            "a device starts one position behind the one that follows its cursor",
            _resume_off_by_one,
            5,
        ),
        Bug(
            "unknown-is-failed",
            "an append whose outcome is unknown is taken for one that failed",
            _unknown_is_failed,
            20,
        ),
        Bug(
            "removal-not-cut",
            "a change of the membership does not end its page",
            lambda: changed(batch, "build", " and not ended", ""),
            60,
            _crowded,
        ),
        Bug(
            "reply-unchecked",
            "a message may reply to what is nowhere in its conversation",
            lambda: changed(batch, "_check_reply", "reply_to is None", "reply_to is not False"),
            20,
        ),
        Bug(
            "stale-view",
            "what is known of a log is taken for its newest state, though other nodes append too",
            lambda: replaced(sequencer.Sequencer, "_current", sequencer.Sequencer._loaded),
            20,
            _strangers,
        ),
        Bug(
            "stale-refusal",
            "a command is refused on what is known of a log, though other nodes append too",
            lambda: changed(batch, "build", " and not proposal.verified", " and False"),
            200,
            _strangers,
        ),
        Bug(
            "level-after-one-chunk",
            "catching up stops behind a chunk, now and then",
            _level_after_one_chunk,
            20,
        ),
        Bug(
            "effects-not-repeated",
            "whoever loads a conversation does not write the effects that a crash left out",
            _effects_not_repeated,
            60,
            _alone,
        ),
        Bug(
            "lost-overlay-effect",
            "a change of a message is not folded into its overlay by whoever loads the conversation after a crash",
            _lost_overlay_effect,
            200,
        ),
        Bug(
            "mention-stays",
            "a mention that an edit or a deletion takes away is still counted",
            lambda: changed(mentions, "mention_rows", "for user in gone", "for user in gone[:0]"),
            60,
        ),
        Bug(
            "mention-not-pending",
            "a message whose mentions are not noted yet is not named in the head",
            lambda: changed(
                batch,
                "build",
                "pending = (*pending, seq)",
                "pending = pending if type(body) is MessagePosted else (*pending, seq)",
            ),
            60,
        ),
        Bug(
            "no-states-before-what-is-passed-over",
            "a device is not told what entries that it is not sent made of its messages",
            lambda: changed(
                message_states.MessageStates,
                "passed_over",
                "if is_inbox(log)",
                "if True or is_inbox(log)",
            ),
            200,
        ),
        Bug(
            "follow-late",
            "a session subscribes only some time after it has read the heads",
            _follow_late,
            20,
        ),
        Bug(
            "removal-not-un-joined",
            "the hub goes on to give a conversation to those who were removed",
            _removal_not_un_joined,
            20,
        ),
        Bug(
            "delivered-beyond-head",
            "a delivered mark is not held to the head",
            lambda: changed(
                receipts.Receipts, "mark_delivered", "min(command.seq, view.head)", "command.seq"
            ),
            20,
        ),
        Bug(
            "no-window",
            "entries are sent whether or not the window has room",
            lambda: replaced(position.Window, "room", lambda _self: 1 << 30),
            20,
        ),
        Bug(
            "no-outbox-limit",
            "the outbox takes whatever is put into it",
            lambda: replaced(outbox.Outbox, "room", lambda _self, _size: True),
            200,
            _narrow,
        ),
        Bug(
            "incarnation-ignored",
            "after a restore a device keeps its cursor even where the history is another",
            lambda: changed(
                sync.Synchroniser,
                "plan",
                "if hello.incarnation not in",
                "if False and hello.incarnation not in",
            ),
            60,
            _restored,
        ),
        Bug(
            "crash-before-publish",
            "a node does not note what it is about to append",
            lambda: changed(
                intents.Intents,
                "_note_logs",
                "await self._store.put_intents(self._node_id, self._round, new)",
                "pass",
            ),
            20,
        ),
        Bug(
            "intents-skipped",
            "nobody tells of what a dead node has noted",
            lambda: changed(
                takeover.Takeover,
                "_tell",
                "self._bus.publish(HeadPublished(name, head.last_seq))",
                "pass",
            ),
            20,
        ),
        Bug(
            "intents-cleared-early",
            "notes are removed while appends may still begin on them",
            lambda: changed(
                intents.Intents, "_decided_round", "return min(rounds) - 1", "return self._round"
            ),
            60,
        ),
        Bug(
            "forwarded-twice",
            "what another node has forwarded goes on to whoever seems to be the home of its log",
            lambda: changed(
                node.Node, "__init__", "Host(self.sequencer.submit", "Host(self.router.submit"
            ),
            200,
            _homes,
        ),
        Bug(
            "forwarded-and-forgotten",
            "what a lost home has not decided is decided nowhere",
            lambda: changed(forwarding.Peer, "_let_go", "self._decide_here(proposal)", "pass"),
            60,
            _homes,
        ),
        Bug(
            "silent-home",
            "a home that says nothing more is waited for",
            lambda: replaced(forwarding.Peer, "_look", lambda _self: None),
            60,
            _homes,
        ),
        Bug(
            "pointer-ignored",
            "a session makes nothing of the news that a log goes further",
            lambda: replaced(session.Session, "head_moved", lambda _self, _publication: None),
            60,
        ),
        Bug(
            "bus-owes-nothing",
            "what could not be published while Redis was away is forgotten",
            lambda: changed(
                publisher.Publisher,
                "_owe",
                "self.owe(parcel.log, Owed(parcel.seq, parcel.number))",
                "pass",
            ),
            60,
            _redis,
        ),
        Bug(
            "bus-not-looked-at-again",
            "sessions do not look at their heads when the connection to Redis was renewed",
            lambda: replaced(redis_bus.RedisBus, "_resync", lambda _self: None),
            200,
            _redis,
        ),
        Bug(
            "presence-of-an-old-dump",
            "a node keeps its token when Redis may have forgotten what was written",
            lambda: changed(
                leases_in_redis.RedisLeases, "_renew_token", "self._token = self._random()", "pass"
            ),
            200,
            _redis,
        ),
        Bug(
            "presence-sticks",
            "that a user has left is forgotten when Redis can't be told",
            lambda: changed(
                leases_in_redis.RedisLeases,
                "_write",
                "self._owed.update(dict.fromkeys(users))",
                "pass",
            ),
            200,
            _redis,
        ),
        Bug(
            "last-owner-leaves",
            "the only owner of a group may leave it",
            lambda: changed(
                permissions, "check_owner_stays", "state.owner_count <= 1", "state.seq < 0"
            ),
            60,
        ),
        Bug(
            "rank-overlooked",
            "who may give roles gives every role to everybody",
            lambda: changed(permissions, "check_rank", "membership.role is not", "None is"),
            100,
        ),
        Bug(
            "mute-overlooked",
            "a muted member may post",
            lambda: changed(permissions, "check", "muted_until_ms > now_ms", "muted_until_ms < 0"),
            100,
        ),
        Bug(
            "ban-overlooked",
            "who is banned may be added",
            lambda: changed(
                proposals.Add, "decide", "known.banned_until_ms > self.stamp", "not self.stamp"
            ),
            200,
        ),
        Bug(
            "role-not-written",
            "a role that was given is not in the row of the member",
            lambda: changed(memberships, "fold_membership", "role=given", "role=before.role"),
            60,
        ),
        Bug(
            "settings-overlooked",
            "a change of a setting is not folded into the state",
            lambda: changed(state, "fold", "**dict(changes)", "**{}"),
            60,
        ),
        Bug(
            "sdk-applied-when-handed-on",
            "the SDK takes an event for applied when it hands it on",
            _applied_when_handed_on,
            20,
        ),
        Bug(
            "sdk-doubles",
            "the SDK hands on again what it has handed on before",
            lambda: changed(_logs.Log, "advance", "if to_seq <= self.received:", "if to_seq < 0:"),
            20,
        ),
        Bug(
            "sdk-new-id",
            "the SDK makes a new id when it sends a message again",
            _new_id_when_sent_again,
            20,
        ),
        Bug(
            "sdk-no-predecessor",
            "the SDK does not name the predecessor of a message",
            _no_predecessor_named,
            60,
        ),
    )
}
