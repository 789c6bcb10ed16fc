"""The bus over Redis: frames, subscriptions, connections, and the bus that they make."""

from .bus import BusCounts, RedisBus

__all__ = ["BusCounts", "RedisBus"]
