"""Leases in Redis: one lease a node, renewed; users announced at transitions; nothing that must last.

Keys, by namespace `ns`: `{ns}:epoch` is a random text that is made anew when it is missing; `{ns}:nodes` orders the
tokens of nodes by the end of their leases, by Redis' clock; `{ns}:info` tells who a token is; `ns:on:USER` is the set
of tokens that have announced a user, `ns:at:TOKEN` the set of users whom a token has announced. `{ns}:ended` keeps the
tokens whose leases ran out until a node has seen to the users that they left behind. A token is made anew whenever what
Redis holds may no longer be what was written to it (a flush, a restart, a fail-over, a lease that ran out, too many
transitions not written): what was announced under the old one then counts no more, and everybody is announced again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import structlog
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from ..core.homes import home_of
from ..redis_options import RedisOptions
from .base import Leases, NodeInfo

log = structlog.get_logger(__name__)

USER_KEY_S = 3600
"""How long the announcement of a user stays when nobody repeats it; a node does so twice in that time."""
OWED_USERS = 100_000
_RENEWALS = 4
"""Renewals in the length of a lease."""
_AT_ONCE = 500
_STARTED_WITHIN_S = 2.0
_ANSWERED_WITHIN_S = 1.0
_TRIED_AGAIN_S = 1.0
_DEAD_TOKENS = 10_000

# Over uvloop the client also lets a RuntimeError of a closed transport through. A TimeoutError is an OSError.
_Failures = (RedisError, OSError, RuntimeError)

_RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(ARGV[1])
redis.call('SET', KEYS[3], ARGV[2], 'NX')
local out = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - lease, 'WITHSCORES')
for i = 1, #out, 2 do
  redis.call('ZADD', KEYS[4], out[i + 1], out[i])
  redis.call('ZREM', KEYS[1], out[i])
  redis.call('HDEL', KEYS[2], out[i])
end
if ARGV[5] ~= '' then
  redis.call('ZREM', KEYS[1], ARGV[5])
  redis.call('HDEL', KEYS[2], ARGV[5])
  redis.call('ZREM', KEYS[4], ARGV[5])
end
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[1], now + lease, ARGV[3])
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
end
-- The clock was set back since: nobody's lease is longer than one.
local latest = string.format('%.0f', now + lease)
for _, token in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. latest, '+inf')) do
  redis.call('ZADD', KEYS[1], latest, token)
end
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, ARGV[6])
end
local nodes = {}
local rows = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #rows, 2 do
  local info = redis.call('HGET', KEYS[2], rows[i])
  if info then
    table.insert(nodes, {rows[i], tostring(rows[i + 1] - now), info})
  end
end
local ended = {}
rows = redis.call('ZRANGE', KEYS[4], 0, 99, 'WITHSCORES')
for i = 1, #rows, 2 do
  table.insert(ended, {rows[i], tostring(now - rows[i + 1])})
end
return {redis.call('GET', KEYS[3]), nodes, ended}
"""


@dataclass(slots=True)
class LeaseCounts:
    """What the leases count. Numbers only grow."""

    renewals: int = 0
    failures: int = 0
    """Renewals and writes that failed."""
    epochs: int = 0
    """Times that everybody was announced anew."""


@dataclass(slots=True)
class _Held:
    """A token of a node, and until when on this loop's clock its lease is believed."""

    node: NodeInfo
    until: float


class RedisLeases(Leases):
    """See `Leases`. `lease_s` is the same at all nodes."""

    def __init__(
        self, options: RedisOptions, node: NodeInfo, rng: random.Random, *, lease_s: float = 10.0
    ) -> None:
        self.counts = LeaseCounts()
        self._options = options
        self._node = node
        self._rng = rng
        self._lease_s = lease_s
        self._client: Any = None
        tag = f"{{{options.namespace}}}"
        self._keys = (f"{tag}:nodes", f"{tag}:info", f"{tag}:epoch", f"{tag}:ended")
        self._user_prefix = f"{options.namespace}:on:"
        self._users_prefix = f"{options.namespace}:at:"
        self._token = self._random()
        self._old_token = ""
        self._users: dict[str, None] = {}
        # Users of whom Redis may hold something else than is true.
        self._owed: dict[str, None] = {}
        self._sweep: list[str] = []
        self._held: dict[str, _Held] = {}
        self._dead: set[str] = set()
        self._told: frozenset[NodeInfo] = frozenset((node,))
        self._identity: tuple[str, ...] | None = None
        self._renewed: float | None = None
        self._keep_until = 0.0
        self._due = 0.0
        self._reachable = False
        # Tokens that left users behind, and when their leases ended.
        self._ended: dict[str, float] = {}
        self._seeing_off: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._tried = asyncio.Event()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def node(self) -> NodeInfo:
        """See `Leases`."""
        return self._node

    @property
    def informed(self) -> bool:
        """See `Leases`."""
        # Others had most of their leases before them when they were read.
        now = asyncio.get_running_loop().time()
        return self._renewed is not None and now - self._renewed < self._lease_s / 2

    def announce(self, node: NodeInfo) -> None:
        """See `Leases`."""
        if node != self._node:
            self._node = node
            self._due = 0.0
            self._wake.set()

    @property
    def connected(self) -> bool:
        """Whether the last thing that was asked of Redis was answered."""
        return self._reachable

    @property
    def known_nodes(self) -> int:
        """How many nodes lived when this was looked at last."""
        return len(self._told)

    @property
    def owed_users(self) -> int:
        """Users whose coming or leaving is not written yet."""
        return len(self._owed)

    async def start(self) -> None:
        """See `Leases`."""
        self._client = self._options.client()
        self._task = asyncio.get_running_loop().create_task(self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STARTED_WITHIN_S):
                await self._tried.wait()

    async def stop(self) -> None:
        """See `Leases`."""
        if self._task is None:
            return
        self._stopping.set()
        tasks = [task for task in (self._task, self._seeing_off) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        if self._reachable:
            with contextlib.suppress(*_Failures):
                async with asyncio.timeout(_ANSWERED_WITHIN_S):
                    self._old_token, self._token = self._token, ""
                    await self._eval()
                    await self._client.unlink(self._users_prefix + self._old_token)
        self._users.clear()
        with contextlib.suppress(*_Failures):
            await self._client.aclose()

    def came(self, user_id: str) -> None:
        """See `Leases`."""
        if user_id not in self._users:
            self._users[user_id] = None
            self._owe(user_id)

    def left(self, user_id: str) -> None:
        """See `Leases`."""
        if user_id in self._users:
            del self._users[user_id]
            self._owe(user_id)

    async def online(self, user_ids: Iterable[str]) -> set[str]:
        """See `Leases`."""
        users = list(user_ids)
        found = {user for user in users if user in self._users}
        others = [user for user in users if user not in found]
        if not others or not self._reachable:
            return found
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN_S):
                return found | await self._online_elsewhere(others)
        except _Failures as problem:
            self.counts.failures += 1
            log.warning("presence_of_this_node_only", cause=_cause(problem))
            return found

    def nodes(self) -> Mapping[str, NodeInfo]:
        """See `Leases`."""
        now = asyncio.get_running_loop().time()
        live = {h.node.node_id: h.node for h in self._held.values() if h.until > now}
        live[self._node.node_id] = self._node
        return live

    # Users

    def _owe(self, user_id: str) -> None:
        self._owed[user_id] = None
        if len(self._owed) > OWED_USERS + 2 * len(self._users):
            # Cheaper than telling who left: they were announced under a token that counts no more.
            self._renew_token()
        self._wake.set()

    async def _online_elsewhere(self, users: Sequence[str]) -> set[str]:
        tokens = await self._tokens_of(users)
        known = self._held.keys() | self._dead
        if any(token not in known for of_user in tokens for token in of_user):
            # Of a node that came since the last renewal, or of one that is gone for long.
            _, rows, _ = await self._eval(read_only=True)
            self._see(rows)
            if len(self._dead) > _DEAD_TOKENS:
                self._dead.clear()
            self._dead |= {t for of_user in tokens for t in of_user if t not in self._held}
        now = asyncio.get_running_loop().time()
        live = {token for token, held in self._held.items() if held.until > now}
        live.discard(self._token)
        return {user for user, of_user in zip(users, tokens, strict=True) if live & of_user}

    async def _tokens_of(self, users: Sequence[str]) -> list[set[str]]:
        pipe = self._client.pipeline(transaction=False)
        for user in users:
            pipe.smembers(self._user_prefix + user)
        return [{token.decode() for token in tokens} for tokens in await pipe.execute()]

    async def _write(self) -> None:
        """Writes a part of what is owed."""
        users = list(islice(self._owed, _AT_ONCE))
        pipe = self._client.pipeline(transaction=False)
        here = [user for user in users if user in self._users]
        gone = [user for user in users if user not in self._users]
        for user in users:
            # Before it is written: who comes or leaves meanwhile is owed again.
            del self._owed[user]
        for user in here:
            pipe.sadd(self._user_prefix + user, self._token)
            pipe.expire(self._user_prefix + user, USER_KEY_S)
        for user in gone:
            pipe.srem(self._user_prefix + user, self._token)
        mine = self._users_prefix + self._token
        if here:
            pipe.sadd(mine, *here)
        if gone:
            pipe.srem(mine, *gone)
        pipe.expire(mine, USER_KEY_S)
        try:
            async with asyncio.timeout(self._options.silence_s):
                await pipe.execute()
        except BaseException:
            self._owed.update(dict.fromkeys(users))
            raise

    def _repeat_some(self) -> None:
        """Announcements run out: all are repeated, a few at each renewal."""
        if not self._sweep:
            self._sweep = list(self._users)
        part = self._lease_s / _RENEWALS / (USER_KEY_S / 2)
        for _ in range(min(int(len(self._users) * part) + 1, len(self._sweep))):
            user = self._sweep.pop()
            if user in self._users:
                self._owed[user] = None

    # Those whom others have left behind

    def _see_off(self, ended: Iterable[Sequence[bytes]]) -> None:
        """Begins to see to the users of nodes whose leases have ended, unless that is under way."""
        now = asyncio.get_running_loop().time()
        living = self.nodes()
        self._ended = {
            token.decode(): now - max(float(ago_ms), 0.0) / 1000
            for token, ago_ms in ended
            if home_of(token.decode(), living) == self._node.node_id
        }
        if self._ended and (self._seeing_off is None or self._seeing_off.done()):
            self._seeing_off = asyncio.get_running_loop().create_task(self._see_them_off())

    async def _see_them_off(self) -> None:
        try:
            for token, at in list(self._ended.items()):
                while users := await self._left_by(token):
                    # The client may have taken the cancellation for an answer that did not come.
                    if self._stopping.is_set():
                        return
                    ago_s = asyncio.get_running_loop().time() - at
                    await self.left_behind(users, ago_s)
                    pipe = self._client.pipeline(transaction=False)
                    for user in users:
                        pipe.srem(self._user_prefix + user, token)
                    pipe.srem(self._users_prefix + token, *users)
                    await pipe.execute()
                await self._client.zrem(self._keys[3], token)
        except Exception as problem:  # noqa: BLE001 - whatever it is, the next renewal names them again
            self.counts.failures += 1
            log.warning("users_left_behind", cause=_cause(problem))

    async def _left_by(self, token: str) -> list[str]:
        found = await self._client.srandmember(self._users_prefix + token, _AT_ONCE)
        return [user.decode() for user in found]

    # The lease

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        interval = self._lease_s / _RENEWALS
        # The client may take a cancellation for an answer that did not come.
        while not self._stopping.is_set():
            try:
                if loop.time() >= self._due:
                    self._due = loop.time() + interval * self._rng.uniform(0.8, 1.0)
                    await self._renew()
                    self._repeat_some()
                while self._owed and self._reachable and loop.time() < self._due:
                    await self._write()
            except _Failures as problem:
                self.counts.failures += 1
                if self._reachable or not self._tried.is_set():
                    log.warning("leases_not_renewed", cause=_cause(problem))
                self._reachable = False
                self._due = min(self._due, loop.time() + _TRIED_AGAIN_S)
            except Exception:
                # A node that renews no more counts as dead for ever.
                self.counts.failures += 1
                log.exception("leases_failed")
                self._due = loop.time() + _TRIED_AGAIN_S
            self._tried.set()
            try:
                self._tell_changes()
            except Exception:
                log.exception("nodes_not_told")
            self._wake.clear()
            if self._stopping.is_set():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._due - loop.time())):
                    if self._reachable:
                        await self._wake.wait()
                    else:
                        await asyncio.sleep(interval)

    async def _renew(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._options.silence_s):
            runs = await self._runs()
            epoch, rows, ended = await self._eval()
        now = loop.time()
        identity = (epoch, *runs)
        late = self._renewed is not None and now - self._renewed > self._lease_s
        if late or identity != self._identity:
            if self._identity is not None:
                log.warning("users_announced_anew", users=len(self._users))
            # Those who are no longer listed had no time to renew.
            self._keep_until = now + self._lease_s
            for held in self._held.values():
                held.until = max(held.until, self._keep_until)
            self._renew_token()
            async with asyncio.timeout(self._options.silence_s):
                epoch, rows, ended = await self._eval()
            self._identity = (epoch, *runs)
        self._see(rows)
        self._see_off(ended)
        self._renewed = loop.time()
        self._old_token = ""
        self._reachable = True
        self.counts.renewals += 1

    def _renew_token(self) -> None:
        self.counts.epochs += 1
        self._old_token = self._old_token or self._token
        self._token = self._random()
        self._owed = dict.fromkeys(self._users)
        self._dead.clear()

    async def _runs(self) -> list[str]:
        """The runs of the servers that answer: another run may have forgotten what was written."""
        if not isinstance(self._client, RedisCluster):
            return [str((await self._client.info("server"))["run_id"])]
        await self._client.initialize()
        asked = [self._run_of(node) for node in self._client.get_primaries()]
        return sorted(await asyncio.gather(*asked))

    async def _run_of(self, server: object) -> str:
        try:
            async with asyncio.timeout(_ANSWERED_WITHIN_S):
                return str((await self._client.info("server", target_nodes=server))["run_id"])
        except _Failures:
            return ""

    async def _eval(self, *, read_only: bool = False) -> tuple[str, list[Any], list[Any]]:
        """Renews the lease unless it is only to read. Gives the epoch; token, ms left and who of each lease; token and
        ms since of leases that ran out.
        """
        epoch, rows, ended = await self._client.eval(
            _RENEW,
            len(self._keys),
            *self._keys,
            int(self._lease_s * 1000),
            self._random(),
            "" if read_only else self._token,
            json.dumps(asdict(self._node)),
            "" if read_only else self._old_token,
            int(max(10 * self._lease_s, USER_KEY_S) * 1000),
        )
        return epoch.decode(), rows, ended

    def _see(self, rows: Iterable[Sequence[bytes]]) -> None:
        now = asyncio.get_running_loop().time()
        listed: dict[str, _Held] = {}
        for token, left_ms, info in rows:
            left_s = float(left_ms) / 1000
            node = _node(info)
            if left_s > 0 and node is not None:
                listed[token.decode()] = _Held(node, now + left_s)
        if now < self._keep_until:
            ids = {held.node.node_id for held in listed.values()}
            listed |= {
                token: held
                for token, held in self._held.items()
                if held.until > now and held.node.node_id not in ids
            }
        self._held = listed

    def _tell_changes(self) -> None:
        nodes = frozenset(self.nodes().values())
        if nodes != self._told:
            self._told = nodes
            self.nodes_changed()

    def _random(self) -> str:
        return f"{self._rng.getrandbits(96):024x}"


def _node(info: bytes) -> NodeInfo | None:
    """Who a lease is of; None when it is not understood. What newer nodes say besides is passed over."""
    try:
        told = json.loads(info)
    except ValueError:
        return None
    if not isinstance(told, dict):
        return None
    return NodeInfo(**{name: str(told.get(name, "")) for name in ("node_id", "address", "version")})


def _cause(problem: BaseException) -> str:
    return str(problem) or type(problem).__name__
