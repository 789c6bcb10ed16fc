"""What commands and dialogs do, and how it is told when they can't."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from tidings import Availability, MemberRole, Message, TidingsError

from ..commands import Run, user_id
from ..explain import explain
from ..model import Chat
from ..session import ChatSession
from ..text import one_line
from .dialogs import Members, Pins, Question

if TYPE_CHECKING:
    from .app import ChatApp

_MEMBERS: Final = 200
_INVITED: Final = 10
_INVITED_MINUTES: Final = 60 * 24
_MOST_MINUTES: Final = 60 * 24 * 365 * 10
_OF_GROUPS: Final = (
    *("add", "remove", "role", "owner", "leave", "title", "describe"),
    *("mute", "unmute", "ban", "unban", "freeze", "unfreeze", "invite"),
)
_AVAILABILITY: Final = {
    "available": Availability.AVAILABLE,
    "away": Availability.AWAY,
    "busy": Availability.DO_NOT_DISTURB,
}


class Acts:
    """Carries out what was asked for and tells what came of it."""

    def __init__(self, app: ChatApp, session: ChatSession) -> None:
        self._app = app
        self._session = session

    async def run(self, command: Run, typed: str) -> None:
        """Carry out a command. What was typed comes back where it failed."""
        if command.name == "edit":
            # As it was typed: what looks like quotation marks to a command is text here.
            command = Run("edit", (typed.strip().partition(" ")[2],))
        if not await self._run(command):
            self._app.composer.give_back(typed)

    async def _run(self, command: Run) -> bool:
        arguments = command.arguments
        match command.name:
            case "dm":
                return await self.begin("", (user_id(arguments[0]),))
            case "group":
                people = tuple(user_id(name) for name in arguments[1:])
                return await self.begin(arguments[0], people, group=True)
            case "join":
                return await self._join(arguments[0])
            case "status":
                return await self._status(arguments)
            case "help":
                self._app.action_help()
            case "theme":
                self._app.action_toggle_theme()
            case "quit":
                self._app.exit()
            case _:
                chat = self._app.chat
                if chat is None:
                    self._app.tell("Choose a conversation first.", severity="warning")
                    return False
                return await self._within(command.name, chat, arguments)
        return True

    async def _within(self, name: str, chat: Chat, arguments: tuple[str, ...]) -> bool:
        if name in _OF_GROUPS:
            if chat.direct:
                self._app.tell(
                    "A conversation of two stays as it is; /group makes a group.",
                    severity="warning",
                )
                return False
            return await self._of_group(name, chat, arguments)
        match name:
            case "pins":
                return await self._pins(chat)
            case "members":
                return await self._members(chat)
            case "retry":
                failed = [own for own in chat.timeline.outgoing.values() if own.error is not None]
                for own in failed:
                    await self.retry(chat, own.message_id)
                if not failed:
                    self._app.tell("Nothing has failed here.")
            case _:
                return await self._with_message(name, chat, arguments)
        return True

    async def _of_group(self, name: str, chat: Chat, arguments: tuple[str, ...]) -> bool:
        match name:
            case "add":
                return await self._add(chat, tuple(user_id(one) for one in arguments))
            case "remove":
                return await self._remove(chat, user_id(arguments[0]))
            case "role":
                return await self._role(chat, user_id(arguments[0]), arguments[1])
            case "mute" | "unmute" | "ban" | "unban":
                return await self._restrict(name, chat, arguments)
            case "owner":
                work = self._session.transfer(chat, user_id(arguments[0]))
                return await self._try("The group can't be given away", work)
            case "invite":
                return await self._invite(chat, arguments)
            case "freeze" | "unfreeze":
                work = self._session.update(chat, frozen=name == "freeze")
                return await self._try("The group stays as it is", work)
            case "title":
                work = self._session.update(chat, title=" ".join(arguments))
                return await self._try("The title can't be changed", work)
            case "describe":
                work = self._session.update(chat, description=" ".join(arguments))
                return await self._try("The description can't be changed", work)
            case "leave":
                self._leave(chat)
        return True

    async def _with_message(self, name: str, chat: Chat, arguments: tuple[str, ...]) -> bool:
        match name:
            case "edit":
                return await self._edit(chat, arguments[0])
            case "delete":
                return await self._delete(chat)
            case "react":
                return await self._react(chat, "".join(arguments))
            case _:
                return await self._pin(chat, pinned=name == "pin")

    async def _try(self, what: str, work: Awaitable[object]) -> bool:
        """Await something; tells why where it fails."""
        try:
            await work
        except TidingsError as error:
            self._app.tell(f"{what}: {explain(error)}.", severity="error")
            return False
        return True

    async def begin(self, title: str, people: tuple[str, ...], *, group: bool = False) -> bool:
        """Begin a conversation: with one person, or a group where there are more or a title."""
        group = group or bool(title) or len(people) > 1

        async def work() -> None:
            if group:
                chat = await self._session.create_group(title, people)
            else:
                chat = await self._session.create_direct(people[0])
            self._app.open(chat.conversation_id)

        return await self._try("The conversation can't be made", work())

    async def _add(self, chat: Chat, people: tuple[str, ...]) -> bool:
        async def work() -> None:
            if not await self._session.add(chat, people):
                self._app.tell("They are members already.")

        return await self._try("They can't be added", work())

    async def _remove(self, chat: Chat, user: str) -> bool:
        async def work() -> None:
            if not await self._session.remove(chat, user):
                self._app.tell(f"{one_line(user)} is no member.", severity="warning")

        return await self._try(f"{one_line(user)} can't be removed", work())

    async def _invite(self, chat: Chat, arguments: tuple[str, ...]) -> bool:
        if not all(given.isdecimal() and 0 < int(given) <= _MOST_MINUTES for given in arguments):
            self._app.tell("For how many people, and for how many minutes?", severity="warning")
            return False
        uses = int(arguments[0]) if arguments else _INVITED
        minutes = int(arguments[1]) if len(arguments) > 1 else _INVITED_MINUTES

        async def work() -> None:
            link = await self._session.invite(chat, uses, minutes)
            self._app.copy_to_clipboard(link)
            self._app.tell(f"Copied: /join {link}")

        return await self._try("Nobody is invited", work())

    async def _join(self, link: str) -> bool:
        async def work() -> None:
            chat = await self._session.join(link)
            self._app.open(chat.conversation_id)

        return await self._try("You can't join by this link", work())

    async def _restrict(self, name: str, chat: Chat, arguments: tuple[str, ...]) -> bool:
        user, lifted, given = user_id(arguments[0]), name.startswith("un"), arguments[1:]
        if given and not (given[0].isdecimal() and 0 < int(given[0]) <= _MOST_MINUTES):
            self._app.tell("For how many minutes?", severity="warning")
            return False
        minutes = int(given[0]) if given else None
        set_it = self._session.mute if name.endswith("mute") else self._session.ban
        work = set_it(chat, user, minutes, lifted=lifted)
        return await self._try(f"{one_line(user)} stays as they are", work)

    async def _role(self, chat: Chat, user: str, name: str) -> bool:
        role = MemberRole.__members__.get(name.upper(), MemberRole.UNSPECIFIED)
        if role is MemberRole.UNSPECIFIED:
            roles = ", ".join(one.name.lower() for one in MemberRole if one)
            self._app.tell(f"There is no such role; there are {roles}.", severity="warning")
            return False
        work = self._session.set_role(chat, user, role)
        return await self._try(f"{one_line(user)} can't have this role", work)

    def _meant(self, chat: Chat, *, own: bool = True) -> Message | None:
        """The message that is chosen, or the last one, of one's own or of anybody."""
        chosen = self._app.timeline.chosen
        for entry in reversed(chat.timeline.entries):
            if not isinstance(entry, Message) or entry.erased:
                continue
            if entry.seq == chosen.seq if chosen is not None else entry.own or not own:
                return entry
        self._app.tell("Which message? Choose one that was sent.", severity="warning")
        return None

    async def _edit(self, chat: Chat, text: str) -> bool:
        message = self._meant(chat)
        if message is None:
            return False
        work = self._session.edit(chat, message.seq, text, message.reply_to)
        return await self._try("It can't be edited", work)

    async def _react(self, chat: Chat, reaction: str) -> bool:
        message = self._meant(chat, own=False)
        if message is None:
            return False
        work = self._session.react(chat, message.seq, reaction)
        return await self._try("You can't react", work)

    async def _pin(self, chat: Chat, *, pinned: bool) -> bool:
        message = self._meant(chat, own=False)
        if message is None:
            return False
        work = self._session.pin(chat, message.seq, pinned=pinned)
        return await self._try("It can't be pinned" if pinned else "It stays pinned", work)

    async def _pins(self, chat: Chat) -> bool:
        async def work() -> None:
            pins = await self._session.pins(chat)
            await self._app.push_screen(Pins(one_line(chat.name), pins))

        return await self._try("What is pinned can't be had", work())

    async def _delete(self, chat: Chat) -> bool:
        message = self._meant(chat)
        if message is None:
            return False
        return await self._try("It can't be deleted", self._session.delete(chat, message.seq))

    def _leave(self, chat: Chat) -> None:
        async def leave() -> None:
            await self._try("You can't leave", self._session.leave(chat))

        def answered(yes: bool | None) -> None:
            if yes:
                self._app.run_worker(leave())

        text = f"You will get nothing more of “{one_line(chat.name)}”."
        self._app.push_screen(Question("Leave the group?", text, "Leave"), answered)

    async def _members(self, chat: Chat) -> bool:
        async def work() -> None:
            members = await self._session.members(chat, _MEMBERS)
            count = max(chat.member_count, len(members))
            screen = Members(one_line(chat.name), members, count, self._session.model.me)
            await self._app.push_screen(screen)

        return await self._try("The members can't be had", work())

    async def _status(self, arguments: tuple[str, ...]) -> bool:
        words = list(arguments)
        availability = _AVAILABILITY.get(words[0].lower()) if words else None
        if availability is not None:
            words = words[1:]
        text = " ".join(words)

        async def work() -> None:
            await self._session.set_status(availability or Availability.AVAILABLE, text)
            self._app.tell("The others see it now.")

        return await self._try("The status can't be set", work())

    async def retry(self, chat: Chat, message_id: str) -> None:
        """Send a failed message again."""
        await self._try("Not sent", self._session.retry(chat, message_id))

    async def discard(self, chat: Chat, message_id: str) -> None:
        """Give up a message that wasn't sent."""

        async def work() -> None:
            if not await self._session.discard(chat, message_id):
                self._app.tell("It has been sent already.", severity="warning")

        await self._try("It can't be given up", work())
