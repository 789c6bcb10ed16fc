"""One person's session: a client, the model that its events make, and what the person can do. Without a screen."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final

from tidings import (
    Availability,
    Client,
    ConnectionState,
    Conversation,
    Member,
    MemberRole,
    Message,
    MessageFailed,
    MessageFold,
    Presence,
    TidingsError,
    Unavailable,
)
from tidings.models import FOR_GOOD

from .keeping import Keeper, Wants
from .model import Changes, Chat, Model
from .model.timeline import as_it_is

_log = logging.getLogger(__name__)

_EVENTS_AT_ONCE: Final = 64
_HELD: Final = 400
"""How many entries of a conversation are held on when nobody looks at the older ones."""


class ChatSession:
    """A connected person. Use it as an async context manager.

    Entering opens the client's state and begins to connect; it raises StateError when the state can't be used.

    Args:
        make_client: Makes the client; called again by `restart`.

    Attributes:
        model: What is known.
        wants: What is shown.
        faults: What went wrong and should not have, for those who look for it.
    """

    def __init__(self, make_client: Callable[[], Client]) -> None:
        self._make_client = make_client
        self._client: Client | None = None
        self._keeper: Keeper | None = None
        self._pump: asyncio.Task[None] | None = None
        self._failed: dict[str, MessageFailed] = {}
        self._told = False
        self.model = Model()
        self.wants = Wants()
        self.faults: list[BaseException] = []
        self.on_change: Callable[[], None] = lambda: None
        """Called when the model has changed, and then not again before `take_changes`."""
        self.on_fault: Callable[[BaseException], None] = lambda _: None
        """Called with what should not have happened."""

    @property
    def client(self) -> Client:
        """The client. Only within the context."""
        assert self._client is not None
        return self._client

    @property
    def up(self) -> bool:
        """Whether the server can be asked now."""
        return self.model.up

    async def __aenter__(self) -> ChatSession:
        await self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()

    async def _begin(self) -> None:
        client = self._make_client()
        await client.__aenter__()
        self._client = client
        self._pump = asyncio.get_running_loop().create_task(self._run(client))

    async def _end(self) -> None:
        await self._drop_keeper()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    async def restart(self) -> None:
        """Connect anew after the session has ended for good."""
        await self._end()
        await self._begin()

    # Events

    async def _run(self, client: Client) -> None:
        count = 0
        try:
            async for event in client.events():
                self.model.me = client.user_id or self.model.me
                self.model.fold(event)
                if isinstance(event, MessageFailed):
                    # Applied when the person has dealt with it: so it isn't lost by a restart.
                    self._failed[event.message_id] = event
                else:
                    client.applied(event)
                if isinstance(event, ConnectionState):
                    await self._follow()
                elif self._keeper is not None:
                    self._keeper.wake()
                self.changed()
                count += 1
                if count % _EVENTS_AT_ONCE == 0:
                    # A long backlog must not keep the screen from being drawn.
                    await asyncio.sleep(0)
        except TidingsError as error:
            # The state of the connection has told it already.
            _log.info("the session has ended: %s", error)
        except Exception as error:  # noqa: BLE001
            self._fault(error)

    async def _follow(self) -> None:
        if self.up:
            if self._keeper is None:
                self._keeper = Keeper(
                    self.client,
                    self.model,
                    self.wants,
                    changed=self.changed,
                    fault=self._fault,
                )
                self._keeper.start()
        else:
            await self._drop_keeper()

    async def _drop_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.stop()

    def changed(self) -> None:
        """The model may have changed: tell whoever shows it."""
        if self.model.changes and not self._told:
            self._told = True
            self.on_change()

    def take_changes(self) -> Changes:
        """What has changed since the last time."""
        self._told = False
        return self.model.take_changes()

    def _fault(self, error: BaseException) -> None:
        _log.error("a fault of the program", exc_info=error)
        self.faults.append(error)
        self.on_fault(error)

    # What the person looks at

    def open(self, conversation_id: str) -> Chat | None:
        """A conversation is shown; its messages come as soon as they can be had."""
        before = self.wants.opened(self.model)
        self.wants.open = conversation_id
        chat = self.model.chats.get(conversation_id)
        if before is not None and before is not chat:
            before.timeline.trim(_HELD)
        if chat is not None and self._keeper is not None:
            self._keeper.open(chat)
            self._keeper.wake()
            self._keeper.look()
        self.changed()
        return chat

    def show(self, conversation_ids: Iterable[str]) -> None:
        """These conversations are in sight in the list."""
        visible = tuple(conversation_ids)
        if visible != self.wants.visible:
            new = not set(visible) <= set(self.wants.visible)
            self.wants.visible = visible
            if new and self._keeper is not None:
                self._keeper.wake()
                self._keeper.look()

    def load_older(self, chat: Chat) -> None:
        """The beginning of what is held of a conversation comes into sight."""
        if self._keeper is not None:
            self._keeper.older(chat)

    def relax(self, chat: Chat) -> None:
        """Nobody looks at the older messages of a conversation: hold no more than is good for speed."""
        if len(chat.timeline.entries) > 2 * _HELD:
            chat.timeline.trim(_HELD)

    def saw(self, chat: Chat, seq: int) -> None:
        """The person has seen everything up to a position."""
        if seq <= chat.read_seq or chat.left:
            return
        self.model.read(chat, seq)
        self.wants.reads[chat.conversation_id] = seq
        if self._keeper is not None:
            self._keeper.wake()
        self.changed()

    # Messages

    async def send(self, chat: Chat, text: str, *, reply_to: str | None = None) -> None:
        """Send a message, now or when there is a connection. Raises TidingsError."""
        await self.client.send(chat.conversation_id, text, reply_to=reply_to)

    async def retry(self, chat: Chat, message_id: str) -> None:
        """Send again what was refused. Raises TidingsError."""
        own = chat.timeline.outgoing.get(message_id)
        if own is not None and own.error is not None:
            await self.send(chat, own.text, reply_to=own.reply_to)
            await self.discard(chat, message_id)

    async def discard(self, chat: Chat, message_id: str) -> bool:
        """Give up a message that waits or was refused; returns whether it could still be. Raises StateError."""
        failed = self._failed.pop(message_id, None)
        if failed is not None:
            self.client.applied(failed)
        elif not await self.client.discard(message_id):
            return False
        chat.timeline.forget(message_id)
        self.model.touch(chat)
        self.model.changes.connection = True
        self.changed()
        return True

    # Conversations

    def _connected(self) -> Client:
        if not self.up:
            raise Unavailable("there is no connection")
        return self.client

    async def create_direct(self, user_id: str) -> Chat:
        """The conversation with a user. Raises TidingsError."""
        return self._told_of(await self._connected().create_direct(user_id))

    async def create_group(self, title: str, user_ids: Iterable[str]) -> Chat:
        """A new group. Raises TidingsError."""
        return self._told_of(await self._connected().create_group(title, user_ids))

    def _told_of(self, conversation: Conversation) -> Chat:
        chat = self.model.tell(conversation)
        self.changed()
        return chat

    async def add(self, chat: Chat, user_ids: Iterable[str]) -> bool:
        """Add users to a group; returns whether any was none. Raises TidingsError."""
        return await self._connected().add_members(chat.conversation_id, user_ids) > 0

    async def remove(self, chat: Chat, user_id: str) -> bool:
        """Remove a member from a group; returns whether it was one. Raises TidingsError."""
        return await self._connected().remove_member(chat.conversation_id, user_id) > 0

    async def edit(self, chat: Chat, seq: int, text: str, reply_to: str | None) -> None:
        """Give an own message another text. Raises TidingsError."""
        connected = self._connected()
        await connected.edit_message(chat.conversation_id, seq, text, reply_to=reply_to)

    async def react(self, chat: Chat, seq: int, reaction: str) -> None:
        """React to a message, or take that back. Raises TidingsError."""
        await self._connected().set_reaction(chat.conversation_id, seq, reaction)

    async def pin(self, chat: Chat, seq: int, *, pinned: bool) -> None:
        """Pin a message, or end that. Raises TidingsError."""
        await self._connected().set_pin(chat.conversation_id, seq, pinned=pinned)

    async def pins(self, chat: Chat) -> list[Message]:
        """The pinned messages of a conversation, as they are now. Raises TidingsError."""
        fold = MessageFold()
        found = await self._connected().pins(chat.conversation_id)
        for message in found:
            fold.take(message)
        held = (fold.get(message.seq) for message in found)
        return [as_it_is(one) for one in held if one is not None]

    async def delete(self, chat: Chat, seq: int) -> None:
        """Delete a message for everybody. Raises TidingsError."""
        await self._connected().delete_message(chat.conversation_id, seq)

    async def set_role(self, chat: Chat, user_id: str, role: MemberRole) -> None:
        """Give a member of a group a role. Raises TidingsError."""
        await self._connected().set_role(chat.conversation_id, user_id, role)

    async def transfer(self, chat: Chat, user_id: str) -> None:
        """Make another member the owner. Raises TidingsError."""
        await self._connected().transfer_ownership(chat.conversation_id, user_id)

    async def mute(self, chat: Chat, user_id: str, minutes: int | None, *, lifted: bool) -> None:
        """Mute a member for some minutes, or for good; or take that back. Raises TidingsError."""
        until = None if lifted else _until(minutes)
        await self._connected().set_mute(chat.conversation_id, user_id, until)

    async def ban(self, chat: Chat, user_id: str, minutes: int | None, *, lifted: bool) -> None:
        """Ban a member for some minutes, or for good; or take that back. Raises TidingsError."""
        until = None if lifted else _until(minutes)
        await self._connected().set_ban(chat.conversation_id, user_id, until)

    async def invite(self, chat: Chat, uses: int, minutes: int) -> str:
        """A link by which so many can join for a while. Raises TidingsError."""
        code = secrets.token_urlsafe(24)
        await self._connected().set_invitation(chat.conversation_id, code, uses, _until(minutes))
        return f"{chat.conversation_id}/{code}"

    async def join(self, link: str) -> Chat:
        """Join by a link. Raises TidingsError."""
        conversation_id, _, code = link.partition("/")
        client = self._connected()
        await client.join(conversation_id, code)
        return self._told_of(await client.get_conversation(conversation_id))

    async def update(
        self,
        chat: Chat,
        *,
        title: str | None = None,
        description: str | None = None,
        frozen: bool | None = None,
    ) -> None:
        """Change what is said of a group. Raises TidingsError."""
        await self._connected().update_conversation(
            chat.conversation_id, title=title, description=description, frozen=frozen
        )

    async def leave(self, chat: Chat) -> None:
        """Leave a group. Raises TidingsError."""
        await self._connected().leave(chat.conversation_id)

    async def members(self, chat: Chat, most: int) -> list[Member]:
        """The first members of a conversation. Raises TidingsError."""
        members = []
        async for member in self._connected().members(chat.conversation_id):
            members.append(member)
            if len(members) == most:
                break
        return members

    async def set_status(self, availability: Availability, text: str) -> Presence:
        """Say how the person is. Raises TidingsError."""
        return await self._connected().set_status(availability, text)


def _until(minutes: int | None) -> datetime:
    return FOR_GOOD if minutes is None else datetime.now(UTC) + timedelta(minutes=minutes)
