"""The call as a table: every pair of state and signal, and what cannot happen changes nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.calls.machine import LIVE, TABLE, Call, Effect, Happening, IllegalEvent, Signal, diagram, step
from appliance.vocabulary import END_REASONS, CallState, Direction

ALL_PAIRS = list(itertools.product(CallState, Signal))


@pytest.mark.parametrize(("state", "signal"), [pair for pair in ALL_PAIRS if pair not in TABLE])
def test_an_illegal_event_raises_and_changes_nothing(state: CallState, signal: Signal) -> None:
    call = Call("c", state)
    with pytest.raises(IllegalEvent, match=f"{state.value}.*{signal.value}"):
        step(call, Happening(signal), 1.0)
    assert call == Call("c", state)


@pytest.mark.parametrize("state", sorted(LIVE))
def test_there_is_a_way_back_to_idle_from_every_live_state(state: CallState) -> None:
    call, effects = step(Call("c", state), Happening(Signal.GONE, END_REASONS["0/remote"]), 2.0)
    assert call.state is CallState.DISCONNECTED
    assert Effect.CLOSE in effects
    assert Effect.QUIET in effects


@pytest.mark.parametrize("state", sorted(LIVE - {CallState.DISCONNECTING}))
def test_hanging_up_works_in_every_live_state(state: CallState) -> None:
    call, effects = step(Call("c", state), Happening(Signal.HANG_UP), 2.0)
    assert call.state is CallState.DISCONNECTING
    assert Effect.END_LEGS in effects
    assert call.reason is not None


def test_every_state_is_reached_and_every_effect_is_used() -> None:
    reached = {target for target, _ in TABLE.values() if isinstance(target, CallState)}
    settled = {CallState.CONNECTED, CallState.LOCAL_HOLD, CallState.REMOTE_HOLD}
    assert reached | settled | {CallState.NONE} == set(CallState)
    assert {effect for _, effects in TABLE.values() for effect in effects} == set(Effect)


def test_giving_up_an_unanswered_call_is_cancelling_it() -> None:
    call, _ = step(Call("c", CallState.RINGING), Happening(Signal.HANG_UP), 1.0)
    assert call.reason == END_REASONS["487/cancelled"]
    answered = Call("c", CallState.CONNECTED, connected=1.0)
    assert step(answered, Happening(Signal.HANG_UP), 2.0)[0].reason == END_REASONS["0/local"]


def test_the_first_reason_stays() -> None:
    leaving, _ = step(Call("c", CallState.CONNECTED, connected=1.0), Happening(Signal.HANG_UP), 2.0)
    over, _ = step(leaving, Happening(Signal.GONE, END_REASONS["410/mediaLost"]), 3.0)
    assert over.reason == END_REASONS["0/local"]


def test_holds_of_both_sides_are_kept_apart() -> None:
    call = Call("c", CallState.CONNECTED, connected=1.0)
    for signal, state in ((Signal.PEER_HOLDS, CallState.REMOTE_HOLD), (Signal.HOLD, CallState.LOCAL_HOLD),
                          (Signal.PEER_RESUMES, CallState.LOCAL_HOLD), (Signal.RESUME, CallState.CONNECTED)):
        call, _ = step(call, Happening(signal), 2.0)
        assert call.state is state


def test_a_call_that_was_held_when_media_was_lost_comes_back_held() -> None:
    call = Call("c", CallState.LOCAL_HOLD, local_hold=True, connected=1.0)
    call, effects = step(call, Happening(Signal.MEDIA_LOST), 2.0)
    assert call.state is CallState.RECONNECTING
    assert Effect.ARM_RECONNECT in effects
    call, _ = step(call, Happening(Signal.PEER_HOLDS), 3.0)
    call, effects = step(call, Happening(Signal.MEDIA_BACK), 4.0)
    assert (call.state, call.local_hold, call.remote_hold) == (CallState.LOCAL_HOLD, True, True)
    assert Effect.DISARM in effects


def test_holding_twice_does_nothing_the_second_time() -> None:
    held, _ = step(Call("c", CallState.CONNECTED, connected=1.0), Happening(Signal.HOLD), 2.0)
    assert step(held, Happening(Signal.HOLD), 3.0) == (held, ())


def test_times_of_a_call() -> None:
    call, _ = step(Call("c"), Happening(Signal.DIAL), 10.0)
    call, _ = step(call, Happening(Signal.PEER_RINGS), 11.0)
    call, _ = step(call, Happening(Signal.PEER_ACCEPTS), 14.0)
    call, _ = step(call, Happening(Signal.MEDIA_UP), 14.5)
    assert (call.began, call.connected, call.since, call.previous) == (10.0, 14.5, 14.5, CallState.CONNECTING)


@given(st.sampled_from(Direction), st.lists(st.sampled_from(Signal), max_size=40))
def test_whatever_happens_the_call_stays_whole(direction: Direction, signals: list[Signal]) -> None:
    call = Call("c", direction=direction)
    for now, signal in enumerate(signals):
        try:
            after, _ = step(call, Happening(signal), float(now))
        except IllegalEvent:
            continue
        assert after.id == call.id
        if after.state in (CallState.DISCONNECTING, CallState.DISCONNECTED):
            assert after.reason is not None
        if after.state in (CallState.CONNECTED, CallState.LOCAL_HOLD, CallState.REMOTE_HOLD):
            assert after.connected is not None
        assert call.state is not CallState.DISCONNECTED, "nothing follows the end"
        call = after


def test_the_diagram_names_every_state() -> None:
    text = diagram()
    assert all(state.value in text for state in CallState)
