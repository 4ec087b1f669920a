"""The board as the appliance sees it: faults to diagnostics, ``state/devices``, and the verbs of the simulated one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from appliance.bulletin import Bulletin
from appliance.care.choice import DeviceChoice
from appliance.care.diagnostics import Diagnostics
from appliance.errors import BadRequest, Refused
from appliance.handover import Inbox
from appliance.intake import Handler
from appliance.vocabulary import Command, Json
from hw.api import Board, DeviceFailedError, Fault, Kind, Simulation

__all__ = ["BoardCare"]

FAULTS: Final = 64  # waiting to be told; a board with more at once is off the wall

_AWAY: Final = {
    Kind.MICROPHONE: "microphoneUnplugged", Kind.SPEAKER: "speakerUnplugged", Kind.CAMERA: "cameraUnplugged"}


class _Devices:
    """The devices are others than before, and nothing is wrong with them."""


class BoardCare:
    """Lives on the loop; the board's threads only reach its Inbox."""

    def __init__(self, board: Board, choice: DeviceChoice, bulletin: Bulletin, diagnostics: Diagnostics) -> None:
        self._board = board
        self._choice = choice
        self._bulletin = bulletin
        self._diagnostics = diagnostics
        self._inbox: Inbox[Fault | _Devices] | None = None
        self._selecting = 0  # commands under way

    async def run(self) -> None:
        """Serve until cancelled."""
        self._inbox = inbox = Inbox[Fault | _Devices](asyncio.get_running_loop(), FAULTS, "board.faults")
        self._publish()
        self._board.on_fault(inbox.put)
        self._board.on_devices(lambda: inbox.put(_Devices()))
        try:
            while True:
                told = await inbox.get()
                if isinstance(told, Fault):
                    self._diagnostics.fault(told)
                self._publish()
        finally:
            self._inbox.close()

    def handlers(self) -> Mapping[str, Handler]:
        """``devices.*`` and ``sim.*``."""
        simulation = self._board.simulation
        return {
            "devices.select": self._select, "devices.volume": self._volume,
            "sim.press": self._sim(self._press, simulation), "sim.input": self._sim(self._input, simulation),
            "sim.fault": self._sim(self._fault, simulation), "sim.source": self._sim(self._source, simulation),
            "sim.plug": self._sim(self._plug, simulation),
        }

    def _publish(self) -> None:
        if self._selecting:
            return  # half of it has happened; what came of it is told at its end
        devices, before = self._board.devices(), self._bulletin.document("devices")
        # A sound card's microphone and loudspeaker have one id.
        old = {(one["kind"], one["id"]): one for one in before.get("devices", ())}
        new = {(one["kind"], one["id"]): one for one in self._choice.rows(devices)}
        audio = self._board.audio
        for kind, why in self._choice.away(devices).items():
            self._diagnostics.flag(_AWAY[kind], bool(why), cause="selected", what=why)
        choice = self._choice.documents(devices)
        changed = self._bulletin.set("devices", {
            "devices": list(new.values()), "choice": choice, "volume": None if audio is None else audio.volume})
        for name, now in choice.items():
            was = before.get("choice", {}).get(name, now)
            if (was["selected"], was["used"]) != (now["selected"], now["used"]):
                self._bulletin.post("devices.selected", kind=name, **now)
        present_before = {key for key, one in old.items() if one["present"]}
        present = {key for key, one in new.items() if one["present"]}
        if changed and old and present != present_before:
            self._bulletin.post("devices.updated", added=_ids(present - present_before),
                                removed=_ids(present_before - present), devices=list(new.values()))

    async def _select(self, command: Command) -> Json:
        self._selecting += 1
        try:
            return {"choice": await self._choice.select(Kind(command.args["kind"]), command.args["id"])}
        finally:
            self._selecting -= 1
            self._publish()

    async def _volume(self, command: Command) -> None:
        audio = self._board.audio
        if audio is None:
            raise Refused("this board has no loudspeaker", code=501, sub_code="FeatureNotSupported", retryable=False)
        audio.set_volume(command.args["percent"])
        self._diagnostics.flag("speakerVolumeIsZero", command.args["percent"] == 0, cause="volume")
        self._publish()

    def _sim(self, act: Callable[[Simulation, Command], Awaitable[None]], simulation: Simulation | None) -> Handler:
        async def handle(command: Command) -> None:
            if simulation is None:
                raise Refused(f"{command.verb.name} is for the simulated board; this one is real",
                              code=403, sub_code="realBoard", retryable=False)
            await act(simulation, command)
            self._publish()

        return handle

    async def _press(self, simulation: Simulation, command: Command) -> None:
        name = command.args["button"]
        panel = self._board.panel
        known = () if panel is None else panel.buttons
        if name not in known:
            raise BadRequest(f"there is no button {name!r}; there are: {', '.join(known)}", code=404,
                             sub_code="notFound")
        simulation.press(name, float(command.args.get("seconds", 0.15)))

    async def _input(self, simulation: Simulation, command: Command) -> None:
        name = command.args["input"]
        panel = self._board.panel
        known = () if panel is None else panel.inputs
        if name not in known:
            raise BadRequest(f"there is no input {name!r}; there are: {', '.join(known)}", code=404,
                             sub_code="notFound")
        simulation.set_input(name, command.args["closed"])

    async def _fault(self, simulation: Simulation, command: Command) -> None:
        name = command.args["fault"]
        if name not in simulation.faults:
            raise BadRequest(f"there is no fault {name!r}; there are: {', '.join(simulation.faults)}", code=404,
                             sub_code="notFound")
        value = command.args.get("value")
        active = command.args.get("active", True)
        try:
            await asyncio.to_thread(simulation.fault, name, active, None if value is None else float(value))
        except ValueError as error:  # a value that the fault cannot have
            raise BadRequest(str(error), sub_code="value") from error

    async def _source(self, simulation: Simulation, command: Command) -> None:
        kind, spec = Kind(command.args["device"]), command.args["source"]
        await self._there_is(spec)
        try:
            await asyncio.to_thread(simulation.source, kind, spec)
        except (ValueError, DeviceFailedError) as error:  # no source is called so, or that file holds none
            raise BadRequest(str(error), sub_code="source") from error


    async def _plug(self, simulation: Simulation, command: Command) -> None:
        kind, spec = Kind(command.args["device"]), command.args.get("source", "")
        await self._there_is(spec)
        try:
            await asyncio.to_thread(simulation.plug, kind, command.args.get("plugged", True), spec)
        except (ValueError, DeviceFailedError) as error:
            raise BadRequest(str(error), sub_code="source") from error

    @staticmethod
    async def _there_is(spec: str) -> None:
        """The file of a source, where it is one."""
        what, colon, path = spec.partition(":")
        if colon and what in ("wav", "file", "clip") and not await asyncio.to_thread(Path(path).is_file):
            raise BadRequest(f"there is no file {path!r} on the device", code=404, sub_code="notFound")


def _ids(keys: Iterable[tuple[str, str]]) -> list[str]:
    return sorted({name for _, name in keys})
