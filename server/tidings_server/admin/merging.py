"""Merging: what several nodes know of an entry's way, put together as one explanation.

Pure. What is durable every node tells alike; what each adds is its own memory. Who did not answer is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..core.admin import (
    DeliveryExplained,
    DeliveryFact,
    DeliveryOutcome,
    FactCause,
    FactState,
)
from ..core.admin import DeliveryStep as Step
from .explanation import NOTES

_BEST_FIRST = (
    DeliveryOutcome.READ,
    DeliveryOutcome.DELIVERED,
    DeliveryOutcome.SENT,
    DeliveryOutcome.WAITING,
    DeliveryOutcome.IN_A_GAP,
)
_SETTLED = (DeliveryOutcome.NOT_COMMITTED, DeliveryOutcome.NOT_FOR_USER)


def merged(
    own: DeliveryExplained, others: Mapping[str, DeliveryExplained | None]
) -> DeliveryExplained:
    """This node's explanation with what the others told; None stands for one that did not answer."""
    told = {node_id: answer for node_id, answer in others.items() if answer is not None}
    elsewhere = {f.device_id for answer in told.values() for f in answer.facts if f.session_id}
    facts = [f for f in own.facts if not _answered(f, told, elsewhere)]
    named = {f.node_id for f in facts if f.cause is FactCause.OTHER_NODE}
    for node_id, answer in sorted(others.items()):
        if answer is not None:
            facts += [
                replace(f, node_id=node_id, text=f"Node {node_id}: {f.text}")
                for f in answer.facts
                if _its_own(f, node_id)
            ]
        elif node_id not in named:
            text = f"Node {node_id} did not answer: what it remembers is not known."
            facts.append(
                DeliveryFact(
                    Step.OFFERED if own.entry is not None else Step.ACCEPTED,
                    FactState.UNKNOWN,
                    text,
                    cause=FactCause.OTHER_NODE,
                    node_id=node_id,
                )
            )
    facts.sort(key=lambda fact: fact.step)
    notes = sorted(
        (note for answer in (own, *told.values()) for note in answer.notes),
        key=lambda note: note.time_ms,
    )
    outcome = own.outcome
    if own.entry is not None and outcome not in _SETTLED:
        outcomes = {own.outcome, *(answer.outcome for answer in told.values())}
        outcome = next((o for o in _BEST_FIRST if o in outcomes), outcome)
    return replace(own, outcome=outcome, facts=tuple(facts), notes=tuple(notes[-NOTES:]))


def _answered(
    fact: DeliveryFact, told: Mapping[str, DeliveryExplained], elsewhere: set[str]
) -> bool:
    """Whether a fact only says that another node may know, which has told it by now."""
    if fact.cause is not FactCause.OTHER_NODE:
        return False
    return fact.node_id in told or (not fact.node_id and fact.device_id in elsewhere)


def _its_own(fact: DeliveryFact, node_id: str) -> bool:
    """Whether a fact is from the memory of the node that tells it."""
    if fact.session_id:
        return True
    if fact.node_id != node_id or fact.cause is FactCause.OTHER_NODE:
        return False
    return fact.state is FactState.YES or fact.step in (Step.ACCEPTED, Step.OFFERED)
