"""The far end of a media bench, in a process of its own: answers one offer on stdin and receives until stdin ends."""

from __future__ import annotations

import asyncio
import json
import sys

from appliance.media.api import Directions, IceServers, SessionClosed
from appliance.media.studio import Studio
from appliance.settings import VideoSettings
from tests.support.media_board import HandBoard


async def main() -> None:
    studio = Studio(HandBoard(audio=False, camera=False), VideoSettings())
    await studio.open()
    session = studio.session(Directions(send_audio=False, send_video=False), ice=IceServers(), loopback=True)
    session.peer_sends(audio=False, video=True)
    loop = asyncio.get_running_loop()
    offer = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    print(json.dumps(await session.answer(offer)), flush=True)
    async for event in session.events():
        if isinstance(event, SessionClosed):
            break
    stats = next((e for e in await session.stats() if e["id"] == "in-video"), {})
    print(json.dumps({"framesReceived": session.incoming["video"].counters.frames, **stats}), flush=True)
    await studio.close()


asyncio.run(main())
