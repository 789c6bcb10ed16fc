"""Messages: what their senders and others do with them once they are posted."""

from __future__ import annotations

from ..core.commands import DeleteMessage, EditMessage, MessageChanged, SetPin, SetReaction
from ..core.principal import Principal
from .message_changes import Delete, Edit, Pin, React
from .proposals import Submits, commit


class Messages:
    """Handles the commands that change messages. Raises DomainError."""

    def __init__(self, submits: Submits) -> None:
        self._submits = submits

    async def edit(self, caller: Principal, command: EditMessage) -> MessageChanged:
        """Gives a message another content."""
        committed = await commit(
            self._submits,
            lambda done: Edit(
                command.conversation_id,
                command.id,
                caller.user_id,
                done,
                command.seq,
                command.content,
            ),
        )
        return MessageChanged(EditMessage, committed.seq, committed.time_ms)

    async def delete(self, caller: Principal, command: DeleteMessage) -> MessageChanged:
        """Deletes a message for all."""
        committed = await commit(
            self._submits,
            lambda done: Delete(
                command.conversation_id, command.id, caller.user_id, done, command.seq
            ),
        )
        return MessageChanged(DeleteMessage, committed.seq, committed.time_ms)

    async def react(self, caller: Principal, command: SetReaction) -> MessageChanged:
        """Sets the caller's reaction to a message, or takes it back."""
        committed = await commit(
            self._submits,
            lambda done: React(
                command.conversation_id,
                command.id,
                caller.user_id,
                done,
                command.seq,
                command.reaction,
            ),
        )
        return MessageChanged(SetReaction, committed.seq, committed.time_ms)

    async def pin(self, caller: Principal, command: SetPin) -> MessageChanged:
        """Pins a message, or ends that."""
        committed = await commit(
            self._submits,
            lambda done: Pin(
                command.conversation_id,
                command.id,
                caller.user_id,
                done,
                command.seq,
                pinned=command.pinned,
            ),
        )
        return MessageChanged(SetPin, committed.seq, committed.time_ms)
