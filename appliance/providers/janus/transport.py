"""How messages get to a Janus server and back. Implemented by ``websocket`` and ``mqtt``; nothing else knows which."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Set
from typing import Any, Final, Protocol

from appliance.vocabulary import Json

__all__ = ["CLOSE_S", "HEARTBEAT_S", "MAX_MESSAGE", "Channel", "Connect", "parsed"]

HEARTBEAT_S: Final = 5.0  # of silence until it is asked whether the other end is there
MAX_MESSAGE: Final = 1024 * 1024  # bytes: a room of hundreds with the session descriptions of all that is shown
CLOSE_S: Final = 0.5


class Channel(Protocol):
    """A connection to one server that is there: JSON objects in order, both ways. Used once."""

    async def send(self, message: Json) -> None:
        """Raises ConnectionError when it is over."""

    async def receive(self) -> Json:
        """The next one; what is no JSON object is left out. Raises ConnectionError, with words for people, when it is
        over."""

    def is_cut_off(self, addresses: Set[str]) -> bool:
        """Whether it begins at none of these addresses of this machine any more."""

    async def close(self) -> None:
        """Send what was given, then leave. May be called twice."""


Connect = Callable[[str], Awaitable[Channel]]
"""Connect to the server at a URL. Raises OSError, and ValueError for what is no Janus server."""


def parsed(text: Any) -> Json | None:
    """A JSON object; None for anything else."""
    try:
        message = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
