"""When an update may begin and when the device may restart into it: a table."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appliance.care.update_job import Facts, Job, Kept, Kind, Wait, When, before_begin, before_restart
from appliance.settings import Window

NOW = datetime(2026, 11, 30, 3, 0, tzinfo=UTC)  # a Monday
T = NOW.timestamp()


def facts(*, calling: bool = False, emergency: bool = False, idle_s: float = 100.0, synchronised: bool = True,
          windows: tuple[str, ...] = ()) -> Facts:
    return Facts(T, synchronised, NOW, calling, emergency, 0.0 if calling else idle_s,
                 [Window.parse(one) for one in windows])


@pytest.mark.parametrize(("job", "now", "waits"), [
    (Job("j"), facts(), ()),
    (Job("j"), facts(calling=True), (Wait.CALL,)),
    (Job("j"), facts(idle_s=59.9), (Wait.IDLE,)),
    (Job("j"), facts(idle_s=60.0), ()),
    (Job("j"), facts(windows=("02:00-05:00",)), ()),
    (Job("j"), facts(windows=("02:00-03:00",)), (Wait.WINDOW,)),
    (Job("j"), facts(windows=("Tue 02:00-05:00", "Mon 23:00-04:00")), (Wait.WINDOW,)),
    (Job("j"), facts(windows=("Tue 02:00-05:00", "Sun 23:00-04:00")), ()),
    (Job("j"), facts(windows=("02:00-05:00",), synchronised=False), (Wait.CLOCK,)),
    (Job("j"), facts(synchronised=False), ()),
    (Job("j", when=When.HELD), facts(), (Wait.COMMIT,)),
    (Job("j", when=When.HELD), facts(calling=True), (Wait.CALL, Wait.COMMIT)),
    (Job("j", when=When.NOW), facts(windows=("05:00-06:00",)), ()),
    (Job("j", when=When.NOW), facts(windows=("05:00-06:00",), calling=True), (Wait.CALL,)),
])
def test_a_restart_waits_for(job: Job, now: Facts, waits: tuple[Wait, ...]) -> None:
    outlook = before_restart(job, now)
    assert outlook.waits == waits
    assert not outlook.forced


@pytest.mark.parametrize(("job", "now", "waits", "forced"), [
    (Job("j", force=T), facts(calling=True), (), True),
    (Job("j", force=T + 1), facts(calling=True), (Wait.CALL,), False),
    (Job("j", force=T), facts(windows=("05:00-06:00",)), (), True),
    (Job("j", force=T, when=When.HELD), facts(), (), True),
    (Job("j", force=T), facts(), (), False),  # no rule was in its way
    (Job("j", force=T), facts(calling=True, synchronised=False), (Wait.CALL,), False),
    (Job("j", force=T), facts(calling=True, emergency=True), (Wait.CALL,), False),
])
def test_a_date_forces_it(job: Job, now: Facts, waits: tuple[Wait, ...], forced: bool) -> None:
    outlook = before_restart(job, now)
    assert (outlook.waits, outlook.forced) == (waits, forced)


@pytest.mark.parametrize(("not_before", "synchronised", "waits"), [
    (None, False, ()), (T, True, ()), (T + 1, True, (Wait.DATE,)), (T, False, (Wait.CLOCK,)),
])
def test_a_date_is_waited_for(not_before: float | None, synchronised: bool, waits: tuple[Wait, ...]) -> None:
    assert before_begin(Job("j", not_before=not_before), facts(synchronised=synchronised)).waits == waits


def test_what_is_kept_comes_back() -> None:
    job = Job("j", Kind.BACK, "https://a.example/b", "2.0.0", T, T + 1, When.HELD, 2, True, True, True, "b1", "A")
    kept = Kept(job, {"job": "i", "result": "failed", "message": "no camera"}, "i 2026")
    assert Kept.load(kept.dump()) == kept
    assert Kept.load(Kept().dump()) == Kept()


_NAMES = [one.name for one in fields(Job)]
_JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                         st.sampled_from(["job", "last", "told", "result", "message"]), inner, max_size=4))
_JOBS = st.dictionaries(st.sampled_from(_NAMES), _JSON | st.sampled_from(["install", "back", "now"]), max_size=6)


@given(_JSON | st.fixed_dictionaries({"job": _JOBS, "last": _JSON, "told": st.text(max_size=3)}))
@example({"job": {"id": "j", "force": math.inf}, "last": None, "told": ""})
@example({"job": {"id": "j", "force": math.nan}, "last": None, "told": ""})
@example({"job": {"id": 5}, "last": None, "told": ""})
@example({"job": {"id": "j", "tries": "x"}, "last": None, "told": ""})
@example({"job": {"id": "j", "url": None}, "last": None, "told": ""})
@example({"job": None, "last": {"job": "j"}, "told": ""})
def test_what_is_none_of_ours_is_told_and_what_is_can_be_lived_with(found: object) -> None:
    try:
        read = Kept.load(json.dumps(found))
    except ValueError:
        return
    assert Kept.load(read.dump()) == read
    if read.job is not None:
        read.job.payload()
        before_begin(read.job, facts())
        before_restart(read.job, facts(calling=True))
