"""Two nodes on one keyspace of a real Cassandra and the oracle, driven by the same random operations, never differ."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import initialize, rule, run_state_machine_as_test

from tests.contract.keyspaces import Keyspaces
from tests.contract.store_machine import StoreMachine
from tidings_server.storage.base import Store


class ScyllaMachine(StoreMachine):
    """`store` is the one node or the other: each has its own idea of where logs end, which the other makes old."""

    takes_appends_in_order = False

    keyspaces: Keyspaces

    @initialize()
    def begin(self) -> None:
        self.keyspaces.reset()
        self.medium = self.keyspaces.take()
        self.store = self.opened(self.medium)
        self.other: Store = self.opened(self.medium)
        self.incarnation = self.store.incarnation

    @rule()
    def change_nodes(self) -> None:
        self.store, self.other = self.other, self.store
        assert self.store.incarnation == self.incarnation

    def teardown(self) -> None:
        if hasattr(self, "other"):
            self.run(self.other.close())
        super().teardown()


def test_nodes_on_a_keyspace_agree_with_the_oracle(keyspaces: Keyspaces) -> None:
    class OnThem(ScyllaMachine):
        pass

    OnThem.keyspaces = keyspaces
    run_state_machine_as_test(
        OnThem,
        settings=settings(
            max_examples=10,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
