"""The register of diagnostics: one edge, one event, at most one a second, and every fault of a board has its name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator

import pytest

from appliance.bulletin import Bulletin
from appliance.care.diagnostics import Diagnostics, diagnostic_of, is_raised
from appliance.vocabulary import DIAGNOSTICS, Json
from hw.api import Fault, FaultKind, Kind
from tests.support.clock import virtual_time


@contextlib.contextmanager
def register() -> Iterator[tuple[Diagnostics, Bulletin, list[Json]]]:
    bulletin = Bulletin("boot-1")
    told: list[Json] = []
    with bulletin.subscribed(on_event=lambda event: told.append(event.data)):
        yield Diagnostics(bulletin, wall=lambda: 1_000.0), bulletin, told


@virtual_time
async def test_a_flag_is_told_once_each_edge() -> None:
    with register() as (diagnostics, bulletin, told):
        for _ in range(3):
            diagnostics.flag("cameraFreeze", True, device="cam0")
        await asyncio.sleep(2)
        for _ in range(3):
            diagnostics.flag("cameraFreeze", False)
        assert [(one["diagnostic"], one["value"]) for one in told] == [("cameraFreeze", True), ("cameraFreeze", False)]
        document = bulletin.document("diag")["cameraFreeze"]
        assert (document["value"], document["count"], document["valueType"]) == (False, 1, "DiagnosticFlag")
        assert document["advice"] == DIAGNOSTICS["cameraFreeze"].advice
        assert document["since"] == document["lastCleared"] == "1970-01-01T00:16:40.000Z"


@virtual_time
async def test_a_flag_that_was_never_raised_is_not_told() -> None:
    with register() as (diagnostics, bulletin, told):
        diagnostics.flag("noNetwork", False)
        diagnostics.quality("networkSendQuality", 1)
        assert told == []
        assert bulletin.document("diag") == {}


@virtual_time
async def test_other_particulars_of_the_same_trouble_are_shown_without_a_new_edge() -> None:
    with register() as (diagnostics, bulletin, told):
        diagnostics.flag("configRejected", True, errors=["a"])
        diagnostics.flag("configRejected", True, errors=["b"])
        assert bulletin.document("diag")["configRejected"]["detail"] == {"errors": ["b"]}
        assert len(told) == 1


@virtual_time
async def test_it_holds_until_the_last_cause_ends() -> None:
    with register() as (diagnostics, _, _):
        diagnostics.flag("storageLow", True, cause="disk")
        diagnostics.flag("storageLow", True, cause="board")
        diagnostics.flag("storageLow", False, cause="disk")
        assert diagnostics.raised("storageLow")
        diagnostics.flag("storageLow", False, cause="board")
        assert not diagnostics.raised("storageLow")


@virtual_time
async def test_what_is_shown_is_of_a_cause_that_holds_and_nothing_is_left_over() -> None:
    with register() as (diagnostics, bulletin, told):
        def detail() -> Json:
            found: Json = bulletin.document("diag")["storageLow"]["detail"]
            return found

        diagnostics.flag("storageLow", True, cause="board", what="no room on the card")
        diagnostics.flag("storageLow", False, freeBytes=9_000_000_000)
        assert detail() == {"what": "no room on the card"}, "the other cause does not hold"
        diagnostics.flag("storageLow", True, freeBytes=5)
        assert detail() == {"freeBytes": 5}
        diagnostics.flag("storageLow", False, freeBytes=9_000_000_000)
        assert detail() == {"what": "no room on the card"}
        await asyncio.sleep(2)
        diagnostics.flag("storageLow", False, cause="board", what="room on the card")
        assert detail() == {}
        assert [one["detail"] for one in told] == [{"what": "no room on the card"}, {}]


@virtual_time
async def test_a_cause_whose_end_nobody_tells_lapses_after_its_last_report() -> None:
    with register() as (diagnostics, _, told):
        diagnostics.flag("eventQueueBacklog", True, cause="poison", lapses_s=600)
        await asyncio.sleep(400)
        diagnostics.flag("eventQueueBacklog", True, cause="poison", lapses_s=600)
        await asyncio.sleep(400)
        assert diagnostics.raised("eventQueueBacklog"), "another one came meanwhile"
        diagnostics.flag("eventQueueBacklog", True)
        await asyncio.sleep(300)
        assert diagnostics.raised("eventQueueBacklog"), "the other cause holds"
        diagnostics.flag("eventQueueBacklog", False)
        await asyncio.sleep(1)
        assert [one["value"] for one in told] == [True, False]
        diagnostics.flag("eventQueueBacklog", True, cause="poison", lapses_s=600)
        diagnostics.close()
        await asyncio.sleep(700)
        assert diagnostics.raised("eventQueueBacklog"), "nothing happens after close"


@virtual_time
async def test_flapping_is_told_at_most_once_a_second_and_ends_with_the_truth() -> None:
    with register() as (diagnostics, bulletin, told):
        for turn in range(41):
            diagnostics.flag("microphoneNotFunctioning", turn % 2 == 0)
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        assert len(told) <= 6
        assert bulletin.document("diag")["microphoneNotFunctioning"]["value"] is True


@virtual_time
async def test_qualities_change_between_good_poor_and_bad() -> None:
    with register() as (diagnostics, _, told):
        for value in (2, 3, 1):
            diagnostics.quality("networkReconnect", value)
            await asyncio.sleep(1.5)
        assert [one["value"] for one in told] == [2, 3, 1]
        with pytest.raises(ValueError, match="not 1, 2 or 3"):
            diagnostics.quality("networkReconnect", 4)
        with pytest.raises(ValueError, match="Quality"):
            diagnostics.flag("networkReconnect", True)


@virtual_time
async def test_it_is_logged_once_on_and_once_off(caplog: pytest.LogCaptureFixture) -> None:
    with register() as (diagnostics, _, _):
        with caplog.at_level(logging.INFO):
            for active in (True, True, False, False):
                diagnostics.flag("tamper", active, what="the lid")
                await asyncio.sleep(1.5)
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("WARNING", f"tamper: {DIAGNOSTICS['tamper'].message} (the lid)"), ("INFO", "tamper: over")]


@virtual_time
async def test_nothing_waits_after_close() -> None:
    with register() as (diagnostics, _, told):
        diagnostics.flag("tamper", True)
        diagnostics.flag("tamper", False)
        diagnostics.close()
        await asyncio.sleep(3)
        assert len(told) == 1


@virtual_time
async def test_a_fault_of_the_board_raises_its_diagnostic() -> None:
    with register() as (diagnostics, bulletin, _):
        diagnostics.fault(Fault(Kind.CAMERA, FaultKind.STALLED, "cam0", True, "no picture for 1.2 s"))
        assert bulletin.document("diag")["cameraFreeze"]["detail"] == {
            "device": "cam0", "fault": "stalled", "what": "no picture for 1.2 s"}


@virtual_time
async def test_what_is_wrong_with_the_encoder_stands_in_its_fall_back() -> None:
    with register() as (diagnostics, bulletin, _):
        diagnostics.fault(Fault(Kind.CAMERA, FaultKind.FALLBACK, "encoder0", True, "it is held by x (7): end it",
                                FaultKind.BUSY))
        assert bulletin.document("diag")["encoderFallback"]["detail"] == {
            "device": "encoder0", "fault": "busy", "what": "it is held by x (7): end it"}


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("fault", list(FaultKind))
def test_faults_map_to_known_names(kind: Kind, fault: FaultKind) -> None:
    name = diagnostic_of(Fault(kind, fault, "x", True))
    assert name is None or name in DIAGNOSTICS


def test_true_is_trouble_and_one_is_good() -> None:
    assert [is_raised(value) for value in (True, False, 1, 2, 3)] == [True, False, False, True, True]


@pytest.mark.parametrize("kind", [Kind.CAMERA, Kind.MICROPHONE, Kind.SPEAKER, Kind.DISPLAY])
def test_what_keeps_a_device_from_being_used_is_told_apart_with_what_to_do(kind: Kind) -> None:
    obstacles = (FaultKind.MISSING, FaultKind.BUSY, FaultKind.DENIED, FaultKind.FORMAT, FaultKind.PULLED,
                 FaultKind.FAILED)
    names = [diagnostic_of(Fault(kind, obstacle, "x", True)) or "" for obstacle in obstacles]
    assert len(set(names)) == len(obstacles)
    assert len({(DIAGNOSTICS[name].message, DIAGNOSTICS[name].advice) for name in names}) == len(obstacles)
    assert all(DIAGNOSTICS[name].advice for name in names)


def test_a_panel_that_never_was_there_is_no_panel_that_was_pulled() -> None:
    obstacles = (FaultKind.MISSING, FaultKind.BUSY, FaultKind.DENIED, FaultKind.PULLED, FaultKind.FAILED)
    assert len({diagnostic_of(Fault(Kind.PANEL, obstacle, "panel0", True)) for obstacle in obstacles}) == len(obstacles)
