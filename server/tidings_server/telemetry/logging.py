"""The log: structured, one event a line, without tokens or what people wrote.

Events of structlog and records of the standard library (grpc, OpenTelemetry, asyncio) leave by the
same door, so what `_guard` refuses is refused to all of them.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REFUSED_KEYS = frozenset(
    {
        "authorization",
        "body",
        "content",
        "cookie",
        "password",
        "private_key",
        "secret",
        "text",
        "token",
    }
)
"""Keys whose values are never written, whatever their case, also as the last part of a key such as
`access_token`, and inside of values.
"""

REMOVED = "[removed]"
_TOKEN = re.compile(r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|(?i:\bbearer\s+)[^\s\"',;]+")
_MAX_DEPTH = 6


def configure(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "json", "console"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Sets up the log of the process, on standard error unless another stream is given."""
    out = stream if stream is not None else sys.stderr
    console = form == "console" or (form == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    # Tracebacks become text before the guard, and never show local variables: those hold messages.
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        _guard,
    ]
    if console:
        last.append(structlog.dev.ConsoleRenderer(colors=out.isatty()))
    else:
        last += [structlog.processors.EventRenamer("message"), _ordered]
        last.append(structlog.processors.JSONRenderer(ensure_ascii=False))
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=last)
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


def _guard(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    return {key: _clean(key, value, 0) for key, value in event.items()}


def _ordered(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What every line has comes first, for people who read JSON."""
    first = {k: event.pop(k) for k in ("timestamp", "level", "logger", "message") if k in event}
    return {**first, **event}


def _clean(key: str, value: Any, depth: int) -> Any:
    if _refused(key):
        return REMOVED
    if isinstance(value, str):
        return _TOKEN.sub(REMOVED, value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"[{len(value)} bytes]"
    if depth >= _MAX_DEPTH:
        return "[too deep]"
    if isinstance(value, Mapping):
        return {str(k): _clean(str(k), v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", v, depth + 1) for v in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _TOKEN.sub(REMOVED, repr(value))


def _refused(key: str) -> bool:
    name = key.lower()
    return name in REFUSED_KEYS or name.rpartition("_")[2] in REFUSED_KEYS
