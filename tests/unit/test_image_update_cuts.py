"""The power goes at any write of an update, or of a way back, from the request to the commit: whichever system comes up
tells the truth, and the next update goes through."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from edgecall_image.daemon import Condition
from edgecall_image.durable import replace_file
from edgecall_image.gate import Gate, Unit, judge
from edgecall_image.layout import Slot, other
from edgecall_image.rauc import Rauc
from edgecall_image.record import Record
from edgecall_image.updater import Paths, Updater
from tests.support.power import HOLDS, Hold, Power
from tests.support.slot_card import Card

RELAY = ("sh", "-c", """echo '{"url": "http://127.0.0.1:1/x"}'; cat >/dev/null""")
VERSION: dict[Slot, str] = {"A": "1.0.0", "B": "1.1.0"}

Verb = Literal["install", "back"]
ENDINGS: Final = {("A", None), ("A", "interrupted"), ("A", "rolledBack"), ("B", "succeeded")}


class Within(Rauc):
    """RAUC's order of things, in this process, so that the power can go within it."""

    def __init__(self, card: Card, slots: Path) -> None:
        super().__init__()
        self._card, self._held = card, slots

    async def install(self, url: str, told: Callable[[int | None, str], None]) -> None:
        target = other(self._card.slots.booted())
        self._card.slots.mark_bad(target)
        replace_file(self._held / target, VERSION[target].encode())
        self._card.slots.make_primary(target)

    async def mark(self, state: str, slot: str = "booted") -> None:
        which = self._card.slots.booted() if slot == "booted" else other(self._card.slots.booted())
        slots = self._card.slots
        {"good": slots.mark_good, "bad": slots.mark_bad, "active": slots.make_primary}[state](which)

    async def version_in(self, slot: Slot) -> str | None:
        path = self._held / slot
        return path.read_text() if path.exists() else None


class Life:
    """One device, one update or way back from start to end; ``accepted``: the service has said that it will."""

    def __init__(self, folder: Path, verb: Verb) -> None:
        folder.mkdir()
        self.card = Card(folder)
        self.marks, self.slots, self.run = self.card.place.marks, folder / "slots", self.card.place.request.parent
        self.slots.mkdir()
        self.rauc = Within(self.card, self.slots)
        settings = folder / "edgecall.toml"
        settings.write_text('[update]\norigins = ["http://127.0.0.1/"]\n')
        self.paths = Paths(marks=self.marks, data=folder, settings=settings, version=folder / "version",
                           system_conf=folder / "system.conf", call_lock=folder / "call.lock", daemon=folder / "none")
        self.paths.system_conf.write_text("[system]\n")
        self.accepted = False
        if verb == "back":
            for known in (self.slots / "B", self.marks / "version.B"):
                known.write_text(VERSION["B"])

    async def service(self) -> Updater:
        self.paths.version.write_text(VERSION[self.card.slots.booted()])
        updater = Updater(self.card.slots, self.rauc, self.paths, relay=RELAY, relay_user="", reboot=("true",),
                          grace_s=0.0)
        await updater.start()
        return updater

    async def update(self, job: str, verb: Verb) -> None:
        updater = await self.service()
        try:
            await updater.ask({"verb": verb, "id": job, "url": "http://127.0.0.1/x"})
            self.accepted = True
            with updater.changed() as event:
                while updater.status()["phase"] == "installing":
                    await event.wait()
                    event.clear()
            lit()
            if verb == "install":
                await updater.ask({"verb": "reboot"})
        finally:
            await updater.stop()
        self.card.reboot()
        self.card.slots.settle()
        (await self.service()).changed()

    def judge(self) -> bool:
        ticks = itertools.count(0.0, 10.0)
        well = Unit("active", 0, 10.0, 75.0)
        gate = Gate(None, lambda: well, Condition, lambda: None, lambda: True, lambda: 1 << 30, lambda _step: None,
                    clock=lambda: next(ticks), sleep=lambda _s: None)
        return judge(gate, self.card.slots, self.rauc, Record(self.marks), VERSION[self.card.slots.booted()],
                     calls_end=lambda: None, reboot=lambda: None)

    def whole(self, job: str, verb: Verb = "install") -> bool:
        asyncio.run(self.update(job, verb))
        return self.judge()

    def told(self) -> dict[str, Any]:
        """What the system that comes up says."""
        self.card.power_cycle()
        self.card.slots.settle()

        async def ask() -> dict[str, Any]:
            updater = await self.service()
            try:
                return await updater.ask({"verb": "status"})
            finally:
                await updater.stop()

        return asyncio.run(ask())


def lit() -> None:
    """A task of its own may have met the end of the power; so do we, by the next write."""
    with Path(os.devnull).open("wb", buffering=0) as nothing:
        os.write(nothing.fileno(), b"x")


def writes_of_a_life(folder: Path, verb: Verb) -> int:
    """How many there are to be cut at."""
    life, count = Life(folder / "counted", verb), 0
    real = {name: getattr(os, name) for name in ("write", "pwrite", "fsync", "replace", "unlink")}

    def counted(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            return real[name](*arguments, **named)
        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in real:
            patch.setattr(os, name, counted(name))
        assert life.whole("j-1", verb)
    return count


@pytest.mark.timeout(120)
@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("verb", ["install", "back"])
def test_a_cut_at_any_write_is_told_truly_and_mended_by_the_next_update(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Verb, hold: Hold) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no disk is waited for: the medium is Power's
    total = writes_of_a_life(tmp_path, verb)
    assert total > 30
    endings: set[tuple[str, str | None]] = set()
    for cut in range(total):
        life = Life(tmp_path / f"{cut}", verb)
        power = Power(life.marks, life.slots, life.run, life.card.place.selector)
        with power.on(cut, hold):
            life.whole("j-1", verb)
        assert power.went, f"of {total} writes not all were made"
        status = life.told()
        result = status["result"]
        state = None if result is None else result["state"]
        assert result is None or result["id"] == "j-1"
        if status["slot"] == "B":
            assert (status["phase"], state) == ("idle", "succeeded"), cut
        elif status["phase"] == "pending":
            assert (status["job"], state, status["other"]["state"]) == ("j-1", None, "good"), cut
        else:
            assert status["phase"] == "idle"
            assert not life.accepted or state in {"interrupted", "rolledBack"}, (cut, status)
            assert state != "succeeded"
        endings.add((status["slot"], state))
        if state is not None:  # it is told the same way ever after
            assert life.told()["result"] == result
        assert life.whole("j-2"), cut
        after = life.told()
        assert (after["result"]["id"], after["result"]["state"]) == ("j-2", "succeeded")
        assert after["slot"] == other(status["slot"])
    assert endings == ENDINGS
