"""What we share in a room, against a server in the test's hand."""

from __future__ import annotations

from appliance.providers import api
from appliance.providers.janus.effects import Share, ShareAnswer, Trickle, Unshare
from appliance.vocabulary import Json
from tests.support.janus_desk import PUBLISHER, Desk, person

SHARED = 21
OFFER = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 99\r\na=mid:0\r\n"


def begun(desk: Desk, *, own: int = 7) -> None:
    """In the room as a second publisher."""
    desk.answer(lambda one: one["janus"] == "attach", data={"id": SHARED})
    desk.plugin("join", {"videoroom": "joined", "id": own, "private_id": 78}, handle=SHARED)


def published(desk: Desk) -> None:
    desk.run(desk.member.shared(desk.member.generation, OFFER))
    desk.plugin("publish", {"videoroom": "event", "configured": "ok"}, handle=SHARED,
                jsep={"type": "answer", "sdp": "answer"})


def asked(desk: Desk) -> list[Json]:
    return [one for one in desk.asked if one.get("handle_id") == SHARED]


def test_what_is_shared_is_a_feed_of_its_own_that_says_it_is_content() -> None:
    desk = Desk()
    desk.in_room(person(2, "Olga"))
    desk.run(desk.member.share(True))
    desk.answer(lambda one: one["janus"] == "attach", data={"id": SHARED})
    (join,) = asked(desk)
    assert (join["body"]["display"], join["body"]["metadata"]) == ("Front door (content)", {"identity": "door-1"})
    assert not desk.of(Share)
    desk.plugin("join", {"videoroom": "joined", "id": 7, "private_id": 78}, handle=SHARED)
    assert desk.of(Share) == [Share(0)]
    desk.run(desk.member.shared(0, OFFER))
    (publish,) = asked(desk)
    assert publish["body"]["descriptions"] == [{"mid": "0", "description": "content"}]
    desk.plugin("publish", {"videoroom": "event", "configured": "ok"}, handle=SHARED,
                jsep={"type": "answer", "sdp": "answer"})
    assert desk.of(ShareAnswer) == [ShareAnswer(0, "answer")]
    # the room tells of it as of anybody: it is nobody
    desk.says({"videoroom": "event", "publishers": [
        {"id": 7, "display": "Front door (content)", "streams": [
            {"type": "video", "mid": "0", "codec": "h264", "description": "content"}]}]})
    assert desk.names == ["Olga"]
    desk.run(desk.member.share(False))
    assert desk.of(Unshare) == [Unshare(0)]
    assert asked(desk)[-1]["janus"] == "detach"


def test_it_is_stopped_before_it_has_begun() -> None:
    desk = Desk()
    desk.in_room()
    desk.run(desk.member.share(True))
    desk.run(desk.member.share(False))
    begun(desk)
    assert not desk.of(Share)
    assert asked(desk)[-1]["janus"] == "detach"


def test_a_full_room_refuses_what_is_shared_and_nothing_else() -> None:
    desk = Desk()
    desk.in_room()
    desk.run(desk.member.share(True))
    begun(desk)
    desk.run(desk.member.shared(0, OFFER))
    desk.plugin("publish", {"videoroom": "event", "error_code": 432, "error": "full"}, handle=SHARED)
    assert [one.reason.key for one in desk.told(api.ContentEnded)] == ["403/roomFull"]
    assert desk.of(Unshare) == [Unshare(0)]
    assert not desk.told(api.Lost)
    assert not desk.told(api.Ended)


def test_a_connection_that_is_lost_ends_what_is_shared_alone() -> None:
    desk = Desk()
    desk.in_room()
    desk.run(desk.member.share(True))
    begun(desk)
    published(desk)
    desk.run(desk.member.receive({"janus": "hangup", "sender": SHARED}))
    assert [one.reason.key for one in desk.told(api.ContentEnded)] == ["410/mediaLost"]
    assert not desk.told(api.Lost)


def test_after_a_loss_it_is_shared_again() -> None:
    desk = Desk()
    desk.in_room()
    desk.run(desk.member.share(True))
    begun(desk)
    published(desk)
    desk.run(desk.member.link_down("gone"))
    desk.asked.clear()
    desk.run(desk.member.link_up())
    desk.answer(lambda one: one["janus"] == "claim", janus="error", error={"code": 458})
    desk.answer(lambda one: one["janus"] == "create", data={"id": 6})
    desk.answer(lambda one: one["janus"] == "attach", data={"id": PUBLISHER})
    desk.joined()
    assert desk.of(Share) == [Share(0)]
    begun(desk, own=9)
    assert desk.of(Share) == [Share(0), Share(1)]


def test_a_candidate_for_what_is_shared_goes_there() -> None:
    desk = Desk()
    desk.in_room()
    desk.run(desk.member.share(True))
    begun(desk)
    candidate = {"candidate": "candidate:1 1 udp 1 127.0.0.1 5000 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
    desk.run(desk.member.receive({"janus": "trickle", "sender": SHARED, "candidate": candidate}))
    assert desk.of(Trickle) == [Trickle(0, False, str(candidate["candidate"]), "0", 0, shared=True)]
