"""The gRPC server of a node."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from ..node import Node
from ..operations.unary import CHAT, UNARY, Operations
from .access import DenyUnlisted
from .certificate import Certificate
from .chat import chat_service
from .unary import unary_services

# Frames over the node's own limit get an error of their own; only what is far over it ends the
# stream.
_RECEIVE_SLACK = 8
OPTIONS: tuple[tuple[str, int], ...] = (
    # A second server on the same port would share it without a word.
    ("grpc.so_reuseport", 0),
    # A device that vanished is found within a minute and a half.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients may ping idle streams; grpc would send them away for it.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)


class RpcServer:
    """Serves a node's services, health and reflection on one address."""

    def __init__(self, node: Node, address: str, certificate: Certificate | None = None) -> None:
        """Raises OSError when the address can't be had. Without a certificate nothing is encrypted."""
        limit = node.limits.max_frame_bytes * _RECEIVE_SLACK
        self._server = grpc.aio.server(
            interceptors=[DenyUnlisted()],
            options=[*OPTIONS, ("grpc.max_receive_message_length", limit)],
        )
        self.operations = Operations(node)
        self._server.add_generic_rpc_handlers(
            (chat_service(node), *unary_services(self.operations))
        )
        self._names = [CHAT.full_name, *(service.full_name for service in UNARY)]
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        try:
            if certificate is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, certificate.credentials())
        except RuntimeError as problem:
            raise OSError(f"can't listen on {address}") from problem

    async def start(self) -> None:
        """Begins to serve."""
        await self._server.start()
        await self.set_serving(True)

    async def set_serving(self, serving: bool) -> None:
        """Tells health checks whether clients should come here."""
        status = health_pb2.HealthCheckResponse
        value = status.SERVING if serving else status.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, value)

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, and ends those that are left after the grace period."""
        await self._server.stop(grace_s)
