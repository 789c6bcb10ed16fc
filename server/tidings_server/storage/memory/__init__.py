"""The store in memory: the oracle of the contract, which can also misbehave on demand."""

from tidings_server.storage.memory.disk import MemoryDisk
from tidings_server.storage.memory.faults import Call, Fate, Faults, Happens, RandomFaults
from tidings_server.storage.memory.store import MemoryStore

__all__ = [
    "Call",
    "Fate",
    "Faults",
    "Happens",
    "MemoryDisk",
    "MemoryStore",
    "RandomFaults",
]
