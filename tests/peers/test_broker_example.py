"""A broker of one's own: the commands of the documentation and the configuration that ships, run as they stand."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from appliance.link.local import find_mosquitto
from appliance.vocabulary import ROOT
from tests.support.appliance import Appliance, envelope
from tests.support.ports import free_port

pytestmark = pytest.mark.peer

HOUSE = Path(__file__).parents[2]
SECTION = (HOUSE / "docs" / "operations.md").read_text().partition("## A broker of your own\n")[2].partition("\n## ")[0]
HERE = f"{ROOT}/front-door"


def documented(etc: Path, port: int) -> str:
    """The commands of the section, in a folder of ours. Not run: installing, the service, and giving files away."""
    block = re.search(r"```sh\n(.*?)```", SECTION, re.DOTALL)
    assert block is not None
    text = block[1].replace("$(hostname -f)", "localhost").replace("/etc/mosquitto", str(etc))
    text = text.replace("/opt/edgecall/bin/python", sys.executable)
    text = re.sub(r"(mosquitto_passwd) (\S+) (\S+)", r"\1 -b \2 \3 \3", text)
    text = re.sub(r"^(apt-get|systemctl) .*$|&& chown .*?(?=&&|$)|^chown .*?&& ", "", text, flags=re.MULTILINE)
    conf = etc / "conf.d" / "edgecall.conf"
    return f"set -e\n{text}\nsed -i 's|/etc/mosquitto|{etc}|; s|^listener 8883|listener {port}|' {conf}\n"


@contextlib.asynccontextmanager
async def broker(etc: Path) -> AsyncIterator[int]:
    """Debian's main file around it; its port."""
    port = free_port()
    for folder in ("certs", "conf.d", "data"):
        (etc / folder).mkdir(parents=True)
    made = await asyncio.to_thread(
        subprocess.run, ["bash", "-c", documented(etc, port)], cwd=HOUSE, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    main = etc / "mosquitto.conf"
    main.write_text(f"user {pwd.getpwuid(os.geteuid()).pw_name}\npersistence true\npersistence_location {etc}/data/\n"
                    f"log_dest stderr\ninclude_dir {etc}/conf.d\n")
    program = await asyncio.to_thread(find_mosquitto)
    process = await asyncio.create_subprocess_exec(program, "-c", str(main), stderr=asyncio.subprocess.PIPE)
    try:
        assert process.stderr is not None
        said = ""
        async with asyncio.timeout(10):
            while " running" not in said:
                line = (await process.stderr.readline()).decode()
                assert line, f"it ended: {said}"
                said += line
        assert "Warning" not in said.replace("Warning: Mosquitto should not be run as root", ""), said
        draining = asyncio.create_task(process.stderr.read())
        yield port
        process.terminate()
        await draining
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_the_documented_broker_carries_what_a_user_may_and_no_more(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    async with broker(etc) as port:
        authority = etc / "certs" / "edgecall-ca.crt"
        secret = tmp_path / "mqtt.password"
        secret.write_text("front-door\n")
        secret.chmod(0o600)
        settings = {"mqtt.enabled": True, "mqtt.host": "localhost", "mqtt.port": port, "mqtt.tls": True,
                    "mqtt.ca_file": authority, "mqtt.username": "front-door", "mqtt.password_file": secret}
        async with (
            Appliance(tmp_path / "house", device="front-door", settings=settings),
            aiomqtt.Client("localhost", port, username="desk", password="desk", protocol=aiomqtt.ProtocolVersion.V5,
                           tls_context=ssl.create_default_context(cafile=authority)) as desk,
        ):
            async with asyncio.timeout(20):
                await desk.subscribe(f"{HERE}/state/call", qos=1)
                state = await anext(desk.messages)
                assert json.loads(bytes(state.payload))["state"] == "None"
                await desk.subscribe(f"{HERE}/ack/+", qos=1)
                # an administrator's verb is dropped by the broker: only the second is answered
                await desk.publish(f"{HERE}/cmd/config.reload", json.dumps(envelope("config.reload", {})), qos=1)
                await desk.publish(f"{HERE}/cmd/call.muteIncoming",
                                   json.dumps(envelope("call.muteIncoming", {}, command_id="second")), qos=1)
                async for message in desk.messages:
                    if message.topic.matches(f"{HERE}/ack/+"):
                        assert json.loads(bytes(message.payload))["id"] == "second"
                        break
