"""The connection to one of the Janus servers: messages in order, both ways, and the word that it is up or gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Set
from typing import Final

from appliance.providers.endpoints import Endpoints
from appliance.providers.janus.pulse import Pulse
from appliance.providers.janus.transport import CLOSE_S, Channel, Connect
from appliance.tasks import background
from appliance.vocabulary import Json

__all__ = ["JanusLink"]

log = logging.getLogger(__name__)

CONNECT_S: Final = 3.0
HURRY_S: Final = 1.5  # where there is another server to try
WAITING: Final = 256  # messages that wait to be sent


class JanusLink:
    """Connected as often as it is opened, to the server that ``endpoints`` selects; one connection at a time.

    Called on the loop, never for a connection that was shut: ``on_up`` (whether it is the server of the last time),
    ``on_message``, and ``on_down`` (with words for people, and whether another server has not been tried yet).
    ``alone`` says whether this connection is the only one that could tell that the server is gone.
    """

    def __init__(
        self, connect: Connect, endpoints: Endpoints, name: str, *, on_up: Callable[[bool], None],
        on_message: Callable[[Json], None], on_down: Callable[[str, bool], None], alone: Callable[[], bool],
    ) -> None:
        self._connect = connect
        self._endpoints = endpoints
        self._name = name
        self._on_up = on_up
        self._on_message = on_message
        self._on_down = on_down
        self._alone = alone
        self._outbox: asyncio.Queue[Json | None] = asyncio.Queue(WAITING)
        self._task: asyncio.Task[None] | None = None
        self._channel: Channel | None = None  # of the task
        self._left: set[asyncio.Task[None]] = set()
        self._url = ""  # of the server that was connected to last
        self._tried: set[str] = set()  # in vain, since the last connection

    def open(self) -> None:
        """Connect; ``on_up`` or ``on_down`` follows."""
        self.shut()
        self._outbox = asyncio.Queue(WAITING)
        self._task = asyncio.create_task(self._serve(self._endpoints.selected, self._outbox),
                                         name=f"janus.link.{self._name}")

    def send(self, message: Json) -> None:
        """In order; to nobody when there is no connection."""
        try:
            self._outbox.put_nowait(message)
        except asyncio.QueueFull:  # a server that takes nothing for so long does not answer either, which is noticed
            log.warning("the room server takes no messages")

    def give_up(self, words: str) -> None:
        """The server that is connected says nothing."""
        self.shut()
        self._not_reached(self._url, words)

    def network_changed(self, addresses: Set[str]) -> None:
        """A connection that begins at none of these addresses any more is over: it would be silent for long."""
        if self._channel is not None and self._channel.is_cut_off(addresses):
            self.shut()
            self._on_down("the network it went through is gone", False)

    def shut(self) -> None:
        """Leave the connection at once; its socket closes behind us."""
        self._channel = None
        if self._task is not None:
            self._task.cancel()
            self._left.add(self._task)
            self._task.add_done_callback(self._left.discard)
            self._task = None

    async def close(self) -> None:
        """Send what waits, then leave; within a second."""
        task = self._task
        if task is not None:
            with contextlib.suppress(asyncio.QueueFull):
                self._outbox.put_nowait(None)
            await asyncio.wait({task}, timeout=CLOSE_S)
        self.shut()
        if self._left:
            await asyncio.wait(tuple(self._left), timeout=CLOSE_S)

    async def _serve(self, url: str, outbox: asyncio.Queue[Json | None]) -> None:
        try:
            await self._talk(url, outbox)
        except Exception:
            log.exception("the connection to the room server failed; this is a defect")
            if self._task is asyncio.current_task():
                self._task = self._channel = None
                self._on_down("it was left because of a fault here", False)

    async def _talk(self, url: str, outbox: asyncio.Queue[Json | None]) -> None:
        try:
            async with asyncio.timeout(HURRY_S if self._untried(url) else CONNECT_S):
                channel = await self._connect(url)
        except TimeoutError:
            self._not_reached(url, "no connection in time")
            return
        except (OSError, ValueError) as error:
            self._not_reached(url, str(error))
            return
        async with contextlib.aclosing(_Closing(channel)):
            same, self._url = url == self._url, url
            self._tried.clear()
            self._endpoints.worked(url)
            self._channel = channel
            pulse = Pulse(self.send, self._alone)
            beside = [asyncio.create_task(self._write(channel, outbox), name=f"janus.link.write.{self._name}"),
                      background(self._feel(pulse), name=f"janus.link.pulse.{self._name}", failed=_defect)]
            try:
                self._on_up(same)
                words = await self._read(channel, pulse)
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
        self._task = self._channel = None
        self._on_down(words, False)

    async def _read(self, channel: Channel, pulse: Pulse) -> str:
        """Until it is over; returns why."""
        while True:
            try:
                message = await channel.receive()
            except ConnectionError as error:
                return str(error)
            if not pulse.heard(message):
                self._on_message(message)

    async def _feel(self, pulse: Pulse) -> None:
        await pulse.stopped()
        self.shut()
        self._on_down("it does not answer", False)

    async def _write(self, channel: Channel, outbox: asyncio.Queue[Json | None]) -> None:
        with contextlib.suppress(ConnectionError):
            while (message := await outbox.get()) is not None:
                await channel.send(message)
        await channel.close()

    def _untried(self, url: str) -> Set[str]:
        """The other servers."""
        return set(self._endpoints.urls) - self._tried - {url}

    def _not_reached(self, url: str, words: str) -> None:
        self._task = None
        self._endpoints.failed(url, words)
        elsewhere = bool(self._untried(url))
        self._tried = self._tried | {url} if elsewhere else set()
        self._on_down(words, elsewhere)


def _defect(error: Exception) -> None:
    log.error("the end of a connection to the room server was not told; this is a defect", exc_info=error)


class _Closing:
    """A channel under the name that ``aclosing`` knows."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def aclose(self) -> None:
        await self._channel.close()
