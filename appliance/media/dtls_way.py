"""The way of a line with DTLS: one association for RTP and RTCP together (RFC 5761), or one for each, on ports side by
side, where the peer takes RTCP on a port of its own (RFC 5764 3).

That of RTP is the way; without the other one it goes on, and there are no reports.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from appliance.media.api import IceServers
from appliance.media.association_seam import Association
from appliance.media.dtls_seam import CertificateFacts
from appliance.media.servers import ServerPool
from appliance.media.ways import STRANGER, Address, OurEnd, Place, TheirEnd
from appliance.tasks import background, fail_loudly

__all__ = ["DtlsWay"]

log = logging.getLogger(__name__)

REPORTS_WITHIN_S: Final = 30.0  # of the first association: five handshakes that were lost


class DtlsWay:
    """A ``ways.Way``. See ``Association`` for what it is made with, and ``open``, ``agree``.

    ``mux``: the peer is known to multiplex. Else RTCP has a port from the beginning, for a description that leaves it
    to the peer (RFC 5761 5.1.1), which is let go of when it does. No server is asked for paths to that port: nearly all
    multiplex, and calls need no reports.
    """

    def __init__(
        self, take: Callable[[bytes, bool], bool], *, name: str, host: str, servers: ServerPool, loopback: bool,
        ice: bool, marking: int, on_arrival: Callable[[], None], on_state: Callable[[], None], mux: bool,
    ) -> None:
        self._take = take
        self._name = name
        self._on_state = on_state
        made = partial(Association, loopback=loopback, ice=ice, marking=marking, on_arrival=on_arrival)
        self._media = made(take, name=name, host=host, servers=servers, on_state=self._changed)
        self._make_reports = partial(
            made, self._take_report, name=f"{name} rtcp", servers=ServerPool(IceServers()),
            on_state=self._reports_changed, beside=self._media)
        self._reports: Association | None = None
        self._port = 0  # of them
        self._apart = not mux
        self._given_up = False
        self._waiting: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._closed = False
        self.mux = True

    async def open(self) -> OurEnd:
        """Raises OSError where the machine has no port, or no address of the kind."""
        ours = await self._media.open()
        if not self._apart:
            return ours
        if self._closed:
            raise OSError("the session is over")
        self._reports = self._make_reports(host=ours.address[0])
        return self._joined(ours, await self._reports.open())

    def _joined(self, ours: OurEnd, reports: OurEnd) -> OurEnd:
        self._port = reports.address[1]
        ice = ours.ice
        if ice is not None and reports.ice is not None:
            ice = replace(ice, candidates=(*ice.candidates, *reports.ice.candidates))
        return replace(ours, ice=ice, rtcp=self._port)

    async def restart_ice(self) -> OurEnd:
        """See ``Association.restart_ice``."""
        ours = await self._media.restart_ice()
        if self._reports is None or not self._apart or self._given_up:
            return replace(ours, rtcp=self._port)
        return self._joined(ours, await self._reports.restart_ice())

    def carries(self, place: Place) -> bool:
        return self._media.carries(place)

    # -- what is agreed

    def continues(self, theirs: TheirEnd) -> bool:
        """See ``Association.continues``; a port that was let go of does not come back."""
        return self._media.continues(theirs) and (theirs.mux or self._apart)

    def restarts(self, theirs: TheirEnd) -> bool:
        return self._media.restarts(theirs)

    def agree(self, theirs: TheirEnd, remote: Address, remote_rtcp: Address | None = None) -> None:
        """``remote``, ``remote_rtcp``: where they take RTP and RTCP by their description; None: one port above."""
        self._media.agree(theirs, remote)
        self.mux = theirs.mux
        if theirs.mux:
            self._apart = False
            self._leave()
        elif self._reports is not None and not self._given_up:
            host, port = remote
            self._reports.agree(theirs, remote_rtcp or (host, min(port + 1, 65535)))

    def _leave(self) -> None:
        """RTCP needs no port of its own any more."""
        if self._waiting is not None:
            self._waiting.cancel()
        if self._reports is not None and self._leaving is None:
            self._leaving = background(self._reports.close(), name=f"media.leave {self._name}", failed=fail_loudly)

    # -- how both are

    def _changed(self) -> None:
        if self._media.state == "connected" and not self.mux and self._waiting is None and not self._closed:
            self._waiting = asyncio.get_running_loop().call_later(REPORTS_WITHIN_S, self._look)
        self._on_state()

    def _look(self) -> None:
        if self._reports is not None and self._reports.state == "connecting":
            self._give_up(f"there was no DTLS handshake on it within {REPORTS_WITHIN_S:.0f} s")

    def _reports_changed(self) -> None:
        if self._exposed:
            self._on_state()
        elif self._reports is not None and self._reports.state == "failed":
            self._give_up(self._reports.failure[1])

    def _give_up(self, why: str) -> None:
        if not self._given_up:
            self._given_up = True
            log.warning("%s goes on without reports, which the other side takes on a port of their own: %s",
                        self._name, why)
            self._leave()

    @property
    def _exposed(self) -> bool:
        """Somebody stands between on the path of RTCP."""
        return self._reports is not None and self._reports.failure[1] == STRANGER

    @property
    def state(self) -> str:
        return "failed" if self._exposed else self._media.state

    @property
    def failure(self) -> tuple[str, str]:
        if self._exposed and self._reports is not None:
            return self._reports.failure
        return self._media.failure

    @property
    def malformed(self) -> int:
        return self._media.malformed + (self._reports.malformed if self._reports is not None else 0)

    @property
    def strangers(self) -> int:
        return self._media.strangers + (self._reports.strangers if self._reports is not None else 0)

    @property
    def address(self) -> str | None:
        return self._media.address

    def security(self) -> Mapping[str, str]:
        return self._media.security()

    def certificates(self) -> Mapping[str, CertificateFacts]:
        return self._media.certificates()

    def facts(self) -> dict[str, Any]:
        return self._media.facts()

    def mark(self, marking: int) -> None:
        self._media.mark(marking)
        if self._reports is not None:
            self._reports.mark(marking)

    # -- packets

    def _take_report(self, data: bytes, rtcp: bool) -> bool:
        return rtcp and self._take(data, rtcp)

    async def send(self, packet: bytes, *, rtcp: bool) -> None:
        """To nobody while there is no association (yet), as a network would."""
        if self.mux or not rtcp or self._closed:
            await self._media.send(packet)
        elif self._reports is not None:
            with suppress(ConnectionError):  # it was given up
                await self._reports.send(packet)

    async def close(self) -> None:
        self._closed = True
        self._leave()
        await self._media.close()
        if self._leaving is not None:
            await asyncio.gather(self._leaving, return_exceptions=True)
