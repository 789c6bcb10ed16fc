"""Keeps the model level with the server while there is a connection: what no event brings is asked for here.

What is asked for: the list, conversations that were joined or are in doubt, the newest messages of what is shown,
marks, quoted messages, presence. What is told: how far the own user has read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, TypeVar

from tidings import (
    Client,
    Entry,
    HistoryOrder,
    InvalidArgument,
    Message,
    NotFound,
    ScaleClass,
    TidingsError,
)

from .model import Chat, Loading, Model

PAGE: Final = 60
"""How many entries are fetched at a time for a conversation."""
_PREVIEW: Final = 5
_RETRY_DELAY: Final = 3.0
_READ_DELAY: Final = 0.2
_PRESENCE_INTERVAL: Final = 15.0
_PRESENCE_USERS: Final = 500

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class Keeper:
    """The work of one connection; `stop` ends it, and another keeper goes on where it was.

    Args:
        client: The client.
        model: What is kept level.
        wants: What is shown.
        changed: Called when the model has changed.
        fault: Called with what should not have happened.
    """

    def __init__(
        self,
        client: Client,
        model: Model,
        wants: Wants,
        *,
        changed: Callable[[], None],
        fault: Callable[[BaseException], None],
    ) -> None:
        self._client = client
        self._model = model
        self._wants = wants
        self._changed = changed
        self._fault = fault
        self._wake = asyncio.Event()
        self._reads = asyncio.Event()
        self._presence = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._older: set[str] = set()
        self._listed = False
        self._marked: set[str] = set()
        self._previewed: set[str] = set()

    def start(self) -> None:
        """Begin."""
        chat = self._wants.opened(self._model)
        if chat is not None:
            self.open(chat)
        if self._wants.reads:
            self._reads.set()
        self._spawn(self._keep_level())
        self._spawn(self._tell_reads())
        self._spawn(self._watch_presence())

    async def stop(self) -> None:
        """Let go of everything that is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """What is wanted, or the model, has changed."""
        self._wake.set()
        if self._wants.reads:
            self._reads.set()

    def look(self) -> None:
        """Other people are shown: ask for their presence now."""
        self._presence.set()

    # History

    def open(self, chat: Chat) -> None:
        """Fetch the newest page of a conversation, if nothing is there."""
        if chat.timeline.loading is Loading.NOTHING:
            generation = chat.timeline.begin()
            self._model.touch(chat)
            self._spawn(self._load_newest(chat, generation))

    def older(self, chat: Chat) -> None:
        """Fetch the page before what is held, if there is one and it isn't being fetched."""
        timeline = chat.timeline
        if (
            timeline.loading is Loading.LOADED
            and not timeline.at_top
            and chat.conversation_id not in self._older
        ):
            self._older.add(chat.conversation_id)
            self._spawn(self._load_older(chat, timeline.generation, timeline.low))

    async def _load_newest(self, chat: Chat, generation: int) -> None:
        try:
            page = await _take(self._client.history(chat.conversation_id, page_size=PAGE), PAGE)
        except asyncio.CancelledError:
            if generation == chat.timeline.generation:
                chat.timeline.drop()
            raise
        except TidingsError as error:
            chat.timeline.fail(generation, error)
            self._model.touch(chat)
        else:
            self._model.load(chat, generation, page, at_top=_is_top(chat, page))
        self._changed()
        self.wake()

    async def _load_older(self, chat: Chat, generation: int, low: int) -> None:
        try:
            page: list[Entry] = []
            if low > max(1, chat.join_seq):
                page = await _take(
                    self._client.history(
                        chat.conversation_id,
                        low - 1,
                        order=HistoryOrder.DESCENDING,
                        page_size=PAGE,
                    ),
                    PAGE,
                )
        except TidingsError:
            # It is asked for again when somebody scrolls there again.
            return
        finally:
            self._older.discard(chat.conversation_id)
        self._model.load(chat, generation, page, at_top=_is_top(chat, page))
        self._changed()
        self.wake()

    # What is asked for in the background

    async def _keep_level(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._list()
                await self._resolve_stale()
                self._open_wanted()
                await self._fetch_marks()
                await self._fetch_quotes()
                await self._fetch_previews()
            except TidingsError as error:
                await self._pause(error)
                self._wake.set()
            await self._wake.wait()

    async def _pause(self, error: TidingsError) -> None:
        _log.info("to be tried again: %s", error)
        await asyncio.sleep(_RETRY_DELAY)

    async def _list(self) -> None:
        if self._listed:
            return
        async for conversation in self._client.conversations():
            self._model.tell(conversation)
            self._changed()
        self._listed = self._wants.listed = True
        self._presence.set()
        # An empty list is news, too.
        self._model.changes.order = True
        self._changed()

    async def _resolve_stale(self) -> None:
        for chat in self._model.stale():
            # It may become stale again while this one is asked for.
            chat.stale = False
            try:
                conversation = await self._client.get_conversation(chat.conversation_id)
            except NotFound:
                chat.left = True
                self._model.touch(chat)
            except BaseException:
                chat.stale = True
                raise
            else:
                self._model.tell(conversation)
            self._changed()

    def _open_wanted(self) -> None:
        chat = self._wants.opened(self._model)
        if chat is not None and chat.timeline.problem is None:
            self.open(chat)

    async def _fetch_marks(self) -> None:
        chat = self._wants.opened(self._model)
        if chat is None or chat.left or chat.scale_class is not ScaleClass.SMALL:
            return
        conversation_id = chat.conversation_id
        if conversation_id in self._marked:
            return
        with contextlib.suppress(NotFound):
            members = [member async for member in self._client.members(conversation_id)]
            receipts = [receipt async for receipt in self._client.receipts(conversation_id)]
            chat.marks.load(self._model.me, members, receipts)
        self._marked.add(conversation_id)
        self._model.touch(chat)
        self._changed()

    async def _fetch_quotes(self) -> None:
        chat = self._wants.opened(self._model)
        if chat is None:
            return
        for message_id in chat.timeline.missing_quotes():
            quoted: Entry | None = None
            with contextlib.suppress(NotFound, InvalidArgument):
                quoted = await self._client.get_message(chat.conversation_id, message_id=message_id)
            chat.timeline.quote(message_id, quoted if isinstance(quoted, Message) else None)
            self._model.touch(chat)
            self._changed()

    async def _fetch_previews(self) -> None:
        for conversation_id in self._wants.visible:
            chat = self._model.chats.get(conversation_id)
            if chat is None or chat.last is not None or conversation_id in self._previewed:
                continue
            entries: list[Entry] = []
            with contextlib.suppress(NotFound):
                entries = await _take(
                    self._client.history(conversation_id, page_size=_PREVIEW), _PREVIEW
                )
            self._previewed.add(conversation_id)
            self._model.preview(conversation_id, entries)
            self._changed()

    async def _tell_reads(self) -> None:
        reads = self._wants.reads
        while True:
            await self._reads.wait()
            # What is read in one go is told in one go.
            await asyncio.sleep(_READ_DELAY)
            self._reads.clear()
            for conversation_id, seq in list(reads.items()):
                try:
                    # Who isn't a member any more has nothing to read there.
                    with contextlib.suppress(NotFound):
                        await self._client.mark_read(conversation_id, seq)
                except TidingsError as error:
                    await self._pause(error)
                    self._reads.set()
                    break
                if reads.get(conversation_id) == seq:
                    del reads[conversation_id]

    async def _watch_presence(self) -> None:
        while True:
            self._presence.clear()
            peers = self._wants.peers(self._model)[:_PRESENCE_USERS]
            try:
                if peers:
                    self._model.set_presence(await self._client.presence(peers))
                    self._changed()
            except TidingsError as error:
                await self._pause(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PRESENCE_INTERVAL):
                    await self._presence.wait()

    # Tasks

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001
            # A task that ended unseen would leave a part of the screen behind.
            self._fault(error)


class Wants:
    """What is shown and what is to be told, whatever the connection does.

    Attributes:
        open: The conversation that is open, or empty.
        visible: The conversations that are in sight in the list.
        reads: How far the own user has read what the server doesn't know yet, by conversation.
        listed: Whether the list was fetched at least once.
    """

    def __init__(self) -> None:
        self.open = ""
        self.visible: tuple[str, ...] = ()
        self.reads: dict[str, int] = {}
        self.listed = False

    def opened(self, model: Model) -> Chat | None:
        """The conversation that is open."""
        return model.chats.get(self.open)

    def peers(self, model: Model) -> list[str]:
        """The other users of the direct conversations in sight, the open one first."""
        chats = (model.chats.get(one) for one in (self.open, *self.visible))
        return list(dict.fromkeys(chat.peer for chat in chats if chat is not None and chat.peer))


def _is_top(chat: Chat, page: list[Entry]) -> bool:
    return len(page) < PAGE or page[-1].seq <= max(1, chat.join_seq)


async def _take(items: AsyncIterator[_T], count: int) -> list[_T]:
    """The first items; no further page is asked for."""
    taken: list[_T] = []
    if count > 0:
        async for item in items:
            taken.append(item)
            if len(taken) == count:
                break
    return taken
