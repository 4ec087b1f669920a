"""The one MQTT connection as its users see it (the MQTT door, direct signalling, later Janus over MQTT)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Link", "Message"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message received. ``expiry_s`` is the MessageExpiryInterval that remained on arrival, or None."""

    topic: str
    payload: bytes
    retained: bool
    qos: int
    expiry_s: float | None
    correlation: bytes | None
    response_topic: str | None
    arrived: float  # monotonic seconds


class Link(Protocol):
    """Publish and receive. All on the loop; the connection lives in paho's thread and comes and goes by itself."""

    @property
    def connected(self) -> bool: ...

    def on_connection(self, tell: Callable[[bool], None]) -> None:
        """Told at every change, on the loop; at once with the present state."""

    def receive(self, topic_filter: str, handler: Callable[[Message], Awaitable[None]]) -> None:
        """Subscribe (QoS 1, again after each reconnect). The message is acknowledged to the broker only after
        ``handler`` has returned; a handler that raises is logged as a defect and the message acknowledged.
        Filters must not overlap."""

    async def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False,
                      expiry_s: int | None = None) -> bool:
        """Publish now if connected (returns whether it was handed over and, for QoS 1, acknowledged within 5 s).
        Nothing is queued."""

    async def enqueue(self, topic: str, payload: bytes, *, expiry_s: int | None = None) -> None:
        """Write to the outbox (SQLite, committed when this returns); delivered in order, at least once."""
