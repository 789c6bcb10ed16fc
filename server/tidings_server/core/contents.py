"""Contents: what the server looks at in what a message says."""

from __future__ import annotations

from .commands import ChangeId
from .records import record


@record(frozen=True, slots=True)
class Content:
    """What a serialised `tidings.v1.MessageContent` refers to.

    `reply_to` is the id of the message that it replies to, or None; `mentioned` are users, without doubles, and
    `everybody` may be mentioned too.
    """

    reply_to: ChangeId | None = None
    mentioned: tuple[str, ...] = ()
    everybody: bool = False

    @property
    def mentions(self) -> bool:
        """Whether anybody is mentioned."""
        return self.everybody or bool(self.mentioned)


MAX_MENTIONS = 50
"""How many mentions a message has at most."""

PLAIN = Content()
"""That of a message which refers to nothing."""
