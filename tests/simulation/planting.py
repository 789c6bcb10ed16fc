"""Planting: the real code with one line of a function replaced, for as long as a bug is to be there."""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class CannotPlant(Exception):
    """The code that a bug is about looks otherwise now."""


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replaces an attribute of a module or class."""
    before = inspect.getattr_static(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def changed(owner: Any, name: str, old: str, new: str) -> Iterator[None]:
    """Replaces a piece of the source of a function or method, wherever it was imported to."""
    function = inspect.getattr_static(owner, name)
    target = function.fget if isinstance(function, property) else function
    source = textwrap.dedent(inspect.getsource(target))  # type: ignore[arg-type]
    if source.count(old) != 1:
        raise CannotPlant(f"{owner.__name__}.{name} has {source.count(old)} times {old!r}")
    code = compile(
        source.replace(old, new),
        f"<a bug in {name}>",
        "exec",
        flags=__future__.annotations.compiler_flag,
        dont_inherit=True,
    )
    module = sys.modules[target.__module__]
    space: dict[str, Any] = {}
    exec(code, module.__dict__, space)
    value = space[name]
    if inspect.isclass(owner):
        with replaced(owner, name, value):
            yield
        return
    places = [
        (m, key)
        for m in list(sys.modules.values())
        if (getattr(m, "__name__", "")).startswith(("tidings_server", "tidings."))
        for key, found in list(vars(m).items())
        if found is function
    ]
    for place, key in places:
        setattr(place, key, value)
    try:
        yield
    finally:
        for place, key in places:
            setattr(place, key, function)
