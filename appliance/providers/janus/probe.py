"""How far a Janus server is."""

from __future__ import annotations

import asyncio
import secrets

from appliance.providers.janus.transport import Connect
from appliance.providers.probe import PINGS

__all__ = ["round_trip"]


async def round_trip(connect: Connect, url: str) -> float:
    """Seconds of its ping; raises OSError, or ValueError for what is no Janus."""
    loop = asyncio.get_running_loop()
    took = []
    channel = await connect(url)
    try:
        for _ in range(PINGS):
            transaction = secrets.token_urlsafe(12)
            began = loop.time()
            await channel.send({"janus": "ping", "transaction": transaction})
            if (await channel.receive()).get("transaction") != transaction:
                raise ValueError("it does not answer as a Janus server does")
            took.append(loop.time() - began)
    finally:
        await channel.close()
    return min(took)
