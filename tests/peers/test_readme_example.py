"""What the README lets a new user type, run as it stands: over MQTT, by the command line and over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from appliance.vocabulary import ROOT
from tests.support.appliance import Appliance

pytestmark = pytest.mark.peer

HOUSE = Path(__file__).parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (HOUSE / "README.md").read_text().partition("## Command it over MQTT\n")[2]
                    .partition("\n## ")[0], re.DOTALL)
OURS = {"mqtt.enabled": True}  # and no host: it starts a broker of its own


async def say(script: str, within_s: float = 30.0) -> tuple[str, str]:
    """What a shell prints on stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(within_s):
        out, err = await process.communicate()
    return out.decode(), err.decode()


async def test_the_commands_over_mqtt_are_carried_out_and_statistics_come(tmp_path: Path) -> None:
    async with Appliance(tmp_path / "house", device="front-door", settings=OURS) as door:
        typed = BLOCKS[0].replace("~/.local/share/edgecall", shlex.quote(str(door.data)))
        out, err = await say(f"set -e\n{typed}\nsleep 6\nkill $!")
        assert err == ""
        told = [(topic, payload) for topic, _, payload in (line.partition(" ") for line in out.splitlines())]
        answers: dict[str, list[dict[str, Any]]] = {}
        for topic, payload in told:
            if topic.startswith(f"{ROOT}/front-door/ack/"):
                answers.setdefault(topic.rpartition("/")[2], []).append(json.loads(payload))
        assert set(answers) == set(re.findall(r"^give (\S+)", typed, re.MULTILINE))
        assert [answer["result"] for answer in answers["call.dial"]] == ["accepted", "failed"]
        assert answers["call.dial"][-1]["subCode"] == "unreachable", "nobody is on duty"
        (relay,) = answers["io.set"]
        assert relay["result"] == "done" or relay["subCode"] == "challenge", relay  # by the clock of this machine
        assert [answer["result"] for answer in answers["stats.subscribe"]] == ["done"]
        samples = [json.loads(payload) for topic, payload in told if topic == f"{ROOT}/front-door/state/quality"]
        assert len(samples) >= 2
        assert {"callId", "quality", "interval", "stats"} <= set(samples[0])


async def test_the_commands_of_the_other_doors_are_taken(tmp_path: Path) -> None:
    async with Appliance(tmp_path / "house", settings={"mqtt.enabled": False}) as door:
        program = f"{shlex.quote(sys.executable)} -m appliance.doors.cli --data {shlex.quote(str(door.data))}"
        lines = [line.partition(" #")[0].strip() for block in BLOCKS[1:] for line in block.splitlines() if line.strip()]
        assert len(lines) == 12
        for line in lines:
            typed = line.replace(".venv/bin/edgecall", program).replace("~/.local/share/edgecall", str(door.data))
            if line.endswith((" events", "--follow")):
                typed += " --count 1" if "--follow" in line else " --states --count 1"
            out, err = await say(typed.replace("curl ", "curl -sS "))
            document = json.loads(out)
            if "whip:" in line:
                assert document["subCode"] == "FeatureNotSupported", "no media server is set up"
            elif "call.dial" in line:
                assert document["subCode"] == "unreachable", "nobody is on duty"
            elif "room.join" in line:
                assert document["subCode"] == "FeatureNotSupported", "no server of rooms is set up"
            elif "call.summary" in line:
                assert document["data"]["endReason"]["subCode"] == "unreachable"
            else:
                assert err == "", line
                assert document.get("result", "done") == "done", document
