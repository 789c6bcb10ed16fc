"""What tests of sessions ask of devices."""

from __future__ import annotations

from tests.unit.world import Device, until
from tidings.v1 import error_pb2


async def level(device: Device, log: str, head: int, start: int = 0) -> None:
    """Waits until a device has got everything up to a position, in order."""
    await until(lambda: device.applied(log, start) >= head)
    assert device.applied(log, start) == head


def reasons(device: Device) -> dict[int, str]:
    """The reasons of the commands that failed, by their numbers."""
    return {
        r.command_id: error_pb2.ErrorReason.Name(r.error.reason).removeprefix("ERROR_REASON_")
        for r in device.results()
        if r.WhichOneof("outcome") == "error"
    }
