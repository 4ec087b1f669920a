"""Recording of a room as the membership asks for it: what is asked, refused, asked again, and given up."""

from __future__ import annotations

from appliance.media.api import SessionUp
from appliance.providers import api
from appliance.providers.janus.audio_bridge import AudioBridge
from appliance.providers.janus.effects import Recorded
from appliance.providers.janus.stay import Room
from tests.support.janus_desk import ME, Desk

LOCKED = Room(1234, "lobby", secret="s3cret")


def recording(desk: Desk) -> list[api.Recording]:
    return desk.told(api.Recording)


def back(desk: Desk) -> None:
    """Lost, and in the room again."""
    desk.run(desk.member.link_down("gone"))
    desk.asked.clear()
    desk.run(desk.member.link_up(same=False))
    desk.answer(lambda one: one["janus"] == "create", data={"id": 6})
    desk.answer(lambda one: one["janus"] == "attach", data={"id": 21})
    desk.joined(handle=21, own=2)


def recorded() -> Desk:
    desk = Desk(room=LOCKED)
    desk.in_room()
    desk.run(desk.member.record(on=True))
    desk.plugin("enable_recording", {"videoroom": "success", "record": True})
    return desk


def test_the_server_is_asked_with_the_secret() -> None:
    desk = Desk(room=LOCKED)
    assert not desk.member.may_record
    desk.in_room()
    assert desk.member.may_record
    desk.run(desk.member.record(on=True))
    assert desk.asked[-1]["body"] == {"request": "enable_recording", "room": 1234, "secret": "s3cret", "record": True}
    assert not desk.of(Recorded)
    desk.plugin("enable_recording", {"videoroom": "success", "record": True})
    assert desk.of(Recorded) == [Recorded()]
    assert recording(desk) == [api.Recording(True)]
    assert desk.member.recording
    desk.run(desk.member.record(on=False))
    assert desk.asked[-1]["body"]["record"] is False
    desk.plugin("enable_recording", {"videoroom": "success", "record": False})
    assert recording(desk)[-1] == api.Recording(False)
    assert not desk.member.recording


def test_without_a_secret_and_outside_of_the_room_there_is_none() -> None:
    desk = Desk()
    desk.in_room()
    assert not desk.member.may_record
    outside = Desk(room=LOCKED)
    outside.run(outside.member.record(on=True))
    assert outside.of(Recorded)[0].refusal.key == "503/provider"


def test_a_room_of_sound_alone_is_not_recorded_for_nobody_there_could_be_told() -> None:
    bridge = AudioBridge(LOCKED, me=ME, new_transaction=lambda: "t", monotonic=lambda: 0.0)
    assert not bridge.may_record


def test_a_secret_that_is_not_taken() -> None:
    desk = Desk(room=LOCKED)
    desk.in_room()
    desk.run(desk.member.record(on=True))
    desk.plugin("enable_recording", {"videoroom": "event", "error_code": 433, "error": "Unauthorized (wrong secret)"})
    refusal = desk.of(Recorded)[0].refusal
    assert refusal.key == "403/roomSecret"
    assert "wrong secret" in refusal.message
    assert not recording(desk)
    assert not desk.member.recording


def test_after_a_loss_it_is_asked_for_again() -> None:
    desk = recorded()
    back(desk)
    asked = [one for one in desk.asked if one.get("body", {}).get("request") == "enable_recording"]
    assert [(one["handle_id"], one["body"]["record"]) for one in asked] == [(21, True)]
    desk.plugin("enable_recording", {"videoroom": "success", "record": True}, handle=21)
    desk.run(desk.member.session(desk.member.generation, SessionUp({}), watching=False))
    assert recording(desk) == [api.Recording(True)], "it is told once"
    assert desk.member.recording


def test_who_is_sent_away_ends_it_before_the_session_goes() -> None:
    desk = recorded()
    desk.asked.clear()
    desk.says({"videoroom": "event", "leaving": "ok", "reason": "kicked"})
    assert [one["body"]["record"] for one in desk.asked] == [False]
    assert not desk.member.recording
    assert desk.member.over


def test_what_is_refused_after_a_loss_has_ended_and_says_why() -> None:
    desk = recorded()
    back(desk)
    desk.plugin("enable_recording", {"videoroom": "event", "error_code": 433, "error": "wrong secret"}, handle=21)
    ended = recording(desk)[-1]
    assert (ended.on, ended.reason and ended.reason.key) == (False, "403/roomSecret")
    assert not desk.member.recording
    assert not desk.member.over


def test_a_loss_while_it_is_asked_for_is_told_to_who_asked() -> None:
    desk = Desk(room=LOCKED)
    desk.in_room()
    desk.run(desk.member.record(on=True))
    back(desk)
    assert desk.of(Recorded)[0].refusal.key == "503/provider"
    assert not any(one.get("body", {}).get("request") == "enable_recording" for one in desk.asked)
