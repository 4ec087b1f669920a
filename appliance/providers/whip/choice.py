"""The servers of one way, of which one is used: passed over when it does not answer or is not well."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from appliance.providers.endpoints import Endpoints
from appliance.providers.whip.protocol import Setback
from appliance.providers.whip.resource import Endpoint, Resource

__all__ = ["Choice"]

log = logging.getLogger(__name__)

HURRY_S: Final = 3.0  # for an answer, where there is another server to ask
ELSEWHERE: Final = (429, 500, 502, 503, 504)
"""Answers of a server that is not well: another one may be. What the others say they would say of the offer, too."""


class Choice:
    """``make``: how an address is asked. ``plays``: by WHEP."""

    def __init__(self, endpoints: Endpoints, make: Callable[[str], Endpoint], *, plays: bool) -> None:
        self.plays = plays
        self._endpoints = endpoints
        self._make = make
        self._url = ""  # of the server that answered last

    @property
    def several(self) -> bool:
        return len(self._endpoints.urls) > 1

    async def create(self, offer: str) -> Resource:
        """Ask for a session, each server once at the most. Raises the Setback of the last one."""
        untried = set(self._endpoints.urls)
        while True:
            url = self._endpoints.selected
            untried.discard(url)
            try:
                resource = await self._make(url).create(offer, HURRY_S if untried else None)
            except Setback as setback:
                if setback.status is not None and setback.status not in ELSEWHERE:
                    raise
                self._endpoints.failed(url, setback.reason.message)
                if self._endpoints.selected not in untried:
                    raise
                log.info("another media server is asked: %s", setback.reason.message)
            else:
                self._url = url
                self._endpoints.worked(url)
                return resource

    def unreached(self) -> None:
        """The server of the running session does not answer any more."""
        if self.several and self._url:
            self._endpoints.failed(self._url, "It did not answer in a call.")
