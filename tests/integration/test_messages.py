"""What people do with messages, over the real server, by the SDK."""

from __future__ import annotations

import pytest

from tests.integration.conftest import Served
from tests.integration.test_sdk import Watching, client
from tidings import Message, NotFound, PermissionDenied, mentions_in


async def test_a_reply_is_to_a_message_of_the_conversation(server: Served) -> None:
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        log = (await alice.sdk.create_group("Plans", ["bob"])).conversation_id
        other = (await alice.sdk.create_direct("carol")).conversation_id
        secret = await alice.sdk.send(other, "secret")
        await secret.sent()
        reply = await bob.sdk.send(log, "a reply", reply_to=secret.message_id)
        with pytest.raises(NotFound) as refused:
            await reply.sent()
        assert refused.value.reason == "MESSAGE_NOT_FOUND"
        assert refused.value.field.endswith("content.reply_to_message_id")
        await bob.sdk.discard(reply.message_id)
        # Sent at once, the second replies to the first while that is on its way.
        first = await bob.sdk.send(log, "first")
        second = await bob.sdk.send(log, "second", reply_to=first.message_id)
        assert (await first.sent(), await second.sent()) == (2, 3)


async def test_whoever_is_mentioned_is_told_how_often(server: Served) -> None:
    async with (
        Watching(client(server.address, "alice")) as alice,
        Watching(client(server.address, "bob")) as bob,
    ):
        log = (await alice.sdk.create_group("Plans", ["bob"])).conversation_id
        text = "ä 👩 @bob, and @all"
        mentions = mentions_in(text, ["bob"], everybody="all")
        sent = await alice.sdk.send(log, text, mentions=mentions)
        seq = await sent.sent()
        await bob.until(lambda: bob.texts(log) == [text])
        (message,) = (e for e in bob.of(Message) if e.seq == seq)
        assert message.mentions == tuple(mentions)
        assert (await bob.sdk.unread()).total_mentions == 1
        assert (await bob.sdk.get_conversation(log)).unread_mention_count == 1
        await alice.sdk.edit_message(log, seq, "nobody")
        assert (await bob.sdk.unread()).total_mentions == 0
        refused = await bob.sdk.send(log, text, mentions=mentions)
        with pytest.raises(PermissionDenied):
            await refused.sent()
