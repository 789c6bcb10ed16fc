"""What the replay does not play: members who are removed while a fault lasts, and messages that are refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from tidings.v1 import conversation_pb2, conversation_service_pb2, message_pb2
from tools.replay.api import Api, Refused
from tools.replay.device import Device
from tools.replay.device_check import Expected, check_device
from tools.replay.ledger import read_entry
from tools.replay.world import World

_PAUSE_S: Final = 0.05
_BEFORE_REMOVAL: Final = 20
_LEVEL_S: Final = 60.0
_FORBIDDEN: Final = frozenset({"PERMISSION_DENIED", "NOT_FOUND"})


@dataclass(slots=True)
class Witness:
    """A group of three: one writes all the time, one listens to the end, one is removed and goes on writing.

    What is wrong goes to the findings of the world.
    """

    world: World
    api: Api
    name: str
    acked: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    removed_at: int = 0
    _log: str = ""
    _stopping: bool = False

    @property
    def _people(self) -> tuple[str, str, str]:
        writer, listener, leaver = (
            f"{self.name}.{who}" for who in ("writer", "listener", "leaver")
        )
        return writer, listener, leaver

    async def run(self, until: asyncio.Event) -> None:
        """Writes until the event, removes one in between, and verifies."""
        writer, listener, leaver = self._people
        devices = [
            Device(self.world, user, "phone", fetches=self.api) for user in (listener, leaver)
        ]
        for device in devices:
            device.start()
        await self._create()
        while not until.is_set() or not self.refused:
            await self._send(writer)
            if len(self.acked) == _BEFORE_REMOVAL:
                await self._remove(leaver)
            if self.removed_at:
                await self._send_in_vain(leaver)
            await asyncio.sleep(_PAUSE_S)
        await self._verify(devices)
        for device in devices:
            await device.stop()

    async def _create(self) -> None:
        writer, *others = self._people
        answer = await self.api.call(
            writer,
            "ConversationService/CreateConversation",
            conversation_service_pb2.CreateConversationRequest(
                request_id=self.world.new_id(),
                kind=conversation_pb2.CONVERSATION_KIND_GROUP,
                title="witness",
                user_ids=others,
            ),
            conversation_service_pb2.CreateConversationResponse,
        )
        self._log = answer.conversation.conversation_id

    async def _send(self, user: str) -> None:
        message_id = self.world.new_id()
        answer = await self.api.call(
            user,
            "MessageService/SendMessage",
            message_pb2.SendMessageRequest(
                conversation_id=self._log,
                message_id=message_id,
                content=message_pb2.MessageContent(text=message_id),
            ),
            message_pb2.SendMessageResponse,
        )
        self.acked[message_id] = answer.seq

    async def _remove(self, user: str) -> None:
        answer = await self.api.call(
            self._people[0],
            "ConversationService/RemoveMember",
            conversation_service_pb2.RemoveMemberRequest(
                conversation_id=self._log, request_id=self.world.new_id(), user_id=user
            ),
            conversation_service_pb2.RemoveMemberResponse,
        )
        self.removed_at = answer.seq

    async def _send_in_vain(self, user: str) -> None:
        message_id = self.world.new_id()
        try:
            await self.api.call(
                user,
                "MessageService/SendMessage",
                message_pb2.SendMessageRequest(
                    conversation_id=self._log,
                    message_id=message_id,
                    content=message_pb2.MessageContent(text="I am not here any more"),
                ),
                message_pb2.SendMessageResponse,
            )
        except Refused as problem:
            if not _FORBIDDEN.intersection(str(problem).split()):
                self._wrong("fault", f"who was removed is told: {problem}")
        else:
            self._wrong("foreign", "who was removed wrote after that")
        self.refused.append(message_id)

    async def _verify(self, devices: list[Device]) -> None:
        digests, ids = await self._history(self._people[0], self._log)
        head = len(digests)
        for message_id, seq in self.acked.items():
            if ids.get(message_id) != seq:
                self._wrong("lost", f"acknowledged at {seq}, stands at {ids.get(message_id)}")
        if any(message_id in ids for message_id in self.refused):
            self._wrong("foreign", "a message that was refused is there")
        # The others are the beginning and the removal.
        if head != len(self.acked) + 2:
            self._wrong("foreign", f"{head} entries, though {len(self.acked)} were acknowledged")
        for device, last in zip(devices, (head, self.removed_at), strict=True):
            await self._level(device, last)
            inbox = f"inbox:{device.user}"
            told, _ = await self._history(device.user, inbox)
            expected = {
                self._log: Expected(self.name, 1, [0, *accumulate(digests[:last])]),
                inbox: Expected("inbox", 1, [0, *accumulate(told)]),
            }
            check_device(device.records, expected, self.world.findings)

    async def _history(self, user: str, log: str) -> tuple[list[int], dict[str, int]]:
        digests: list[int] = []
        ids: dict[str, int] = {}
        async for elements in self.api.history(user, log):
            for element in elements:
                seen, entry = read_entry(element)
                digests.append(seen.digest)
                if seen.seq != len(digests):
                    self._wrong("lost", f"{seen.seq} stands at {len(digests)} of {log}")
                if entry.id in ids:
                    self._wrong("doubled", f"{entry.id} is there twice")
                ids[entry.id] = seen.seq
        return digests, ids

    async def _level(self, device: Device, last: int) -> None:
        """Waits until a device has everything, without being helped."""
        deadline = asyncio.get_running_loop().time() + _LEVEL_S
        while device.records.log(self._log).seq < last:
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_PAUSE_S)

    def _wrong(self, kind: str, what: str) -> None:
        self.world.findings.add(kind, f"{self.name}: {what}")
