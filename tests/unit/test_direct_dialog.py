"""The dialog: two of them talk to each other through a post that loses, repeats and reorders, with scripted media."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.media.api import SessionClosed, SessionSilent, SessionSound, SessionStranded, SessionUp
from appliance.providers import api
from appliance.providers.direct import protocol as wire
from appliance.providers.direct.dialog import CANDIDATES, JOINS, Dialog, Phase, Timings
from appliance.providers.direct.effects import (
    AddCandidate,
    CancelTimer,
    Drop,
    Effect,
    Finish,
    MakeAnswer,
    MakeOffer,
    Post,
    StartTimer,
    TakeAnswer,
    Tell,
    Timer,
)
from appliance.vocabulary import END_REASONS, Reason

CALL = "call-0001"
OLGA = api.Peer("olga", "operator:olga", "Olga", verified=True)
OTTO = api.Peer("otto", "operator:otto", "Otto", verified=True)
DOOR = api.Peer("door-1", "device:door-1", "Front door", "device", verified=True)
BOTH = wire.Sends(True, True)


def posted(effects: Sequence[Effect], branch: str | None = None) -> list[wire.CallSignal]:
    return [e.signal for e in effects if isinstance(e, Post) and branch in (None, e.branch)]


def told(effects: Sequence[Effect]) -> list[api.LegEvent]:
    return [e.event for e in effects if isinstance(e, Tell)]


def finished(effects: Sequence[Effect]) -> Reason | None:
    return next((e.reason for e in effects if isinstance(e, Finish)), None)


def of(effects: Sequence[Effect], kind: type[Any]) -> list[Any]:
    return [e for e in effects if isinstance(e, kind)]


def caller(*branches: str) -> tuple[Dialog, list[Effect]]:
    dialog = Dialog(CALL, me=wire.Party("door-1", "Front door"), sends=BOTH, timings=Timings())
    peers = {"olga": OLGA, "otto": OTTO}
    return dialog, dialog.call([(b, peers[b]) for b in branches or ("olga",)], "operator:*")


def callee() -> Dialog:
    invite = wire.Invite(CALL, wire.Party("door-1", "Front door"), BOTH, "operator:*")
    return Dialog.incoming(invite, "door", DOOR, me=wire.Party("olga", "Olga"), timings=Timings())


def connected_caller() -> Dialog:
    dialog, _ = caller()
    dialog.receive("olga", wire.Accept(CALL, "offer-0", wire.Party("olga", "Olga"), BOTH))
    dialog.answered(0, "answer-0")
    dialog.session(0, SessionUp())
    assert dialog.phase is Phase.UP
    return dialog


def connected_callee() -> Dialog:
    dialog = callee()
    dialog.accept(BOTH)
    dialog.offered(0, "offer-0")
    dialog.receive("door", wire.Answer(CALL, "answer-0"))
    dialog.session(0, SessionUp())
    assert dialog.phase is Phase.UP
    return dialog


def test_a_call_is_set_up_by_ring_accept_and_answer() -> None:
    door, effects = caller()
    assert isinstance(posted(effects)[0], wire.Invite)
    olga = callee()
    effects = door.receive("olga", posted(olga.ring())[0])
    assert told(effects) == [api.Ringing()]
    assert of(olga.accept(BOTH), MakeOffer) == [MakeOffer(0)]
    accept = posted(olga.offered(0, "offer-0"))[0]
    assert isinstance(accept, wire.Accept)
    effects = door.receive("olga", accept)
    assert told(effects) == [api.Accepted(OLGA)]
    assert of(effects, MakeAnswer) == [MakeAnswer(0, "offer-0")]
    answer = posted(door.answered(0, "answer-0"))[0]
    assert of(olga.receive("door", answer), TakeAnswer) == [TakeAnswer(0, "answer-0")]
    assert told(door.session(0, SessionUp({"srtpCipher": "x"}))) == [api.Connected({"srtpCipher": "x"})]
    assert told(olga.session(0, SessionUp())) == [api.Connected({})]


def test_the_first_of_several_wins_and_the_others_are_told() -> None:
    door, _ = caller("olga", "otto")
    effects = door.receive("otto", wire.Accept(CALL, "offer-0", wire.Party("otto", "Otto"), BOTH))
    assert posted(effects, "olga") == [wire.AnsweredElsewhere(CALL)]
    assert told(effects) == [api.Accepted(OTTO)]
    late = door.receive("olga", wire.Accept(CALL, "offer-0", wire.Party("olga", "Olga"), BOTH))
    assert late == [Post("olga", wire.AnsweredElsewhere(CALL))]


def test_all_declining_gives_the_most_telling_no() -> None:
    door, _ = caller("olga", "otto")
    assert finished(door.receive("olga", wire.Reject(CALL, wire.Cause(603, "declined")))) is None
    assert finished(door.receive("otto", wire.Reject(CALL, wire.Cause(486, "busy")))) == END_REASONS["603/declined"]


def test_nobody_who_answers_in_any_way_is_unreachable_after_the_time() -> None:
    door, effects = caller()
    assert StartTimer(Timer.REACH, 4.0) in effects
    effects = door.timeout(Timer.REACH)
    assert finished(effects) == END_REASONS["480/unreachable"]
    assert posted(effects) == [wire.Cancel(CALL, wire.Cause(480, "unreachable"))]


def test_one_that_rings_is_waited_for() -> None:
    door, _ = caller()
    door.receive("olga", wire.RingingSignal(CALL))
    assert door.timeout(Timer.REACH) == []


@pytest.mark.parametrize(
    ("make", "signal"),
    [(lambda: caller()[0], wire.Cancel), (callee, wire.Reject), (connected_caller, wire.Bye),
     (connected_callee, wire.Bye)],
)  # fmt: skip
def test_ending_says_the_word_of_the_phase(make: Any, signal: type[wire.CallSignal]) -> None:
    dialog = make()
    effects = dialog.end(END_REASONS["0/local"])
    assert [type(s) for s in posted(effects)] == [signal]
    assert finished(effects) == END_REASONS["0/local"]
    assert dialog.end(END_REASONS["0/local"]) == []


@pytest.mark.parametrize(
    ("signal", "key"),
    [
        (wire.Cancel(CALL, wire.Cause(0, "local")), "487/cancelled"),
        (wire.Cancel(CALL, wire.Cause(487, "noAnswer")), "487/noAnswer"),
        (wire.AnsweredElsewhere(CALL), "487/answeredElsewhere"),
        (wire.Bye(CALL, wire.Cause(0, "local")), "0/remote"),
        (wire.Bye(CALL, wire.Cause(503, "shutdown")), "503/shutdown"),
        (wire.Bye(CALL, wire.Cause(999, "nonsense")), "0/remote"),
    ],
)
def test_the_other_sides_end_has_its_reason_here(signal: wire.CallSignal, key: str) -> None:
    assert finished(callee().receive("door", signal)) == END_REASONS[key]


def test_silence_is_lost_and_the_side_that_offered_offers_again_with_back_off() -> None:
    olga = connected_callee()
    effects = olga.session(0, SessionSilent(3.0))
    assert told(effects) == [api.Lost("media")]
    assert of(effects, MakeOffer) == [MakeOffer(1)]
    pauses = [next(e.seconds for e in effects if isinstance(e, StartTimer))]
    for _ in range(5):
        effects = olga.timeout(Timer.REPAIR)
        pauses.append(next(e.seconds for e in effects if isinstance(e, StartTimer)))
    assert pauses == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert of(effects, Drop) == [Drop(5)]
    assert posted(olga.offered(6, "offer-6")) == [wire.Reoffer(CALL, 6, "offer-6")]
    assert olga.receive("door", wire.Reanswer(CALL, 5, "late")) == []
    effects = olga.receive("door", wire.Reanswer(CALL, 6, "answer-6"))
    assert effects == [TakeAnswer(6, "answer-6"), StartTimer(Timer.REPAIR, 6.0)]
    effects = olga.session(6, SessionUp())
    assert told(effects) == [api.Recovered()]
    assert of(effects, Drop) == [Drop(0)]


def test_the_other_side_asks_for_an_offer_and_takes_it() -> None:
    door = connected_caller()
    effects = door.session(0, SessionSilent(3.0))
    assert posted(effects) == [wire.MediaLost(CALL, 0)]
    effects = door.receive("olga", wire.Reoffer(CALL, 1, "offer-1"))
    assert of(effects, MakeAnswer) == [MakeAnswer(1, "offer-1")]
    effects = door.answered(1, "answer-1")
    assert posted(effects) == [wire.Reanswer(CALL, 1, "answer-1")]
    assert [e.seconds for e in of(effects, StartTimer)] == [6.0], "it is not asked again meanwhile"
    assert told(door.session(1, SessionUp())) == [api.Recovered()]


def test_what_only_the_peer_lost_is_lost_here_too() -> None:
    olga = connected_callee()
    effects = olga.receive("door", wire.MediaLost(CALL, 0))
    assert told(effects) == [api.Lost("media")]
    assert of(effects, MakeOffer) == [MakeOffer(1)]


def test_sound_on_the_old_connection_keeps_it() -> None:
    olga = connected_callee()
    olga.session(0, SessionSilent(3.0))
    effects = olga.session(0, SessionSound())
    assert told(effects) == [api.Recovered()]
    assert of(effects, Drop) == [Drop(1)]
    assert posted(effects) == [wire.Settle(CALL, 0)]
    door = connected_caller()
    door.receive("olga", wire.Reoffer(CALL, 1, "offer-1"))
    assert of(door.receive("olga", wire.Settle(CALL, 0)), Drop) == [Drop(1)]


def test_a_path_that_is_gone_is_lost_at_once_and_not_by_its_silence() -> None:
    olga = connected_callee()
    effects = olga.session(0, SessionStranded(gone=True))
    assert told(effects) == [api.Lost("media")]
    assert of(effects, MakeOffer) == [MakeOffer(1)]
    door = connected_caller()
    effects = door.session(0, SessionStranded(gone=True))
    assert (told(effects), posted(effects)) == ([api.Lost("media")], [wire.MediaLost(CALL, 0)])


def test_an_attempt_that_the_network_has_overtaken_is_made_again_at_once() -> None:
    olga = connected_callee()
    olga.session(0, SessionStranded(gone=True))
    for _ in range(4):
        olga.timeout(Timer.REPAIR)
    assert olga.session(3, SessionStranded(gone=True)) == [], "an attempt that was replaced"
    effects = olga.session(5, SessionStranded(gone=True))
    assert of(effects, MakeOffer) == [MakeOffer(6)]
    assert [e.seconds for e in of(effects, StartTimer)] == [0.5]


def test_a_better_way_is_taken_without_losing_the_old_one() -> None:
    olga, door = connected_callee(), connected_caller()
    assert olga.session(0, SessionStranded(gone=False)) == [MakeOffer(1)]
    assert posted(door.session(0, SessionStranded(gone=False))) == [wire.Move(CALL, 0)]
    assert olga.receive("door", wire.Move(CALL, 0)) == [], "it moves already"
    assert posted(olga.offered(1, "offer-1")) == [wire.Reoffer(CALL, 1, "offer-1")]
    effects = door.receive("olga", wire.Reoffer(CALL, 1, "offer-1"))
    assert (told(effects), of(effects, Drop)) == ([], [])
    for side in (olga, door):
        effects = side.session(1, SessionUp())
        assert (told(effects), of(effects, Drop)) == ([], [Drop(0)])


def test_the_side_that_offers_is_asked_to_move_and_loses_nothing() -> None:
    olga = connected_callee()
    assert olga.receive("door", wire.Move(CALL, 0)) == [MakeOffer(1)]
    assert olga.receive("door", wire.Reanswer(CALL, 1, "answer-1")) == [TakeAnswer(1, "answer-1")]
    assert olga.session(0, SessionStranded(gone=False)) == [], "it is being replaced already"
    assert olga.session(1, SessionStranded(gone=True)) == [Drop(1), MakeOffer(2)], "its addresses are old as well"
    assert olga.session(2, SessionClosed("iceFailed")) == [Drop(2)], "the old one carries"


def joining() -> tuple[Dialog, Dialog]:
    """(who called, who accepted): the first offer was sent and answered, and nothing is up."""
    olga, (door, _) = callee(), caller()
    olga.accept(BOTH)
    door.receive("olga", posted(olga.offered(0, "offer-0"))[0])
    olga.receive("door", posted(door.answered(0, "answer-0"))[0])
    return door, olga


@pytest.mark.parametrize("who", ["caller", "callee"])
def test_a_network_that_changes_while_a_call_is_set_up_makes_it_begin_anew(who: str) -> None:
    door, olga = joining()
    if who == "callee":
        effects = olga.session(0, SessionStranded(gone=True))
    else:
        (move,) = posted(door.session(0, SessionStranded(gone=True)))
        effects = olga.receive("door", move)
    assert effects == [Drop(0), MakeOffer(1), StartTimer(Timer.ANSWER, 10.0)]
    assert olga.session(0, SessionClosed("iceFailed")) == [], "the old one is nothing any more"
    (reoffer,) = posted(olga.offered(1, "offer-1"))
    effects = door.receive("olga", reoffer)
    assert (of(effects, Drop), of(effects, MakeAnswer)) == ([Drop(0)], [MakeAnswer(1, "offer-1")])
    (reanswer,) = posted(door.answered(1, "answer-1"))
    assert olga.receive("door", reanswer) == [TakeAnswer(1, "answer-1"), CancelTimer(Timer.ANSWER)]
    for side in (door, olga):
        assert told(side.session(1, SessionUp())) == [api.Connected({})]


def test_a_change_before_the_first_offer_is_ready_waits_for_it() -> None:
    olga, (door, _) = callee(), caller()
    olga.accept(BOTH)
    assert olga.session(0, SessionStranded(gone=True)) == []
    effects = olga.offered(0, "offer-0")
    assert of(effects, MakeOffer) == [MakeOffer(1)]
    door.receive("olga", posted(effects)[0])
    door.tell(muted=True, held=False, video=True)
    effects = door.receive("olga", posted(olga.offered(1, "offer-1"))[0])
    assert of(effects, MakeAnswer) == [MakeAnswer(1, "offer-1")]
    said = posted(door.answered(1, "answer-1"))
    assert [signal.muted for signal in said if isinstance(signal, wire.Update)] == [True]


def test_a_peer_that_asks_for_connection_after_connection_is_not_obeyed_for_ever() -> None:
    _, olga = joining()
    made = [effect for generation in range(50) for effect in olga.receive("door", wire.Move(CALL, generation))
            if isinstance(effect, MakeOffer)]
    assert len(made) == JOINS - 1


def test_the_side_that_is_up_later_waits_for_the_new_connection() -> None:
    for side in (connected_callee(), connected_caller()):
        side.session(0, SessionStranded(gone=False))
        side.receive("olga", wire.Reoffer(CALL, 1, "offer-1"))
        effects = side.session(0, SessionClosed("lost"))
        assert effects == [Drop(0), StartTimer(Timer.REPAIR, 2.0)]
        effects = side.session(1, SessionUp())
        assert (told(effects), of(effects, Drop)) == ([], [])
        assert CancelTimer(Timer.REPAIR) in effects
        assert side.timeout(Timer.REPAIR) == []


@pytest.mark.parametrize("how", ["late", "closed"])
def test_a_new_connection_that_does_not_come_up_is_a_loss(how: str) -> None:
    olga = connected_callee()
    olga.session(0, SessionStranded(gone=False))
    olga.session(0, SessionClosed("lost"))
    effects = olga.timeout(Timer.REPAIR) if how == "late" else olga.session(1, SessionClosed("dtls"))
    assert told(effects) == [api.Lost("media")]
    assert of(effects, Drop) == [Drop(1)]
    assert of(effects, MakeOffer) == [MakeOffer(2)]
    assert told(olga.session(2, SessionUp())) == [api.Recovered()]


def test_lost_signalling_alone_changes_nothing_and_with_lost_media_waits_for_it() -> None:
    olga = connected_callee()
    assert olga.signalling("door", False) == []
    effects = olga.session(0, SessionSilent(3.0))
    assert told(effects) == [api.Lost("signalling")]
    assert of(effects, MakeOffer) == []
    assert of(olga.signalling("door", True), MakeOffer) == [MakeOffer(1)]


def test_a_reloaded_page_is_offered_anew() -> None:
    olga = connected_callee()
    olga.tell(muted=True, held=False, video=True)
    effects = olga.receive("door", wire.Resume(CALL))
    assert told(effects) == [api.Lost("media")]
    assert of(effects, Drop) == [Drop(0)]
    assert of(effects, MakeOffer) == [MakeOffer(1)]
    assert any(isinstance(s, wire.Update) and s.muted for s in posted(effects))
    again = [effect for _ in range(20) for effect in olga.receive("door", wire.Resume(CALL))]
    assert of(again, MakeOffer) == of(again, Drop) == [], "saying it again builds nothing"


def test_a_page_that_was_away_while_it_rang_is_invited_again() -> None:
    door, first = caller("olga", "otto")
    assert door.signalling("olga", True) == []
    door.signalling("olga", False)
    assert posted(door.signalling("olga", True), "olga") == posted(first, "olga")


def test_a_branch_that_leaves_ends_what_was_said_to_end_and_waits_for_the_rest() -> None:
    assert finished(connected_callee().gone("door", left=True)) == END_REASONS["0/remote"]
    assert connected_callee().gone("door", left=False) == []
    assert finished(callee().gone("door", left=False)) == END_REASONS["487/cancelled"]
    door, _ = caller("olga", "otto")
    assert finished(door.gone("olga", left=True)) is None
    assert finished(door.gone("otto", left=False)) == END_REASONS["480/unreachable"]


@pytest.mark.parametrize(
    ("why", "key"), [("iceFailed", "410/iceFailed"), ("dtls", "488/dtls"), ("oneWayMedia", "410/oneWayMedia")]
)
def test_a_first_connection_that_fails_ends_the_call(why: str, key: str) -> None:
    olga = callee()
    olga.accept(BOTH)
    olga.offered(0, "offer-0")
    effects = olga.session(0, SessionClosed(why))
    assert finished(effects) == END_REASONS[key]
    assert posted(effects) == [wire.Bye(CALL, wire.Cause.of(END_REASONS[key]))]


def test_an_older_update_that_comes_later_is_nothing() -> None:
    door = connected_caller()
    effects = door.receive("olga", wire.Update(CALL, 5, True, True, True))
    assert told(effects) == [api.PeerMedia(True, True), api.Held(True)]
    assert door.receive("olga", wire.Update(CALL, 4, False, False, True)) == []


def test_candidates_are_counted_and_early_ones_wait() -> None:
    door, _ = caller()
    early = wire.Candidate(CALL, 0, "candidate:1", "0", 0)
    assert door.receive("olga", early) == []
    effects = door.receive("olga", wire.Accept(CALL, "offer-0", wire.Party("olga", "Olga"), BOTH))
    assert of(effects, AddCandidate) == [AddCandidate(early)]
    taken = sum(len(door.receive("olga", wire.Candidate(CALL, 0, f"candidate:{n}", "0", 0))) for n in range(200))
    assert taken == CANDIDATES - 1


def test_glare_turns_our_call_into_the_answer_of_theirs() -> None:
    door, _ = caller("olga", "otto")
    invite = wire.Invite("call-of-olga", wire.Party("olga", "Olga"), wire.Sends(True, False))
    effects = door.yield_to(invite, "olga", OLGA)
    assert posted(effects, "otto") == [wire.AnsweredElsewhere(CALL)]
    assert told(effects) == [api.Accepted(OLGA, "call-of-olga")]
    assert of(effects, MakeOffer) == [MakeOffer(0)]
    accept = posted(door.offered(0, "offer-0"))[0]
    assert isinstance(accept, wire.Accept)
    assert accept.call_id == "call-of-olga"


SIGNALS = st.sampled_from(
    [
        wire.RingingSignal(CALL), wire.Accept(CALL, "offer-0", wire.Party("olga", "Olga"), BOTH),
        wire.Answer(CALL, "answer-0"), wire.Cancel(CALL, wire.Cause(487, "cancelled")), wire.AnsweredElsewhere(CALL),
        wire.Reject(CALL, wire.Cause(603, "declined")), wire.Update(CALL, 1, True, False, True),
        wire.MediaLost(CALL, 0), wire.MediaLost(CALL, 3), wire.Move(CALL, 0), wire.Resume(CALL),
        wire.Reoffer(CALL, 1, "offer-1"), wire.Reoffer(CALL, 2, "offer-2"), wire.Reanswer(CALL, 1, "answer-1"),
        wire.Settle(CALL, 0), wire.Settle(CALL, 9), wire.Candidate(CALL, 1, "candidate:1", "0", 0),
        wire.Invite(CALL, wire.Party("olga", "Olga"), BOTH), wire.PictureSignal(CALL, "/9j/"),
    ]
)  # fmt: skip
INPUTS = st.one_of(
    SIGNALS,
    st.tuples(st.sampled_from([SessionUp(), SessionSilent(3), SessionSound(), SessionClosed("lost"),
                               SessionStranded(gone=False), SessionStranded(gone=True)]),
              st.integers(0, 3)),
    st.sampled_from(list(Timer)),
    st.booleans(),
    st.sampled_from(["accept", "offered", "answered", "failed"]),
)


@given(st.sampled_from(["caller", "callee", "both"]), st.lists(INPUTS, max_size=40))
def test_any_order_of_inputs_keeps_the_order_of_facts(side: str, inputs: list[Any]) -> None:
    """Whatever a peer, media and time do: no exception, at most one end, Connected once, Lost and Recovered in turn."""
    everything: list[Effect] = []
    if side == "callee":
        dialog, branch = callee(), "door"
    else:
        branch = "olga"
        dialog, everything = caller(*(("olga", "otto") if side == "both" else ("olga",)))
    for item in inputs:
        match item:
            case wire.CallSignal():
                everything += dialog.receive(branch, item)
            case (event, generation):
                everything += dialog.session(generation, event)
            case Timer():
                everything += dialog.timeout(item)
            case bool():
                everything += dialog.signalling(branch, item)
            case "accept":
                everything += dialog.accept(BOTH)
            case "offered":
                everything += dialog.offered(dialog.generation, "offer")
            case "answered":
                everything += dialog.answered(dialog.generation, "answer")
            case "failed":
                everything += dialog.failed(dialog.generation, END_REASONS["488/noCodec"])
    everything += dialog.end(END_REASONS["0/local"])
    assert sum(isinstance(e, Finish) for e in everything) == 1
    facts = told(everything)
    assert sum(isinstance(f, api.Connected) for f in facts) <= 1
    turns = [type(f) for f in facts if isinstance(f, api.Lost | api.Recovered)]
    assert all(a is not b for a, b in pairwise(turns))
    assert not turns or turns[0] is api.Lost
    made = [e.generation for e in everything if isinstance(e, MakeOffer | MakeAnswer)]
    assert made == sorted(set(made)), "a generation is built once"
