"""The contract of stores: memberships, registers and presence."""

from __future__ import annotations

import itertools
from dataclasses import replace

from tests.contract.contract_base import OnAMedium
from tests.contract.samples import LOG, OTHER, membership
from tidings_server.storage.base import CursorRow, PresenceRow, Receipt, Store

# In code point order. UTF-16 would put the last before the last but one.
USERS_IN_ORDER = [
    "A",
    "Z",
    "a",
    "z",
    "~",
    "é",
    "ж",
    "愛",
    "\uffee",
    "\N{DESERET CAPITAL LETTER LONG I}",
]


class RowContract(OnAMedium):
    # Memberships

    async def test_the_newer_membership_wins_in_any_order(self, store: Store) -> None:
        old, new = membership("ann", 3), membership("ann", 8, current=False)
        for order in itertools.permutations([old, new, old]):
            log = f"log {[row.as_of for row in order]}"
            for row in order:
                await store.put_memberships(log, [row])
            assert await store.memberships(log, ["ann"]) == {"ann": new}
            await store.put_memberships(f"{log} at once", order)
            assert await store.memberships(f"{log} at once", ["ann"]) == {"ann": new}

    async def test_of_memberships_folded_equally_far_the_stored_one_stays(
        self, store: Store
    ) -> None:
        first = membership("ann", 3)
        await store.put_memberships(LOG, [first])
        await store.put_memberships(LOG, [membership("ann", 3, current=False)])
        assert await store.memberships(LOG, ["ann"]) == {"ann": first}

    async def test_memberships_are_found_both_ways(self, store: Store) -> None:
        logs = [f"log-{n}" for n in range(200)]
        for n, log in enumerate(logs):
            await store.put_memberships(log, [membership("ann", n + 3), membership("bob", 4)])
        await store.put_memberships(LOG, [membership(f"user-{n}", 3) for n in range(300)])
        asked = [f"user-{n}" for n in range(0, 600, 3)]
        found = await store.memberships(LOG, asked)
        assert found == {f"user-{n}": membership(f"user-{n}", 3) for n in range(0, 300, 3)}
        mine = await store.memberships_of("ann", [*logs, LOG, "nowhere"])
        assert mine == {log: membership("ann", n + 3) for n, log in enumerate(logs)}
        some = {log: membership("ann", n + 3) for n, log in enumerate(logs) if n != 7}
        assert await store.memberships_of("ann", list(some)) == some
        assert await store.memberships_of("nobody", logs) == {}
        assert await store.memberships(LOG, []) == {}
        assert await store.memberships_of("ann", []) == {}

    async def test_current_members_are_listed_in_code_point_order(self, store: Store) -> None:
        current = [membership(user, 5) for user in USERS_IN_ORDER]
        gone = [membership(f"{user}!", 5, current=False) for user in USERS_IN_ORDER]
        await store.put_memberships(LOG, [*reversed(current), *gone])
        await store.put_memberships(OTHER, [membership("elsewhere", 1)])

        async def listed(after: str, limit: int) -> list[str]:
            rows = await store.list_memberships(LOG, after_user=after, limit=limit)
            assert all(row.current for row in rows)
            return [row.user_id for row in rows]

        assert await listed("", 100) == USERS_IN_ORDER
        assert await store.list_memberships(LOG, after_user="", limit=100) == current
        assert await listed("", 3) == USERS_IN_ORDER[:3]
        assert await listed("", 0) == []
        for n, user in enumerate(USERS_IN_ORDER):
            assert await listed(user, 2) == USERS_IN_ORDER[n + 1 : n + 3]
        assert await listed("zz", 1) == ["~"]
        # Who leaves is listed no more; who comes back is listed again.
        await store.put_memberships(LOG, [membership("Z", 6, current=False)])
        assert await listed("A", 1) == ["a"]
        await store.put_memberships(LOG, [membership("Z", 7)])
        assert await listed("A", 1) == ["Z"]

    async def test_user_logs_only_grow(self, store: Store) -> None:
        await store.put_user_logs(LOG, ["ann", "bob"])
        await store.put_user_logs(OTHER, (user for user in ["ann", "ann"]))
        await store.put_user_logs(LOG, ["ann"])
        await store.put_user_logs(LOG, [])
        assert sorted(await store.user_logs("ann")) == [LOG, OTHER]
        assert await store.user_logs("bob") == [LOG]
        assert await store.user_logs("carl") == []

    # Registers

    async def test_cursors_only_move_forward(self, store: Store) -> None:
        def row(seq: int, device: str = "phone", log: str = LOG) -> CursorRow:
            return CursorRow("ann", device, log, seq)

        await store.put_cursors([row(5), row(9, "pc"), row(2, log=OTHER), row(0, "new")])
        await store.put_cursors([row(3), row(9, "pc"), row(4, log=OTHER), row(3, log=OTHER)])
        await store.put_cursors([])
        assert await store.cursors("ann", "phone") == {LOG: 5, OTHER: 4}
        assert await store.cursors("ann", "pc") == {LOG: 9}
        assert await store.cursors("ann", "new") == {LOG: 0}
        assert await store.cursors("bob", "phone") == {}

    async def test_receipts_only_move_forward(self, store: Store) -> None:
        rows = [
            Receipt(LOG, "ann", 5, 3, 2),
            Receipt(LOG, "ann", 4, 4, 3),
            Receipt(LOG, "ann", 7),
            Receipt(LOG, "ann", 1, 2, 9),
        ]
        for n, order in enumerate(itertools.permutations(rows)):
            moved = [replace(row, log=f"log-{n}") for row in order]
            for row in moved[:2]:
                await store.put_receipts([row])
            await store.put_receipts([*moved[2:], moved[0]])
            found = await store.receipts_of("ann", [f"log-{n}"])
            assert found == {f"log-{n}": Receipt(f"log-{n}", "ann", 7, 4, 3)}

    async def test_a_read_receipt_keeps_its_ordinal(self, store: Store) -> None:
        await store.put_receipts([Receipt(LOG, "ann", 3, 3, 2)])
        await store.put_receipts([Receipt(LOG, "ann", 3, 3, 8), Receipt(LOG, "ann", 4, 0, 9)])
        assert await store.receipts_of("ann", [LOG]) == {LOG: Receipt(LOG, "ann", 4, 3, 2)}

    async def test_receipts_of_a_user_and_of_a_conversation(self, store: Store) -> None:
        logs = [f"log-{n}" for n in range(100)]
        await store.put_receipts([Receipt(log, "ann", n) for n, log in enumerate(logs)])
        await store.put_receipts([Receipt(LOG, user, 1) for user in reversed(USERS_IN_ORDER)])
        found = await store.receipts_of("ann", [*logs[::2], LOG])
        assert found == {log: Receipt(log, "ann", n) for n, log in enumerate(logs) if n % 2 == 0}
        assert await store.receipts_of("ann", []) == {}

        async def listed(after: str, limit: int) -> list[str]:
            rows = await store.list_receipts(LOG, after_user=after, limit=limit)
            assert all(row == Receipt(LOG, row.user_id, 1) for row in rows)
            return [row.user_id for row in rows]

        assert await listed("", 100) == USERS_IN_ORDER
        assert await listed("", 2) == USERS_IN_ORDER[:2]
        assert await listed("", 0) == []
        for n, user in enumerate(USERS_IN_ORDER):
            assert await listed(user, 2) == USERS_IN_ORDER[n + 1 : n + 3]
        assert await store.list_receipts("nowhere", after_user="", limit=9) == []

    # Presence

    async def test_presence_keeps_the_latest_of_each(self, store: Store) -> None:
        rows = [
            PresenceRow("ann", 500),
            PresenceRow("ann", 0, 40, 2, "lunch"),
            PresenceRow("ann", 400, 50, 3, "away \0 \N{BICYCLE}"),
            PresenceRow("ann", 300, 0, 7, "not a status"),
        ]
        for n, order in enumerate(itertools.permutations(rows)):
            moved = [replace(row, user_id=f"ann-{n}") for row in order]
            for row in moved[:2]:
                await store.put_presence([row])
            await store.put_presence([*moved[2:], moved[0]])
            assert await store.presence([f"ann-{n}", "nobody"]) == {
                f"ann-{n}": PresenceRow(f"ann-{n}", 500, 50, 3, "away \0 \N{BICYCLE}")
            }
        assert await store.presence([]) == {}

    async def test_a_status_needs_its_time(self, store: Store) -> None:
        await store.put_presence([PresenceRow("ann", 0, 0, 7, "not a status")])
        assert await store.presence(["ann"]) == {"ann": PresenceRow("ann")}
        await store.put_presence([PresenceRow("ann", 1, 5, 1, "first")])
        await store.put_presence([PresenceRow("ann", 1, 5, 2, "equal")])
        assert await store.presence(["ann"]) == {"ann": PresenceRow("ann", 1, 5, 1, "first")}
