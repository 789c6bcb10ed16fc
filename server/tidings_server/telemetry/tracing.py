"""The tracing port: what messaging, delivery and rpc say of a traced command, without a word of
OpenTelemetry.

    span = tracer.command("send_message", parent=traceparent)    # None for nearly every command
    if span is not None:
        step = tracer.child(span, "commit", links=others)
        tracer.end(step)
        tracer.end(span)

Only sampled commands have a span, so the hot path pays one call and one comparison. A commit that
serves several sampled commands is a child of the first and linked to the others. The steps are
named "commit", "publish" and "delivery".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Span(Protocol):
    """One timed step of a sampled command. Opaque: it goes back to the tracer that made it."""

    @property
    def traceparent(self) -> str:
        """The step as a W3C trace context header, to be carried to another process."""
        ...


class Tracer(Protocol):
    """Makes spans. Its methods never raise and never block."""

    def command(self, name: str, *, parent: str = "", link: str = "") -> Span | None:
        """The first span of a command, or None when the command is not sampled.

        `parent` is the W3C traceparent of a unary call: a sampled parent has its children sampled,
        up to a number a second. `link` is the traceparent of the opening of a Chat stream: its
        commands begin traces of their own, which point to it, since a trace that lasts as long as a
        connection helps nobody. A malformed header counts as none.
        """
        ...

    def child(self, span: Span, name: str, *, links: Iterable[Span] = ()) -> Span:
        """A step of a sampled command, linked to the other commands that it serves too."""
        ...

    def set(self, span: Span, key: str, value: str | int) -> None:
        """Notes a fact: "conversation", "seq", "entries", "sessions". Never a text, a token or a
        name of a person.
        """
        ...

    def end(self, span: Span, error: str = "") -> None:
        """Ends a step. `error` is the name of an `errors.Reason`, empty when it went well. A second
        end is ignored.
        """
        ...


# ruff: noqa: ARG002 (nothing is what it makes of its arguments)
class NoTracer:
    """Samples nothing."""

    def command(self, name: str, *, parent: str = "", link: str = "") -> Span | None:
        """None."""
        return None

    def child(self, span: Span, name: str, *, links: Iterable[Span] = ()) -> Span:
        """The span itself."""
        return span

    def set(self, span: Span, key: str, value: str | int) -> None:
        """Does nothing."""

    def end(self, span: Span, error: str = "") -> None:
        """Does nothing."""


NO_TRACER: Tracer = NoTracer()
