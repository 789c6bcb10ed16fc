"""What people do: they talk, come and go, add and remove each other, read, look back, and try again."""

from __future__ import annotations

import asyncio
import random

from .rude import RudeDevice
from .sdk_device import SdkDevice
from .world import World

_SDK_ACTIONS = {
    "say": 40,
    "burst": 6,
    "create group": 4,
    "create direct": 3,
    "add": 7,
    "remove": 6,
    "leave": 2,
    "read": 8,
    "delivered": 3,
    "history": 6,
    "get": 2,
    "pins": 3,
    "receipts": 2,
    "list": 3,
    "quarrel": 8,
    "change a message": 16,
    "settings": 4,
    "rights": 3,
    "invite": 3,
    "join": 5,
    "role": 6,
    "transfer": 2,
    "mute": 4,
    "ban": 6,
    "look": 4,
}
_RUDE_ACTIONS = {
    "say": 30,
    "again": 25,
    "again by call": 8,
    "change": 8,
    "other content": 6,
    "garbage": 3,
    "nonsense": 6,
    "burst": 4,
    "crossed": 16,
}


class Workload:
    """Makes the devices of a world do things."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng("workload")

    async def open(self) -> None:
        """Creates the first conversations."""
        world, rng = self._world, self._rng
        for device in world.sdk:
            if rng.random() < 0.7:
                await asyncio.sleep(rng.random() * 0.5)
                self._act(device, "create group", "")
            if rng.random() < 0.4:
                self._act(device, "create direct", "")
        await asyncio.sleep(1.0)

    async def run(self) -> None:
        """Acts for as long as the world's settings say."""
        world, rng = self._world, self._rng
        pause = world.config.seconds / world.config.actions
        for _ in range(world.config.actions):
            await asyncio.sleep(rng.expovariate(1 / pause))
            self.act_once()

    def act_once(self) -> None:
        """Some device does something."""
        world, rng = self._world, self._rng
        device = rng.choice(world.devices)
        actions = _SDK_ACTIONS if isinstance(device, SdkDevice) else _RUDE_ACTIONS
        what = rng.choices(list(actions), weights=list(actions.values()))[0]
        conversations = self.conversations(device.user)
        if rng.random() < 0.05:
            conversations = [name for name in world.truth.logs if not name.startswith("inbox:")]
        if what == "join":
            conversations = [n for n, log in world.truth.logs.items() if log.invitations]
        self._act(device, what, rng.choice(conversations) if conversations else "")

    def conversations(self, user: str) -> list[str]:
        """Those that a user knows of; mostly the first, so that something happens in them."""
        return self._world.truth.conversations_of(user)[:4]

    def _act(self, device: SdkDevice | RudeDevice, what: str, conversation: str) -> None:
        world, rng = self._world, self._rng
        if not conversation and what not in ("create group", "create direct", "list"):
            return
        world.tell("act", f"{device.name}: {what} {conversation}")
        if isinstance(device, RudeDevice):
            device.act(what, conversation)
            return
        match what:
            case "say":
                device.say(conversation, 1)
            case "burst":
                device.say(conversation, rng.choice((3, 8, 30)))
            case "create group":
                others = [user for user in world.users if user != device.user]
                device.call_on(what, "", rng.sample(others, rng.randint(0, len(others))))
            case "create direct":
                others = [user for user in world.users if user != device.user]
                device.call_on(what, "", [rng.choice(others)])
            case "add":
                device.call_on(what, conversation, rng.sample(world.users, rng.choice((1, 1, 2))))
            case "quarrel":
                # Messages on both sides of a removal.
                device.say(conversation, rng.choice((1, 4)))
                whom = self._whom(device, conversation, rng)
                device.call_on(rng.choice(("remove", "remove and add")), conversation, [whom])
                for other in world.sdk:
                    if other.user != device.user:
                        other.say(conversation, rng.choice((1, 4)))
            case "remove" | "role" | "transfer" | "mute" | "ban":
                device.call_on(what, conversation, [self._whom(device, conversation, rng)])
            case _:
                device.call_on(what, conversation, [])

    def _whom(self, device: SdkDevice, conversation: str, rng: random.Random) -> str:
        members = [u for u in self._world.truth.log(conversation).members() if u != device.user]
        return rng.choice(members or self._world.users)
