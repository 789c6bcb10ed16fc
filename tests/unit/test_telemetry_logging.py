"""The log: one line an event, and nothing in it that is nobody's business."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.unit.tokens import hs256
from tidings_server.telemetry.logging import REFUSED_KEYS, REMOVED, configure


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_events_and_records_come_out_alike() -> None:
    out = io.StringIO()
    configure("info", "json", out)
    structlog.get_logger("tidings.store").warning("store_slow", seconds=2)
    logging.getLogger("grpc").error("cannot %s", "listen")
    structlog.get_logger("tidings").debug("hidden")
    first, second = lines(out)
    assert first["message"] == "store_slow"
    assert (first["logger"], first["level"], first["seconds"]) == ("tidings.store", "warning", 2)
    assert (second["message"], second["logger"]) == ("cannot listen", "grpc")
    assert first["timestamp"].endswith("Z")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("key", [*sorted(REFUSED_KEYS), "Authorization", "access_token"])
def test_refused_keys_never_get_out(form: Any, key: str) -> None:
    out = io.StringIO()
    configure("debug", form, out)
    log = structlog.get_logger("tidings")
    log.info("event", **{key: "hello, it is me"})
    log.info("event", request={"deep": [{key: "hello, it is me"}]})
    log.bind(**{key: "hello, it is me"}).info("event")
    logging.getLogger("other").info("event", extra={key: "hello, it is me"})
    assert "hello" not in out.getvalue()
    assert out.getvalue().count(REMOVED) >= 3


@pytest.mark.parametrize("form", ["json", "console"])
def test_tokens_are_removed_wherever_they_are(form: Any) -> None:
    token = hs256()
    out = io.StringIO()
    configure("debug", form, out)
    log = structlog.get_logger("tidings")
    log.info("got " + token)  # noqa: G003
    log.info("event", header=f"Bearer {token}", note="Authorization: bearer abc.def")
    log.info("event", things=[token, {"x": (token,)}], error=ValueError(token))
    logging.getLogger("other").warning("got %s", token)
    try:
        raise ValueError(token)
    except ValueError:
        log.exception("failed")
        logging.getLogger("other").exception("failed")
    for part in token.split("."):
        assert part not in out.getvalue()
    assert "abc.def" not in out.getvalue()
    assert "ValueError" in out.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_show_no_local_variables(form: Any) -> None:
    out = io.StringIO()
    configure("debug", form, out)
    said = "what alice " + "said"
    try:
        raise KeyError(len(said))
    except KeyError:
        structlog.get_logger("tidings").exception("failed")
    assert "Traceback" in out.getvalue()
    assert said not in out.getvalue()


def test_bytes_are_told_by_their_number() -> None:
    out = io.StringIO()
    configure("info", "json", out)
    structlog.get_logger("tidings").info("frame", frame=b"a message", view=memoryview(b"abc"))
    assert lines(out)[0]["frame"] == "[9 bytes]"
    assert lines(out)[0]["view"] == "[3 bytes]"


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    out = io.StringIO()
    configure("info", "json", out)
    loop: list[Any] = []
    loop.append(loop)
    structlog.get_logger("tidings").info("a\nb", odd=object(), loop=loop, text_length=3)
    assert lines(out)[0]["message"] == "a\nb"
    assert lines(out)[0]["text_length"] == 3


def test_warnings_are_logged() -> None:
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        configure("info", "json", out)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert "old" in lines(out)[0]["message"]


def test_auto_is_json_off_a_terminal() -> None:
    out = io.StringIO()
    configure("info", "auto", out)
    structlog.get_logger("tidings").info("event")
    assert lines(out)[0]["message"] == "event"
