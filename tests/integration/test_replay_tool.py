"""The replay: a part of the sample with a kill -9, and a verification that finds whatever is doctored."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidings.v1 import event_pb2, message_pb2
from tools.replay import __main__ as command
from tools.replay.board import Board
from tools.replay.device_check import Expected, check_device
from tools.replay.findings import Findings
from tools.replay.history_check import HistoryCheck
from tools.replay.ledger import Ledger, Run, facts_of
from tools.replay.player import Player
from tools.replay.records import Records
from tools.replay.run import replay
from tools.replay.script import Conversation, Row, Script, load, user_id
from tools.replay.wire import cut, joined
from tools.replay.world import World

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "tests" / "data" / "chat"


def test_a_part_of_the_sample_survives_a_kill(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "tools.replay", "--quiet", "--messages", "3000"),
            *("--devices", "60", "--sdk-devices", "6", "--visitors", "20", "--kill", "1"),
            *("--report", str(report)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    told = json.loads(report.read_text())
    assert told["right"]
    assert told["messages"] > 2900
    assert [blow["what"] for blow in told["blows"]] == ["kill -9"]
    assert told["blows"][0]["connected"] > 50
    assert {way for way, took in told["ways"].items() if took["messages"]} == {
        "call",
        "device",
        "sdk",
        "visitor",
    }
    verified = told["verified"]
    assert verified["devices"] == told["devices"] == 60
    assert told["second_devices"] == 6
    assert told["tally"]["gaps_fetched"] > 0
    assert verified["visitors"] > 10
    assert verified["conversations"] == told["conversations"] > 100
    # Messages in both directions, and the entries that make conversations and members.
    assert verified["history_entries"] > 2 * told["messages"] + 2 * told["conversations"] - 1
    assert verified["device_entries"] >= told["deliveries"] > 20_000
    assert verified["unread_counts"] > 100
    assert "Nothing was lost, doubled, reordered or altered" in run.stdout


def test_what_was_spoiled_is_told_and_the_command_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def spoil(world: World, player: Player) -> None:
        room, other, third = player.script.rooms
        intruder = Row(0, room, room.members[-1], "I was not in the script", None, None)
        await player.api.send(intruder, world.new_id(), "")
        await player.api.mark_read(other.members[0], other.id, 2)
        other.rows[3].text += "\ufeff"
        third.members.append("nobody")
        world.board.seqs[third.rows[1].index] += 1
        first, second, *_ = (d.records for d in player.devices if other.id in d.records.logs)
        first.logs[other.id].count -= 1
        second.logs[other.id].total += 1

    monkeypatch.setattr(command, "replay", partial(replay, before_verification=spoil))
    report = tmp_path / "report.json"
    arguments = ["--quiet", "--messages", "300", "--devices", "12", "--sdk-devices", "2"]
    arguments += ["--file", "chat_en_irc*", "--report", str(report)]
    run = CliRunner().invoke(command.main, arguments)
    assert run.exit_code == 1, run.output
    told = json.loads(report.read_text())
    assert not told["right"]
    assert {"foreign", "altered", "members", "moved", "lost", "unread"} <= set(told["wrong"])
    altered = "\n".join(told["examples"]["altered"])
    assert "what was applied is not what history holds" in altered
    assert "the text at" in altered
    assert "things are wrong" in run.output


def test_what_can_not_be_played_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "chat_wrong.jsonl.gz").write_bytes(b"no gzip")
    run = CliRunner().invoke(command.main, ["--quiet", "--data", str(tmp_path)])
    assert run.exit_code == 2
    assert run.output.startswith("replay: ")
    assert len(run.output.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--file", "none*"],
        ["--speed", "fast"],
        ["--speed", "-3x"],
        ["--server", "127.0.0.1:1"],
        ["--server", "127.0.0.1:1", "--secret", "s" * 32, "--kill", "1"],
        ["--store", str(ROOT)],
    ],
)
def test_wrong_options_are_refused(arguments: list[str]) -> None:
    assert CliRunner().invoke(command.main, arguments).exit_code == 2


def test_everybody_has_a_server_and_goes_to_another_while_that_is_away() -> None:
    findings = Findings()
    world = World(
        ["127.0.0.1:1", "127.0.0.1:2"],
        "secret",
        Board(Script([], [], []), findings),
        Ledger(findings),
        findings,
        random.Random(1),
    )
    users = [f"user-{number}" for number in range(50)]
    first = {user: world.target(user) for user in users}
    assert set(first.values()) == {
        "ipv4:127.0.0.1:1,127.0.0.1:2",
        "ipv4:127.0.0.1:2,127.0.0.1:1",
    }
    world.away.add("127.0.0.1:1")
    assert {world.target(user) for user in users} == {"ipv4:127.0.0.1:2,127.0.0.1:1"}
    world.away.clear()
    assert {user: world.target(user) for user in users} == first
    world.addresses = ["chat.example.com:443"]
    assert world.target("anybody") == "chat.example.com:443"


# A small world without a server

PEOPLE = ["ann", "ben", "cid"]
TEXTS = ["one", "\x02bold\x0f \x0304red", "\ufeffmarked", "שלום", "👨‍👩‍👧‍👦", "one", "e\u0301", " "]


class Small:
    """A room with three members and eight messages, as it was played: what a server that is right would tell."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.room = Conversation("#room", room=True, members=list(PEOPLE))
        self.room.id = "0194a000-0000-8000-8000-000000000001"
        for index, text in enumerate(TEXTS):
            # The fourth and the seventh message are answers.
            reply_to = {3: 1, 6: 3}.get(index)
            self.room.rows.append(
                Row(
                    index,
                    self.room,
                    PEOPLE[index % 3],
                    text,
                    None if reply_to is None else self.room.rows[reply_to],
                    None,
                )
            )
        script = Script(["small"], [self.room], self.room.rows)
        self.board = Board(script, self.findings)
        for row in self.room.rows:
            self.board.name(row, f"0194a000-0000-7000-8000-{row.index:012}")
            # The first entry is the creation.
            self.board.seqs[row.index] = row.index + 2
        self.entries = [self.creation(), *(self.message(row) for row in self.room.rows)]

    def creation(self) -> event_pb2.Event:
        event = event_pb2.Event()
        entry = event.entry
        entry.conversation_id, entry.seq, entry.user_id, entry.id = self.room.id, 1, "ann", "made"
        entry.create_time.seconds = 1000
        entry.conversation_created.title = "#room"
        return event

    def message(self, row: Row) -> event_pb2.Event:
        event = event_pb2.Event()
        entry = event.entry
        entry.conversation_id, entry.seq = self.room.id, row.index + 2
        entry.ordinal, entry.user_id, entry.id = (
            row.index + 1,
            row.sender,
            self.board.ids[row.index],
        )
        entry.create_time.seconds = 1001 + row.index
        entry.message.text = row.text
        entry.message.reply_to_message_id = self.board.reply_id(row)
        return event

    def elements(self) -> list[bytes]:
        return [entry.SerializeToString() for entry in self.entries]

    def checked(self, elements: list[bytes], backwards: list[bytes] | None = None) -> HistoryCheck:
        check = HistoryCheck(self.room, self.board, self.findings)
        check.ascending(elements)
        check.descending(list(reversed(elements)) if backwards is None else backwards)
        check.finish()
        return check


Doctor = Callable[[list[event_pb2.Event]], None]


def lose(entries: list[event_pb2.Event]) -> None:
    del entries[4]


def lose_last(entries: list[event_pb2.Event]) -> None:
    del entries[-1]


def double(entries: list[event_pb2.Event]) -> None:
    entries.insert(5, entries[4])


def swap(entries: list[event_pb2.Event]) -> None:
    entries[4], entries[5] = entries[5], entries[4]


def alter(entries: list[event_pb2.Event]) -> None:
    entries[4].entry.message.text = "שלום "


def trim(entries: list[event_pb2.Event]) -> None:
    entries[3].entry.message.text = "marked"


def normalise(entries: list[event_pb2.Event]) -> None:
    entries[7].entry.message.text = "é"


def misattribute(entries: list[event_pb2.Event]) -> None:
    entries[4].entry.user_id = "ben"


def unlink(entries: list[event_pb2.Event]) -> None:
    entries[4].entry.message.reply_to_message_id = ""


def link_wrongly(entries: list[event_pb2.Event]) -> None:
    entries[7].entry.message.reply_to_message_id = entries[1].entry.id


def intrude(entries: list[event_pb2.Event]) -> None:
    entries[4].entry.id = "0194a000-0000-7000-8000-00000000ffff"


def stray(entries: list[event_pb2.Event]) -> None:
    entries[4].entry.conversation_id = "0194a000-0000-8000-8000-000000000002"


def turn_back(entries: list[event_pb2.Event]) -> None:
    entries[4].entry.create_time.seconds = 999


def miscount(entries: list[event_pb2.Event]) -> None:
    entries[4].entry.ordinal += 1


def exchange(entries: list[event_pb2.Event]) -> None:
    """Two messages of one sender stand at each other's positions."""
    first, second = entries[2].entry, entries[5].entry
    for name in ("id", "message"):
        one, other = getattr(first, name), getattr(second, name)
        if name == "id":
            first.id, second.id = other, one
        else:
            kept = message_pb2.MessageContent.FromString(one.SerializeToString())
            first.message.CopyFrom(other)
            second.message.CopyFrom(kept)


def send_twice(entries: list[event_pb2.Event]) -> None:
    """A message stands at two positions."""
    copy = event_pb2.Event.FromString(entries[4].SerializeToString())
    copy.entry.seq, copy.entry.ordinal = 10, 9
    copy.entry.create_time.seconds = 2000
    entries.append(copy)


def test_a_right_history_is_right() -> None:
    small = Small()
    small.checked(small.elements())
    assert not small.findings


@pytest.mark.parametrize(
    ("doctor", "kinds"),
    [
        (lose, {"lost"}),
        (lose_last, {"lost"}),
        (double, {"doubled"}),
        (swap, {"out of order"}),
        (alter, {"altered"}),
        (trim, {"altered"}),
        (normalise, {"altered"}),
        (misattribute, {"altered"}),
        (unlink, {"altered"}),
        (link_wrongly, {"altered"}),
        (intrude, {"foreign", "lost"}),
        (stray, {"foreign", "lost"}),
        (turn_back, {"altered"}),
        (miscount, {"altered"}),
        (exchange, {"moved", "out of order"}),
        (send_twice, {"doubled", "foreign"}),
    ],
)
def test_a_doctored_history_is_found(doctor: Doctor, kinds: set[str]) -> None:
    small = Small()
    doctor(small.entries)
    small.checked(small.elements())
    assert kinds <= set(small.findings.counts)


@pytest.mark.parametrize(
    ("doctor", "kind"),
    [(lose, "lost"), (lose_last, "lost"), (double, "doubled"), (alter, "altered")],
)
def test_history_that_differs_downwards_is_found(doctor: Doctor, kind: str) -> None:
    small = Small()
    upwards = small.elements()
    doctor(small.entries)
    small.checked(upwards, list(reversed(small.elements())))
    assert kind in small.findings.counts


def device_of(small: Small, frames: list[bytes], ledger: Ledger | None = None) -> Records:
    """A device that was sent these frames."""
    ledger = ledger or Ledger(small.findings)
    records = Records("ann/phone", ledger, small.findings)
    for frame in frames:
        for item in ledger.read(frame):
            assert isinstance(item, Run)
            records.take(item)
    return records


def expected_of(small: Small, join_seq: int = 1) -> dict[str, Expected]:
    """What it should have had."""
    check = HistoryCheck(small.room, small.board, Findings())
    check.ascending(Small().elements())
    return {small.room.id: Expected("#room", join_seq, check.sums(by_facts=False))}


@pytest.mark.parametrize(
    ("doctor", "kind"),
    [
        (lose, "lost"),
        (lose_last, "not level"),
        (double, "doubled"),
        (swap, "out of order"),
        (alter, "altered"),
        (trim, "altered"),
        (unlink, "altered"),
        (misattribute, "altered"),
        (miscount, "altered"),
        (turn_back, "altered"),
        (stray, "foreign"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["one frame", "a frame each"])
def test_a_doctored_device_is_found(doctor: Doctor, kind: str, at_once: bool) -> None:
    small = Small()
    doctor(small.entries)
    elements = small.elements()
    frames = [joined(elements)] if at_once else [joined([element]) for element in elements]
    check_device(device_of(small, frames), expected_of(small), small.findings)
    assert kind in small.findings.counts


def test_a_device_in_order_is_right() -> None:
    small = Small()
    elements = small.elements()
    frames = [joined(elements[:2]), joined(elements[2:7]), joined(elements[7:])]
    check_device(device_of(small, frames), expected_of(small), small.findings)
    assert not small.findings


@pytest.mark.parametrize("doctor", [alter, trim, unlink, misattribute])
def test_a_device_that_gets_other_bytes_than_the_first_is_found_at_once(doctor: Doctor) -> None:
    small = Small()
    ledger = Ledger(small.findings)
    device_of(small, [joined(small.elements())], ledger)
    assert not small.findings
    doctor(small.entries)
    device_of(small, [joined(small.elements())], ledger)
    assert "altered" in small.findings.counts


def test_what_the_sdk_tells_differently_is_found() -> None:
    small = Small()
    ledger = Ledger(small.findings)
    device_of(small, [joined(small.elements())], ledger)
    row = small.room.rows[2]
    right = facts_of(row.sender, small.board.ids[2], 3, "message", row.text, "")
    ledger.facts(small.room.id, 4, right)
    assert not small.findings
    ledger.facts(small.room.id, 4, facts_of(row.sender, small.board.ids[2], 3, "message", "m", ""))
    assert small.findings.counts == {"altered": 1}


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_dropped_doubled_or_moved_is_found(seed: int) -> None:
    """A device that was sent the entries in any other way than once and in order."""
    rng = random.Random(seed)
    small = Small()
    elements = small.elements()
    sent = list(elements)
    while sent == elements:
        for _ in range(rng.randint(1, 3)):
            at, to = rng.randrange(len(sent)), rng.randrange(len(sent))
            match rng.randrange(3):
                case 0:
                    del sent[at]
                case 1:
                    sent.insert(to, sent[at])
                case _:
                    sent.insert(to, sent.pop(at))
    cuts = sorted(rng.randrange(len(sent) + 1) for _ in range(rng.randint(0, 3)))
    frames = [joined(sent[a:b]) for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    check_device(device_of(small, frames), expected_of(small), small.findings)
    assert small.findings


def test_skips_and_gaps_must_be_where_they_may() -> None:
    small = Small()
    ledger = Ledger(small.findings)
    tail = Run(small.room.id, 4, 9, sum(expected_of(small)[small.room.id].sums[9:]))
    late = Records("cid/phone", ledger, small.findings)
    device_of(small, [joined(small.elements())], ledger)
    late.skip(small.room.id, 1, 3)
    late.take(Run(small.room.id, 4, 9, tail.total - expected_of(small)[small.room.id].sums[3]))
    check_device(late, expected_of(small, join_seq=4), small.findings)
    assert not small.findings
    check_device(late, expected_of(small, join_seq=2), small.findings)
    assert small.findings.counts == {"gap": 1}


def test_an_announced_gap_must_be_fetched() -> None:
    small = Small()
    ledger = Ledger(small.findings)
    elements = small.elements()
    device_of(small, [joined(elements)], ledger)
    late = Records("ann/laptop", ledger, small.findings)
    late.gap(small.room.id, 1, 6)
    for run in ledger.items(elements[6:]):
        assert isinstance(run, Run)
        late.take(run)
    check_device(late, expected_of(small), small.findings, steady=False)
    assert not small.findings
    check_device(late, expected_of(small), small.findings)
    assert small.findings.counts == {"lost": 1}
    small.findings.counts.clear()
    runs = [run for run in ledger.items(elements[:6]) if isinstance(run, Run)]
    assert late.fill(small.room.id, 1, 6, runs)
    check_device(late, expected_of(small), small.findings)
    assert not small.findings
    assert not late.fill(small.room.id, 1, 6, runs[:0])
    assert small.findings.counts == {"lost": 1}


def test_a_retry_with_another_position_is_found() -> None:
    small = Small()
    small.board.ack(small.room.rows[3], 5)
    assert not small.findings
    small.board.ack(small.room.rows[3], 6)
    assert small.findings.counts == {"moved": 1}


def test_answers_are_cut_as_protobuf_would() -> None:
    elements = Small().elements()
    assert cut(joined(elements)) == (elements, b"")
    assert cut(joined(elements) + b"\x12\x025 ") == (elements, b"5 ")
    for wrong in (b"\x0a\x05abc", b"\x0a", b"\x0a\xff", b"\x1a\x00"):
        with pytest.raises(ValueError, match="an answer"):
            cut(wrong)


# The script


def test_the_whole_sample_becomes_a_script() -> None:
    files = sorted(SAMPLE.glob("*.jsonl.gz"))
    script = load(files)
    assert len(script.rows) == 3000 + 675 + 214 + 200 + 204 + 207 + 200 + 114
    assert [row.index for row in script.rows] == list(range(len(script.rows)))
    assert sorted(room.name for room in script.rooms) == [
        "chat_en_irc:#rust",
        "chat_en_irc:#stripe",
        "chat_en_irc:#ubuntu-meeting",
    ]
    # Two people have one direct conversation; what they say in other dialogues goes to groups.
    pairs = [frozenset(c.members) for c in script.conversations if c.direct]
    assert len(pairs) == len(set(pairs)) > 10
    for conversation in script.conversations:
        assert {row.sender for row in conversation.rows} <= set(conversation.members)
    assert sum(row.reply_to is not None for row in script.rows) > 1000


def test_a_bounded_script_keeps_all_members() -> None:
    files = [SAMPLE / "chat_en_irc.jsonl.gz"]
    whole, part = load(files), load(files, messages=300)
    assert 290 <= len(part.rows) <= 310
    assert [room.members for room in part.rooms] == [room.members for room in whole.rooms]


def test_members_are_added_in_parts() -> None:
    room = Conversation("#large", room=True, members=[f"u{n}" for n in range(1300)])
    assert [len(users) for users in room.additions] == [500, 500, 200]
    assert [room.join_seq(f"u{n}") for n in (0, 99, 100, 599, 600, 1299)] == [1, 1, 2, 2, 3, 4]
    assert room.join_seq("stranger") == 0


def test_nicks_become_user_ids() -> None:
    assert user_id("bob^", "chat_en_irc") == "bob^"
    assert user_id("bur[n] er", "chat_en_irc") == "bur%5Bn%5D%20er"
    assert user_id("usr", "dialogues_hi") == "hi/usr"
    assert user_id("usr", "dialogues_hi", "r1.") == "r1.hi/usr"
