"""Signalling between appliances over their one MQTT connection: ``edgecall/v1/<to>/signal/<from>``.

The caller is the ``<from>`` segment, which the broker's ACL proves, never the payload. Messages may come twice, late
and in another order; retained ones, ones without expiry that would ring, and those of devices that are neither in the
address book nor in ``direct.fleet`` (nor just being called by us) are refused.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Final

from appliance.clock import Clock
from appliance.errors import Refused
from appliance.link.api import Link, Message
from appliance.providers.api import Peer
from appliance.providers.direct.endpoint import Endpoint, Switchboard
from appliance.vocabulary import ID_PATTERN, ROOT

__all__ = ["Fleet"]

ENDPOINTS: Final = 256
"""Devices remembered; those without a call go first. Their nonces and limits are forgotten with them."""

_ID: Final = re.compile(ID_PATTERN)


class _Topic:
    """A Wire to one device."""

    def __init__(self, link: Link, topic: str) -> None:
        self._link = link
        self._topic = topic

    async def send(self, text: str, expiry_s: int) -> bool:
        if not self._link.connected:
            return False
        taken = await self._link.publish(self._topic, text.encode(), qos=1, expiry_s=expiry_s)
        # Not acknowledged though still connected: the broker took or refused it, and repeating would not mend that.
        return taken or self._link.connected

    async def close(self, code: int, reason: str) -> None:
        """A topic cannot be closed."""


class Fleet:
    """Endpoints by device id, over a Link."""

    def __init__(self, device: str, switchboard: Switchboard, clock: Clock, link: Link,
                 accept_from: Callable[[str], bool]) -> None:
        self._device = device
        self._switchboard = switchboard
        self._clock = clock
        self._link = link
        self._accept_from = accept_from
        self._endpoints: dict[str, Endpoint] = {}
        self._wires: dict[str, _Topic] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._started = False

    @property
    def connected(self) -> bool:
        return self._link.connected

    def start(self) -> None:
        if self._started:
            return
        self._started = True
        self._link.receive(f"{ROOT}/{self._device}/signal/+", self._on_message)
        self._link.on_connection(self._on_connection)

    async def close(self) -> None:
        """Let go of all endpoints. May be called twice."""
        self._started = False
        endpoints, self._endpoints, self._wires = list(self._endpoints.values()), {}, {}
        await asyncio.gather(*self._closing, *(endpoint.close() for endpoint in endpoints))

    def endpoint(self, device: str) -> Endpoint:
        """The endpoint of a device. Raises Refused for what is no device id, and for our own."""
        found = self._endpoints.get(device)
        if found is not None:
            return found
        if not _ID.fullmatch(device) or device == self._device:
            raise Refused(f"There is no other device {device!r}.", code=404, sub_code="notFound")
        self._make_room()
        peer = Peer(device, f"device:{device}", device, "device", verified=True)
        endpoint = Endpoint(f"fleet:{device}", peer, self._switchboard, self._clock)
        endpoint.device = device
        self._endpoints[device] = endpoint
        self._wires[device] = _Topic(self._link, f"{ROOT}/{device}/signal/{self._device}")
        if self._link.connected:
            endpoint.attach(self._wires[device])
        return endpoint

    def _make_room(self) -> None:
        if len(self._endpoints) < ENDPOINTS:
            return
        idle = next((device for device, endpoint in self._endpoints.items() if not endpoint.calls), None)
        if idle is None:
            raise Refused(f"Calls with {ENDPOINTS} devices are going on.", code=503, sub_code="provider")
        self._wires.pop(idle)
        task = asyncio.create_task(self._endpoints.pop(idle).close(), name="direct.fleet.close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _on_connection(self, connected: bool) -> None:
        for device, endpoint in tuple(self._endpoints.items()):
            if connected and not endpoint.up:
                endpoint.attach(self._wires[device])
            elif not connected and endpoint.up:
                endpoint.detach(self._wires[device])

    async def _on_message(self, message: Message) -> None:
        if not self._started:
            return
        sender = message.topic.rpartition("/")[2]
        known = self._endpoints.get(sender)
        if message.retained:
            self._switchboard.refused("a retained signalling message", sender)
            return
        if not _ID.fullmatch(sender) or sender == self._device:
            self._switchboard.refused("signalling from what is no device id", sender[:64])
            return
        if not self._accept_from(sender) and not (known is not None and known.calls):
            self._switchboard.refused("signalling from a device that is neither in the address book nor in "
                                      "direct.fleet", sender)
            return
        if message.expiry_s is None:
            self._switchboard.refused("a signalling message without expiry, or it ran out on the way", sender)
            return
        self.endpoint(sender).receive(message.payload)
