"""Cuts the conversations that the repository carries out of the large data files.

Writes `tests/data/chat/` (for the tests) and `server/tidings_server/demo/data/` (for the
demo mode). Only rows whose licence allows it without share-alike are taken: see `SOURCES.md` in
both folders. The same input gives the same bytes.
"""

import argparse
import gzip
import itertools
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "data"
DEMO = ROOT / "server" / "tidings_server" / "demo" / "data"

# The last rows of these logs: there the annotators noted which message answers which.
IRC_LOGS = [
    "rust.0",
    "rust.1",
    "stripe.1",
    "stripe.2",
    "ubuntu-meeting.0",
    "ubuntu-meeting.1",
]
IRC_ROWS_A_LOG = 500

DIALOGUES = [  # file, source, rows
    ("dialogues_en", "chitchat", 600),
    ("dialogues_zh", "crosswoz", 200),
    ("dialogues_ko", "songys", 200),
    ("dialogues_hi", "hdrs", 200),
    ("dialogues_hinglish", "code-mixed-dialog", 200),
    ("dialogues_emoji", "goemotions", 200),
]

# Conversations with such words, or with what might reach a person, are passed over.
UNWANTED = re.compile(
    r"\b(ass|bitch\w*|bloody|boobs?|crap|damn\w*|dick\w*|drugs?|drunk|fuck\w*|gtfo|hell|kill\w*|lmf?ao"
    r"|libtards?|nazi\w*|naked|porn\w*|rape\w*|sex\w*|shit\w*|stfu|suicid\w*|tits|wtf|🍆|💩|🖕)\b"
    r"|💩|🖕|🍆|@|https?:|\d{7}|\d{3}[-. ]\d{4}",
    re.IGNORECASE,
)

# The demo: rooms are runs of consecutive rows, direct chats whole conversations, people renamed.
DEMO_ROOMS = [
    ("#rust", "rust.1", 165222, 165394),
    ("#ubuntu-meeting", "ubuntu-meeting.0", 171226, 171326),
]
DEMO_DIRECT = [  # file, conversation, names
    ("dialogues_en", "chitchat-0058", {"u0056": "alice", "u0084": "bob"}),
    ("dialogues_en", "chitchat-0021", {"u0039": "alice", "u0038": "carol"}),
    ("dialogues_en", "chitchat-0054", {"u0069": "alice", "u0081": "dave"}),
    ("dialogues_en", "chitchat-0043", {"u0067": "bob", "u0056": "carol"}),
    ("dialogues_en", "chitchat-0022", {"u0039": "bob", "u0040": "dave"}),
    ("dialogues_zh", "crosswoz-127", {"usr-51": "alice", "sys-24": "chen"}),
    ("dialogues_hi", "hdrs-dev-803", {"usr": "alice", "sys": "priya"}),
]
DEMO_KOREAN = [
    0,
    910,
    520,
    1430,
    1040,
    4160,
    1950,
    2990,
]  # pairs that make one chat of alice and minjun
DEMO_EMOJI = [53, 15, 23, 4, 44, 39, 8, 18, 88, 89, 96, 109, 143, 125]
DEMO_PEOPLE = ["alice", "bob", "carol", "dave", "chen", "minjun", "priya"]


def read(folder: Path, name: str) -> list[Row]:
    """Read the rows of `name`.jsonl.gz in order."""
    with gzip.open(folder / "chat" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write(path: Path, rows: Iterable[tuple[int, Row]]) -> None:
    """Write rows given with their ids; a `reply_to` outside of them becomes null."""
    kept = list(rows)
    new_ids = {old: new for new, (old, _) in enumerate(kept)}
    lines = (
        json.dumps(
            row | {"reply_to": new_ids.get(row["reply_to"])},
            ensure_ascii=False,
            separators=(",", ":"),
        )
        for _, row in kept
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data, compresslevel=9, mtime=0))
    print(f"{path.relative_to(ROOT)}: {len(kept)} messages, {path.stat().st_size} bytes")


def conversations(rows: Iterable[Row]) -> Iterator[list[tuple[int, Row]]]:
    """The conversations of a dialogue file, whole, in order; each comment of GoEmotions is one."""

    def key(item: tuple[int, Row]) -> str:
        row = item[1]
        return str(row["sender"] if row["source"] == "goemotions" else row["conversation"])

    for _, group in itertools.groupby(enumerate(rows), key=key):
        yield list(group)


def cut_irc(rows: list[Row]) -> list[tuple[int, Row]]:
    """The last rows of each chosen log."""
    cut: list[tuple[int, Row]] = []
    for log in IRC_LOGS:
        cut += [(i, row) for i, row in enumerate(rows) if row["log"] == log][-IRC_ROWS_A_LOG:]
    return cut


def cut_dialogues(rows: list[Row], source: str, count: int) -> list[tuple[int, Row]]:
    """Whole conversations of one source from all over the file: `count` rows or a few more."""
    fit = [
        conversation
        for conversation in conversations(rows)
        if conversation[0][1]["source"] == source
        and not any(UNWANTED.search(row["text"]) for _, row in conversation)
    ]
    step = max(1, sum(map(len, fit)) // count)
    cut: list[tuple[int, Row]] = []
    for conversation in itertools.chain.from_iterable(fit[first::step] for first in range(step)):
        if len(cut) >= count:
            break
        cut += conversation
    return sorted(cut, key=lambda item: item[0])


def make_tests(folder: Path) -> None:
    """Write the sample for the tests."""
    write(TESTS / "chat" / "chat_en_irc.jsonl.gz", cut_irc(read(folder, "chat_en_irc")))
    for name, source, count in DIALOGUES:
        write(TESTS / "chat" / f"{name}.jsonl.gz", cut_dialogues(read(folder, name), source, count))
    write(TESTS / "chat" / "edge_cases.jsonl.gz", enumerate(read(folder, "edge_cases")))


def make_demo(folder: Path) -> None:
    """Write the conversations of the demo."""
    irc = read(folder, "chat_en_irc")
    rooms: list[tuple[int, Row]] = []
    for conversation, log, first, end in DEMO_ROOMS:
        run = [(i, irc[i]) for i in range(first, end) if irc[i]["log"] == log]
        assert all(row["conversation"] == conversation for _, row in run)
        rooms += run
    write(DEMO / "rooms.jsonl.gz", rooms)

    direct: list[Row] = []
    files = {name: read(folder, name) for name, *_ in DIALOGUES}
    for name, conversation, names in DEMO_DIRECT:
        label = "-".join(sorted(names.values()))
        direct += [
            row | {"conversation": label, "sender": names[row["sender"]]}
            for row in files[name]
            if row["conversation"] == conversation
        ]
    for pair in DEMO_KOREAN:
        direct += [
            row
            | {
                "conversation": "alice-minjun",
                "sender": {"q": "alice", "a": "minjun"}[row["sender"]],
            }
            for row in files["dialogues_ko"]
            if row["conversation"] == f"songys-{pair}"
        ]
    write(DEMO / "direct.jsonl.gz", enumerate(direct))

    emoji = [row for row in files["dialogues_emoji"] if row["source"] == "goemotions"]
    named = zip(DEMO_EMOJI, itertools.cycle(DEMO_PEOPLE), strict=False)
    rows = [emoji[i] | {"conversation": "Small joys", "sender": person} for i, person in named]
    write(DEMO / "group.jsonl.gz", enumerate(rows))


def copy_licences(folder: Path) -> None:
    """Put the licence texts beside the data they belong to."""
    names = {
        "CC-BY-4.0.irc-disentanglement.txt",
        "MIT.chitchat-dataset.txt",
        "Apache-2.0.CrossWOZ.txt",
        "MIT.songys-Chatbot_data.txt",
        "MIT.HDRS-Corpus.txt",
    }
    for target, wanted in ((TESTS, names | {"Apache-2.0.Code-Mixed-Dialog.txt"}), (DEMO, names)):
        (target / "licenses").mkdir(parents=True, exist_ok=True)
        for name in sorted(wanted):
            shutil.copyfile(folder / "licenses" / name, target / "licenses" / name)


def main() -> None:
    """Read the command line and make both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--from",
        dest="folder",
        type=Path,
        required=True,
        help="folder with chat/*.jsonl.gz and licenses/ of the full data set",
    )
    folder: Path = parser.parse_args().folder
    make_tests(folder)
    make_demo(folder)
    copy_licences(folder)


if __name__ == "__main__":
    main()
