"""A daemon of the command path alone, to be killed: the real Store, Intake, Session and MqttDoor, and handlers whose
executions are written down in a file, one line each, before they answer."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from appliance.bulletin import Bulletin
from appliance.clock import SystemClock
from appliance.doors.mqtt import MqttDoor
from appliance.intake import Intake
from appliance.link.session import Session
from appliance.settings import MqttSettings, Secret
from appliance.store import Store
from appliance.vocabulary import Command, Json


class Marks:
    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def do(self, command: Command) -> Json | None:
        os.write(self._file, f"{command.id}\n".encode())
        await asyncio.sleep(0.002)  # as a device does: so that kills also fall into the execution
        return {"did": command.id}


async def main(folder: Path, port: int, device: str) -> None:
    store = Store(folder, ballast=0)
    await store.open()
    boot = await store.count("boot")
    bulletin, clock, marks = Bulletin(str(boot)), SystemClock(lambda: True), Marks(folder / "marks")
    intake = Intake(store, {"data.send": marks.do, "call.dial": marks.do, "call.mute": marks.do}, bulletin, clock)
    settings = MqttSettings(host="127.0.0.1", port=port, username=device, password=Secret(device))
    session = Session(settings, device, store)
    door = MqttDoor(session, intake, bulletin, clock, device_id=device)
    await intake.recover()
    door.start()
    session.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
