"""The whole client against a real server: what isn't the everyday."""

from __future__ import annotations

from pathlib import Path

from textual import events

from tidings import ClientConfig, ConnectionStatus, Message
from tidings_chat.model import Progress
from tidings_chat.ui.dialogs import Help, Question
from tidings_chat.ui.theme import DARK, LIGHT

from .screens import direct, say, screen
from .server import Server, until


async def test_in_a_narrow_terminal_the_list_and_the_conversation_take_turns(
    server: Server,
) -> None:
    await direct(server, "carol", "alice", "from carol")
    await direct(server, "bob", "alice", "from bob, in so many words that a line has no room")
    async with screen(server, "alice", (44, 16)) as alice:
        await alice.sees("2 unread")
        await alice.sees("from carol")
        assert not alice.app.chat
        await alice.pilot.press("down", "down", "enter")
        await alice.reads("from carol")
        assert not alice.app.conversations.display or "Tidings" not in alice.text
        await alice.until(lambda: "1" in alice.text.splitlines()[0], "one is unread elsewhere")
        await alice.pilot.press("ctrl+b")
        await alice.sees("1 unread")
        await alice.pilot.press("ctrl+b")
        await alice.reads("from carol")
        await alice.pilot.press("ctrl+n")
        await alice.until(lambda: len(alice.in_sight) >= 2, "bob's message is broken into lines")
        assert all(len(line) <= 44 for line in alice.text.splitlines())
        await alice.pilot.resize_terminal(100, 30)
        await alice.reads("from bob, in so many words that a line has no room")
        await alice.sees("Find (Ctrl+K)")


async def test_a_reply_quotes_what_it_answers_even_if_that_is_long_ago(server: Server) -> None:
    conversation = await direct(server, "bob", "alice", *(f"message {n}" for n in range(130)))
    async with server.client("alice", device="other") as client:
        entry = await client.get_message(conversation.conversation_id, seq=3)
        assert isinstance(entry, Message)
        old = await client.send(
            conversation.conversation_id, "about the second", reply_to=entry.message_id
        )
        await old.sent()
    async with screen(server, "alice") as alice, screen(server, "bob") as bob:
        await alice.reads("about the second")
        await alice.sees("▎ message 1")
        await alice.pilot.press("up")
        await alice.until(lambda: alice.app.timeline.chosen, "the newest message is chosen")
        await alice.pilot.press("up", "enter")
        await alice.sees("↩ bob: message 129")
        await alice.say("about the last")
        await bob.reads("about the last")
        await bob.sees("▎ message 129")
        assert "↩" not in alice.text


async def test_messages_are_edited_reacted_to_and_deleted(server: Server) -> None:
    await direct(server, "bob", "alice", "from bob")
    async with screen(server, "alice") as alice, screen(server, "bob") as bob:
        await alice.open("bob")
        await bob.open("alice")
        await alice.say("helo")
        await bob.reads("helo")
        await alice.type('/edit "hello", she said')
        for one in (alice, bob):
            await one.reads('"hello", she said')
            await one.sees(" edited")
        await bob.type("/react +1")
        await alice.type("/react +1")
        for one in (alice, bob):
            await one.sees("+1 2")
        await alice.type("/react")
        await bob.until(lambda: "+1 2" not in bob.text and "+1" in bob.text, "only bob's is left")
        await alice.type("/pin")
        for one in (alice, bob):
            await one.sees(" pinned")
        await bob.type("/pins")
        await bob.sees("alice · pinned")
        await bob.pilot.press("escape")
        await bob.type("/unpin")
        await alice.until(lambda: " pinned" not in alice.text, "it is pinned no more")
        await bob.type("/delete")
        for one in (alice, bob):
            await one.misses("from bob")
            await one.reads("(deleted)")
        await bob.type("/edit mine")
        await bob.is_told("Which message?")


async def test_what_is_refused_stays_with_its_reason_until_it_is_given_up(
    server: Server, tmp_path: Path
) -> None:
    state = tmp_path / "carol.sqlite3"
    async with server.client("bob") as bob:
        group = await bob.create_group("Trip", ["carol"])
        await say(bob, group, "welcome")
    async with screen(server, "carol", state=state) as carol:
        await carol.reads("welcome")
        await server.stop()
        await carol.sees("offline")
        await carol.say("I was never gone")
        await carol.until(lambda: carol.session.model.queued == 1, "it waits")
    await server.start()
    async with server.client("bob") as bob:
        await bob.remove_member(group.conversation_id, "carol")
    for _ in range(2):
        async with screen(server, "carol", state=state) as carol:
            await carol.open("Trip")
            await carol.sees("Not sent: you are not a member of this conversation")
            assert carol.bubbles[-1].progress is Progress.FAILED
    async with screen(server, "carol", state=state) as carol:
        await carol.open("Trip")
        await carol.sees("Not sent")
        async with server.client("bob") as bob:
            await bob.add_members(group.conversation_id, ["carol"])
        await carol.until(lambda: carol.app.chat and not carol.app.chat.left, "a member again")
        carol.app.timeline.focus()
        await carol.pilot.press("up", "t")
        await carol.until(
            lambda: carol.bubbles[-1].seq and carol.bubbles[-1].text == "I was never gone", "sent"
        )
        assert "Not sent" not in carol.text


async def test_a_message_that_waits_can_be_given_up(server: Server) -> None:
    await direct(server, "bob", "alice", "before")
    async with screen(server, "alice") as alice:
        await alice.reads("before")
        await server.stop()
        await alice.sees("offline")
        await alice.say("a mistake")
        await alice.reads("a mistake")
        await alice.pilot.press("up")
        await alice.sees("Enter reply")
        await alice.pilot.press("d")
        await alice.until(lambda: [b.text for b in alice.bubbles] == ["before"], "it is gone")
        assert alice.session.client.pending() == []


async def test_a_device_that_signs_in_elsewhere_can_be_taken_back(server: Server) -> None:
    await direct(server, "bob", "alice", "before")
    async with screen(server, "alice") as alice:
        await alice.reads("before")
        async with server.client("alice") as other:
            await other.wait_online()
            await alice.sees("this device has signed in somewhere else")
            assert isinstance(alice.app.screen, Question)
            await alice.pilot.press("y")
            await until(
                lambda: other.connection.status is ConnectionStatus.ENDED, "the other one ends"
            )
        await alice.until(
            lambda: alice.session.model.connection.status is ConnectionStatus.ONLINE, "online again"
        )
        await alice.say("back")
        await alice.until(
            lambda: alice.bubbles[-1].seq and alice.bubbles[-1].text == "back", "sent"
        )


async def test_what_happens_behind_a_window_is_there_afterwards_and_unread(server: Server) -> None:
    conversation = await direct(server, "bob", "alice", "before")
    async with screen(server, "alice") as alice, server.client("bob", device="other") as bob:
        await alice.reads("before")
        chat = alice.app.chat
        assert chat is not None
        await alice.until(lambda: chat.unread == 0, "it is read")
        await alice.pilot.press("f1")
        await alice.sees("Keys")
        assert isinstance(alice.app.screen, Help)
        await say(bob, conversation, "behind")
        await alice.until(lambda: "behind" in [b.text for b in alice.bubbles], "it has come")
        assert chat.unread == 1
        await alice.pilot.press("escape")
        await alice.reads("behind")
        await alice.until(lambda: chat.unread == 0, "it is read")


async def test_who_looks_elsewhere_has_not_read(server: Server) -> None:
    conversation = await direct(server, "bob", "alice", "before")
    async with screen(server, "alice") as alice, server.client("bob", device="other") as bob:
        await alice.reads("before")
        chat = alice.app.chat
        assert chat is not None
        await alice.until(lambda: chat.unread == 0, "it is read")
        alice.app.post_message(events.AppBlur())
        await alice.until(lambda: not alice.app.app_focus, "elsewhere")
        await say(bob, conversation, "hello?")
        await alice.reads("hello?")
        assert chat.unread == 1
        alice.app.post_message(events.AppFocus())
        await alice.until(lambda: chat.unread == 0, "it is read")


async def test_lines_drafts_and_commands_of_the_composer(server: Server) -> None:
    await direct(server, "carol", "alice", "from carol")
    await direct(server, "bob", "alice", "from bob")
    async with screen(server, "alice") as alice:
        await alice.reads("from bob")
        await alice.type("one", then="ctrl+j")
        await alice.type("two", then="alt+enter")
        await alice.type("three", then="")
        assert alice.app.composer.text == "one\ntwo\nthree"
        await alice.pilot.press("ctrl+n")
        await alice.reads("from carol")
        assert alice.app.composer.text == ""
        await alice.type("/re", then="")
        await alice.sees("/remove /react /retry")
        await alice.type("x")
        await alice.is_told("There is no command /rex")
        assert alice.app.composer.text == "/rex"
        await alice.pilot.press("ctrl+p")
        await alice.reads("from bob")
        assert alice.app.composer.text == "one\ntwo\nthree"
        await alice.pilot.press("enter")
        await alice.until(lambda: alice.bubbles[-1].text == "one\ntwo\nthree", "three lines")
        assert alice.app.composer.text == ""


async def test_light_and_dark(server: Server) -> None:
    await direct(server, "bob", "alice", "hello")
    async with screen(server, "alice") as alice:
        await alice.reads("hello")

        def ground() -> object:
            strip = alice.app.timeline.render_line(alice.app.timeline.size.height - 1)
            style = list(strip)[1].style
            return style and style.bgcolor

        dark = ground()
        assert alice.app.theme == DARK
        await alice.pilot.press("f2")
        assert alice.app.theme == LIGHT
        await alice.until(lambda: ground() != dark, "the bubbles are light")


async def test_the_mouse_opens_and_chooses(server: Server) -> None:
    await direct(server, "carol", "alice", "from carol")
    await direct(server, "bob", "alice", "from bob")
    async with screen(server, "alice") as alice:
        await alice.reads("from bob")
        await alice.pilot.click("#list", offset=(5, 2))
        await alice.reads("from carol")
        height = alice.app.timeline.size.height
        await alice.pilot.click("#timeline", offset=(5, height - 1))
        await alice.until(lambda: alice.app.timeline.chosen, "it is chosen")
        await alice.sees("Enter reply · C copy")
        await alice.pilot.press("c")
        await alice.until(lambda: alice.app.clipboard == "from carol", "it is copied")


async def test_after_long_absence_what_was_left_out_is_paged_in(server: Server) -> None:
    conversation = await direct(server, "bob", "alice", "before")
    config = ClientConfig(auto_apply=False, backoff_base=0.05, backoff_cap=0.2, catch_up_limit=5)
    async with screen(server, "alice", config=config) as alice:
        await alice.reads("before")
        await server.stop()
        await alice.sees("offline")
        # Bob's server is the same: he writes as soon as it is back, before alice comes.
        texts = [f"message {number}" for number in range(40)]
        async with server.client("bob", device="other") as bob:
            handles = [await bob.send(conversation.conversation_id, text) for text in texts]
            await server.start()
            for handle in handles:
                await handle.sent()
        await alice.reads("message 39")
        await alice.until(
            lambda: [bubble.text for bubble in alice.bubbles] == ["before", *texts], "all are there"
        )


async def test_a_change_of_the_width_keeps_what_is_read_in_sight(server: Server) -> None:
    texts = [f"message {number}: {'word ' * (number % 40)}" for number in range(50)]
    await direct(server, "bob", "alice", *texts)
    async with screen(server, "alice") as alice:
        await alice.until(lambda: len(alice.bubbles) == 50, "all are there")
        await alice.pilot.press("pageup", "pageup")
        await alice.pilot.pause()
        first = next(line for line in alice.in_sight if line.startswith("message"))
        await alice.pilot.resize_terminal(72, 24)
        await alice.until(lambda: alice.app.size.width == 72, "narrower")
        await alice.pilot.pause()
        head = first[:12]
        assert any(line.startswith(head) for line in alice.in_sight[:8]), alice.text
