"""Telephony: what a SIP message costs, and how long a call takes to be set up beside a baresip that answers at once.

    python -m tests.bench.bench_sip [--quick] [--json FILE]

* message: CPU time to parse an INVITE of 13 header fields with an offer, and to print it again;
* call in memory: INVITE, 100, 180, 200 and ACK through two agents on a network in memory, CPU time of both;
* INVITE to 200, INVITE to sound: from the command to the answer, and to the first packet of sound, over UDP;
* the same between two appliances by a Kamailio, over WebSockets with TLS; sound with DTLS-SRTP on a path of ICE.

Prints medians and the spread; asserts nothing. Run it within ``scripts/netns``.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

from appliance.providers import api
from appliance.providers.sip.message import parse
from appliance.providers.sip.offer import Negotiation
from appliance.settings import Secret, SipAccountSettings
from tests.bench.figures import Figure, table, write
from tests.support.baresip import baresip
from tests.support.kamailio import PASSWORD, WEBSOCKET, kamailio
from tests.support.sip_device import account, sip_device
from tests.support.sip_messages import INVITE
from tests.support.sip_world import World
from tests.support.turnserver import Authority

BATCH: Final = 200
MESSAGE_MS: Final = 1.0  # a thousand a second on one core
SOUND_MS: Final = 60.0
WEB_SOUND_MS: Final = 200.0


def message() -> bytes:
    """An INVITE as it comes from a telephone."""
    offer = Negotiation("192.0.2.1", {"audio": (30_000, 30_001)}).offer()
    return INVITE.replace(b"Content-Length: 5\r\n\r\nv=0\r\n", b"Content-Length: %d\r\n\r\n" % len(offer) + offer)


def messages(batches: int) -> tuple[float, ...]:
    data, samples = message(), []
    for _ in range(batches):
        begun = time.thread_time()
        for _ in range(BATCH):
            parse(data).serialise()
        samples.append((time.thread_time() - begun) * 1000 / BATCH)
    return tuple(samples)


def transactions(count: int) -> tuple[float, ...]:
    samples = []
    for _ in range(count):
        world = World()
        begun = time.thread_time()
        world.connect()
        samples.append((time.thread_time() - begun) * 1000)
    return tuple(samples)


async def calls(count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Milliseconds to the answer and to sound."""
    answers, sounds = [], []
    line = "<sip:phone@127.0.0.1>;regint=0;audio_codecs=PCMU/8000/1;answermode=auto"
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as folder:
        async with (
            baresip(Path(folder), line) as phone, sip_device("door", account(f"127.0.0.1:{phone.port}")) as door,
        ):
            await door.up()
            for _ in range(count):
                begun = asyncio.get_running_loop().time()
                await door.dial("sip:phone@127.0.0.1")
                await door.connected()
                answers.append((door.when(api.Accepted) - begun) * 1000)
                sounds.append((door.when(api.Connected) - begun) * 1000)
                await door.hang_up()
                await door.ended()
    return tuple(answers), tuple(sounds)


async def web_calls(count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Likewise as browsers call."""
    answers, sounds = [], []
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as name:
        folder = Path(name)
        authority = Authority(folder)
        async with kamailio(folder / "kamailio", tls=authority.issue("127.0.0.1")) as server:
            ends = [SipAccountSettings(
                name="web", address=f"sip:{user}@example.test", servers=(f"127.0.0.1:{server.tls_port}",),
                transport="wss", path=WEBSOCKET, ca_file=str(folder / "authority.crt"), password=Secret(PASSWORD),
                encryption="dtls") for user in ("door", "desk")]
            async with (
                sip_device("door", ends[0], encrypt=True) as door, sip_device("desk", ends[1], encrypt=True) as desk,
            ):
                await door.up()
                await desk.up()
                for _ in range(count):
                    begun = asyncio.get_running_loop().time()
                    await door.dial("sip:desk@example.test")
                    await door.connected()
                    answers.append((door.when(api.Accepted) - begun) * 1000)
                    sounds.append((door.when(api.Connected) - begun) * 1000)
                    await door.hang_up()
                    await door.ended()
                    await desk.ended()
    return tuple(answers), tuple(sounds)


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json")
    arguments = parser.parse_args()
    few = arguments.quick
    answers, sounds = await calls(5 if few else 20)
    web_answers, web_sounds = await web_calls(5 if few else 20)
    figures = [
        Figure("SIP message parsed and printed, CPU", "ms", messages(5 if few else 25), MESSAGE_MS,
               f"{len(message())} bytes"),
        Figure("SIP call set up in memory, CPU", "ms", transactions(20 if few else 200), note="both ends"),
        Figure("INVITE to 200, baresip over UDP", "ms", answers),
        Figure("INVITE to sound, baresip over UDP", "ms", sounds, SOUND_MS),
        Figure("INVITE to 200, by WebSockets", "ms", web_answers, note="both ends are appliances in one process"),
        Figure("INVITE to sound, by WebSockets with DTLS", "ms", web_sounds, WEB_SOUND_MS, "ICE included"),
    ]
    print(table(figures))
    if arguments.json:
        await asyncio.to_thread(write, arguments.json, figures, {"bytes": len(message())})


if __name__ == "__main__":
    asyncio.run(main())
