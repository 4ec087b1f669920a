"""Which sound devices are open, and what is told of the others, with cards that are made here: no ALSA."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    DevicePulledError,
    Fault,
    FaultKind,
    HardwareError,
    Kind,
)
from hw.blame import fault_of
from hw.faults import FaultLine
from hw.pi.audio import keeper as module
from hw.pi.audio.cards import Endpoint
from hw.pi.audio.convert import Shape
from hw.pi.audio.keeper import Keeper


class Stream:
    """An opened direction of a made card."""

    shape = Shape(48_000, 1, "S16_LE")

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.closed = endpoint, False

    def close(self) -> None:
        self.closed = True


class Mixer:
    """A card with nothing to turn."""

    has_volume = False

    def __init__(self, card: str) -> None:
        self.card = card

    def fds(self) -> list[int]:
        return []

    def _nothing(self, *_: object) -> None:
        pass

    refresh = close = volume = set_volume = unmute_speaker = switch_capture = _nothing

    def speaker_muted(self) -> bool:
        return False

    capture_muted = speaker_muted


class Shop:
    """The machine's cards, what each refuses with, and what was opened."""

    def __init__(self) -> None:
        self.names = ["usb:1-1", "alsa:jack"]
        self.refusals: dict[str, HardwareError] = {}
        self.node = ""
        self.asked: list[str] = []
        self.opened: list[Stream] = []
        self.faults: dict[tuple[Kind, FaultKind, str], Fault] = {}
        self._changed = threading.Condition()

    def find(self) -> list[Endpoint]:
        return [Endpoint(kind, name, name.upper(), name, self.node, name, name) for name in self.names
                for kind in (Kind.MICROPHONE, Kind.SPEAKER)]

    def open(self, endpoint: Endpoint, *_: object) -> Stream:
        with self._changed:
            self.asked.append(endpoint.id)
            self._changed.notify_all()
        if endpoint.id in self.refusals:
            raise self.refusals[endpoint.id]
        self.opened.append(Stream(endpoint))
        return self.opened[-1]

    def told(self, fault: Fault) -> None:
        with self._changed:
            if fault.active:
                self.faults[fault.kind, fault.fault, fault.device] = fault
            else:
                self.faults.pop((fault.kind, fault.fault, fault.device), None)
            self._changed.notify_all()

    def until(self, condition: Callable[[], Any]) -> None:
        """Also what nobody tells, such as ``Keeper.gain``."""
        end = time.monotonic() + 5.0
        with self._changed:
            while not condition():
                assert time.monotonic() < end, self.faults
                self._changed.wait(0.01)

    def broken(self, kind: Kind) -> set[tuple[str, FaultKind]]:
        return {(device, fault) for told, fault, device in self.faults if told is kind}


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop()
    monkeypatch.setattr(module, "open_capture", shop.open)
    monkeypatch.setattr(module, "open_playback", shop.open)
    monkeypatch.setattr(module, "Mixer", Mixer)
    monkeypatch.setattr(module, "RETRY_S", 0.02)
    return shop


@pytest.fixture
def keeper(shop: Shop) -> Iterator[Keeper]:
    line = FaultLine()
    line.listen(shop.told)
    keeper = Keeper(["usb:*", "*"], ["usb:*", "*"], 50, line, find=shop.find)
    yield keeper
    keeper.close()
    line.close()
    assert all(stream.closed for stream in shop.opened if stream not in held)


held: list[object] = []


def taken(keeper: Keeper, kind: Kind) -> str:
    stream = keeper.take(kind)
    held.append(stream)
    return "" if stream is None else stream.endpoint.id


def in_use(keeper: Keeper, kind: Kind) -> list[str]:
    return [fact.id for fact in keeper.devices() if fact.kind is kind and fact.used]


def test_the_best_are_opened_and_nothing_before_they_are_asked_for(shop: Shop, keeper: Keeper) -> None:
    shop.until(lambda: (in_use(keeper, Kind.MICROPHONE), in_use(keeper, Kind.SPEAKER)) == (["usb:1-1"], ["usb:1-1"]))
    assert shop.opened == []
    keeper.begin(48_000, 0.01)
    assert (taken(keeper, Kind.MICROPHONE), taken(keeper, Kind.SPEAKER)) == ("usb:1-1", "usb:1-1")
    assert keeper.take(Kind.SPEAKER) is None
    assert keeper.gain == 0.5, "without a control of the card it is scaled"
    assert [(fact.id, fact.used) for fact in keeper.devices() if fact.kind is Kind.SPEAKER] == [
        ("usb:1-1", True), ("alsa:jack", False)]


@pytest.mark.parametrize(("error", "fault"), [
    (DeviceBusyError("held by x (7)"), FaultKind.BUSY), (DeviceDeniedError("group"), FaultKind.DENIED),
    (DeviceFormatError("offers"), FaultKind.FORMAT), (DeviceFailedError("broke"), FaultKind.FAILED),
])
def test_one_that_refuses_is_told_and_taken_when_it_no_longer_does(
    shop: Shop, keeper: Keeper, error: HardwareError, fault: FaultKind
) -> None:
    shop.refusals["usb:1-1"] = error
    keeper.begin(48_000, 0.01)
    assert taken(keeper, Kind.MICROPHONE) == "alsa:jack"
    shop.until(lambda: shop.broken(Kind.MICROPHONE) == {("usb:1-1", fault)})
    assert next(fact.note for fact in keeper.devices() if fact.id == "usb:1-1") == str(error)
    del shop.refusals["usb:1-1"]
    shop.until(lambda: shop.broken(Kind.MICROPHONE) == set())
    assert taken(keeper, Kind.MICROPHONE) == "usb:1-1"


@pytest.mark.parametrize("error", [DeviceDeniedError("group"), DeviceMissingError("no control yet")])
def test_one_that_has_just_come_is_waited_for_and_nothing_is_told(
    shop: Shop, keeper: Keeper, tmp_path: Path, error: HardwareError
) -> None:
    node = tmp_path / "pcmC0D0c"
    node.touch()
    shop.node, shop.names = str(node), ["usb:1-1"]
    shop.refusals = {"usb:1-1": error}
    keeper.begin(48_000, 0.01)
    shop.names.append("alsa:jack")
    keeper.set_volume(30)  # whatever wakes it
    shop.until(lambda: shop.asked.count("usb:1-1") > 4)
    assert shop.opened == [], "the next of the list need not start for that"
    assert not shop.faults
    del shop.refusals["usb:1-1"]  # udev is done with it
    shop.until(lambda: len(shop.opened) == 2)
    assert (taken(keeper, Kind.MICROPHONE), taken(keeper, Kind.SPEAKER)) == ("usb:1-1", "usb:1-1")
    assert not shop.faults


def test_one_that_still_refuses_when_it_has_been_there_for_a_while_is_told(
    shop: Shop, keeper: Keeper, tmp_path: Path
) -> None:
    node = tmp_path / "pcmC0D0c"
    node.touch()
    shop.node = str(node)
    shop.refusals = {"usb:1-1": DeviceDeniedError("group")}
    keeper.begin(48_000, 0.01)
    os.utime(node, (time.time() - 10, time.time() - 10))
    shop.until(lambda: shop.broken(Kind.MICROPHONE) == {("usb:1-1", FaultKind.DENIED)})
    shop.until(lambda: in_use(keeper, Kind.SPEAKER) == ["alsa:jack"])
    assert (taken(keeper, Kind.MICROPHONE), taken(keeper, Kind.SPEAKER)) == ("alsa:jack", "alsa:jack")


def test_a_plug_of_one_that_is_not_needed_is_told_once_and_so_is_its_end(shop: Shop) -> None:
    line = FaultLine()
    line.listen(shop.told)
    told: list[list[str]] = []
    keeper = Keeper(["*"], ["*"], 50, line, find=shop.find)
    try:
        shop.until(keeper.devices)
        line.watch(lambda: told.append([fact.id for fact in keeper.devices() if fact.kind is Kind.SPEAKER]))
        shop.until(lambda: len(told) == 1)
        keeper.set_volume(20)  # it looks, and nothing has changed
        shop.names.append("alsa:spare")
        keeper.set_volume(30)
        shop.until(lambda: told[-1] == ["usb:1-1", "alsa:jack", "alsa:spare"])
        shop.names.remove("alsa:spare")
        keeper.set_volume(40)
        shop.until(lambda: told[-1] == ["usb:1-1", "alsa:jack"])
        assert len(told) == 3
        assert not shop.faults
    finally:
        keeper.close()
        line.close()


def test_when_nothing_opens_the_reason_is_raised(shop: Shop, keeper: Keeper) -> None:
    shop.refusals = {name: DeviceBusyError(f"{name} is held by x (7)") for name in shop.names}
    with pytest.raises(DeviceBusyError, match="held by x"):
        keeper.begin(48_000, 0.01)
    shop.names.clear()
    with pytest.raises(DeviceMissingError, match="neither microphone nor loudspeaker"):
        keeper.begin(48_000, 0.01)
    shop.until(lambda: {("microphone", FaultKind.MISSING)} <= shop.broken(Kind.MICROPHONE))
    assert all(not fact.present for fact in keeper.devices())


def test_pulled_in_use_the_next_takes_over_until_it_returns(shop: Shop, keeper: Keeper) -> None:
    keeper.begin(48_000, 0.01)
    stream = keeper.take(Kind.MICROPHONE)
    assert stream is not None
    shop.names.remove("usb:1-1")
    keeper.trouble(stream, DevicePulledError("it was unplugged"), FaultKind.PULLED)
    shop.until(lambda: ("usb:1-1", FaultKind.PULLED) in shop.broken(Kind.MICROPHONE))
    shop.until(lambda: "alsa:jack" in in_use(keeper, Kind.MICROPHONE))
    assert taken(keeper, Kind.MICROPHONE) == "alsa:jack"
    assert isinstance(stream, Stream)
    assert stream.closed
    gone = next(fact for fact in keeper.devices() if fact.kind is Kind.MICROPHONE and fact.id == "usb:1-1")
    assert (gone.present, gone.used) == (False, False)
    shop.names.insert(0, "usb:1-1")
    keeper.set_volume(30)  # whatever wakes it
    shop.until(lambda: shop.broken(Kind.MICROPHONE) == set())
    assert taken(keeper, Kind.MICROPHONE) == "usb:1-1"


def test_one_that_stands_still_is_left_alone_while_another_works(shop: Shop, keeper: Keeper) -> None:
    keeper.begin(48_000, 0.01)
    stream = keeper.take(Kind.MICROPHONE)
    assert stream is not None
    keeper.trouble(stream, DeviceFailedError("it delivers nothing"), FaultKind.STALLED)
    shop.until(lambda: shop.broken(Kind.MICROPHONE) == {("usb:1-1", FaultKind.STALLED)})
    other = keeper.take(Kind.MICROPHONE)
    assert other is not None
    assert other.endpoint.id == "alsa:jack"
    count = len(shop.opened)
    keeper.delivering(other)
    keeper.set_volume(20)
    shop.until(lambda: keeper.gain == 0.2)
    assert len(shop.opened) == count
    held.append(other)


def test_what_is_selected_is_opened_before_the_best_and_left_when_it_no_longer_is(shop: Shop, keeper: Keeper) -> None:
    keeper.select(Kind.MICROPHONE, "alsa:jack")
    assert in_use(keeper, Kind.MICROPHONE) == ["alsa:jack"], "the one that will be opened"
    assert shop.opened == []
    keeper.begin(48_000, 0.01)
    assert (taken(keeper, Kind.MICROPHONE), taken(keeper, Kind.SPEAKER)) == ("alsa:jack", "usb:1-1")
    keeper.select(Kind.MICROPHONE, "usb:1-1")
    assert taken(keeper, Kind.MICROPHONE) == "usb:1-1"
    keeper.select(Kind.MICROPHONE, "alsa:jack")
    keeper.select(Kind.MICROPHONE, "")
    assert taken(keeper, Kind.MICROPHONE) == "usb:1-1"
    assert in_use(keeper, Kind.SPEAKER) == ["usb:1-1"]
    assert not shop.faults


def test_one_that_the_list_does_not_name_can_be_selected(shop: Shop) -> None:
    line = FaultLine()
    keeper = Keeper(["usb:*"], ["usb:*"], 50, line, find=shop.find)
    try:
        keeper.begin(48_000, 0.01)
        keeper.select(Kind.SPEAKER, "alsa:jack")
        keeper.take(Kind.MICROPHONE)
        assert taken(keeper, Kind.SPEAKER) == "alsa:jack"
        assert in_use(keeper, Kind.SPEAKER) == ["alsa:jack"]
    finally:
        keeper.close()
        line.close()


def test_while_the_selected_one_is_away_the_best_stands_in_until_it_returns(shop: Shop, keeper: Keeper) -> None:
    keeper.select(Kind.MICROPHONE, "alsa:jack")
    keeper.begin(48_000, 0.01)
    stream = keeper.take(Kind.MICROPHONE)
    assert stream is not None
    shop.names.remove("alsa:jack")
    keeper.trouble(stream, DevicePulledError("it was unplugged"), FaultKind.PULLED)
    shop.until(lambda: ("alsa:jack", FaultKind.PULLED) in shop.broken(Kind.MICROPHONE))
    shop.until(lambda: in_use(keeper, Kind.MICROPHONE) == ["usb:1-1"])
    assert taken(keeper, Kind.MICROPHONE) == "usb:1-1"
    shop.names.append("alsa:jack")
    keeper.set_volume(30)  # whatever wakes it
    shop.until(lambda: shop.broken(Kind.MICROPHONE) == set())
    assert taken(keeper, Kind.MICROPHONE) == "alsa:jack"


def test_one_that_no_list_names_is_there_to_be_selected_and_is_not_gone_when_it_is_no_longer(shop: Shop) -> None:
    line = FaultLine()
    line.listen(shop.told)
    keeper = Keeper(["usb:*"], ["usb:*"], 50, line, find=shop.find)
    try:
        shop.until(lambda: in_use(keeper, Kind.MICROPHONE) == ["usb:1-1"])
        jack = next(fact for fact in keeper.devices() if fact.kind is Kind.MICROPHONE and fact.id == "alsa:jack")
        assert (jack.present, jack.used, jack.listed) == (True, False, False)
        assert "in no list" in jack.note
        keeper.begin(48_000, 0.01)
        keeper.select(Kind.MICROPHONE, "alsa:jack")
        assert taken(keeper, Kind.MICROPHONE) == "alsa:jack"
        assert in_use(keeper, Kind.MICROPHONE) == ["alsa:jack"]
        keeper.select(Kind.MICROPHONE, "")
        assert taken(keeper, Kind.MICROPHONE) == "usb:1-1"
        assert in_use(keeper, Kind.MICROPHONE) == ["usb:1-1"]
        assert shop.broken(Kind.MICROPHONE) == set()
        assert next(fact for fact in keeper.devices() if fact.id == "alsa:jack").present
    finally:
        keeper.close()
        line.close()


def test_one_that_no_list_names_any_more_has_no_fault_left(shop: Shop) -> None:
    line = FaultLine()
    line.listen(shop.told)
    keeper = Keeper(["usb:*"], ["usb:*"], 50, line, find=shop.find)
    try:
        keeper.begin(48_000, 0.01)
        shop.refusals["alsa:jack"] = DeviceBusyError("held by x (7)")
        keeper.select(Kind.MICROPHONE, "alsa:jack")
        shop.until(lambda: ("alsa:jack", FaultKind.BUSY) in shop.broken(Kind.MICROPHONE))
        assert in_use(keeper, Kind.MICROPHONE) == ["usb:1-1"]
        keeper.select(Kind.MICROPHONE, "")
        shop.until(lambda: shop.broken(Kind.MICROPHONE) == set())
    finally:
        keeper.close()
        line.close()


def test_one_that_is_selected_is_tried_at_once_whatever_it_refused_with_before(shop: Shop, keeper: Keeper) -> None:
    shop.refusals["usb:1-1"] = DeviceBusyError("held by x (7)")
    keeper.begin(48_000, 0.01)
    stream = keeper.take(Kind.MICROPHONE)
    assert stream is not None
    keeper.trouble(stream, DeviceFailedError("it delivers nothing"), FaultKind.STALLED)  # shunned, if others are there
    del shop.refusals["usb:1-1"]
    shop.until(lambda: in_use(keeper, Kind.MICROPHONE) == ["usb:1-1"])
    keeper.select(Kind.MICROPHONE, "alsa:jack")
    assert in_use(keeper, Kind.MICROPHONE) == ["alsa:jack"]
    shop.refusals["usb:1-1"] = DeviceBusyError("held by x (7)")
    keeper.select(Kind.MICROPHONE, "usb:1-1")
    assert in_use(keeper, Kind.MICROPHONE) == ["alsa:jack"], "the next while it refuses"
    shop.until(lambda: ("usb:1-1", FaultKind.BUSY) in shop.broken(Kind.MICROPHONE))
    held.extend(stream for stream in shop.opened if not stream.closed)


def test_every_error_has_a_fault_of_its_own() -> None:
    errors = (DevicePulledError, DeviceMissingError, DeviceBusyError, DeviceDeniedError, DeviceFormatError,
              DeviceFailedError)
    assert len({fault_of(error("x")) for error in errors}) == len(errors)
