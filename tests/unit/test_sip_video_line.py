"""Offer and answer of pictures beside the voice."""

from __future__ import annotations

import base64
import random

import pytest

from appliance.providers.sip.call import FAST_UPDATE
from appliance.providers.sip.description import Description, Media, NotAcceptable
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.line import Agreed
from appliance.providers.sip.offer import Negotiation, Outline
from appliance.providers.sip.video_line import Pictures, parameters_of

HERE = "192.0.2.1"
PORTS = {"audio": (30_000, 30_001), "video": (30_002, 30_003)}
VIDEO = ("m=video 5000 RTP/AVP 96", "a=rtpmap:96 H264/90000", "a=fmtp:96 profile-level-id=42e01f;packetization-mode=1")


def theirs(*lines: str) -> bytes:
    return "\r\n".join(["v=0", "o=- 1 1 IN IP4 198.51.100.5", "s=-", "c=IN IP4 198.51.100.5", "t=0 0",
                        "m=audio 4000 RTP/AVP 0", *lines, ""]).encode()


def ours(able: Pictures | None = None, *, sending: bool = True, asked: bool = True, secure: bool = False,
         insist: bool = False) -> Negotiation:
    return Negotiation(HERE, PORTS, pictures=able or Pictures(), sending=sending, asked=asked, secure=secure,
                       insist=insist)


def video_of(sdp: bytes) -> Media:
    (line,) = (one for one in Description.parse(sdp).media if one.kind == "video")
    return line


def answered(*lines: str, able: Pictures | None = None, sending: bool = True) -> tuple[Media, Agreed | None]:
    answer, agreed = ours(able, sending=sending).answer(theirs(*lines))
    return video_of(answer), agreed.get("video")


def direction(line: Media) -> str:
    return line.attributes[-1][0]


def test_both_sides_of_ours_agree_on_fragments() -> None:
    here, there = ours(Pictures(sprop="Z0LgHwE=,aM44gA==")), Negotiation("192.0.2.2", PORTS, pictures=Pictures())
    offer = here.offer()
    line = video_of(offer)
    assert (line.port, line.proto, line.formats, direction(line)) == (30_002, "RTP/AVP", ["102", "103"], "sendrecv")
    assert line.all("rtcp-fb") == ["* nack pli", "* ccm fir"]
    assert Outline.of(offer).pictures
    answer, told = there.answer(offer)
    found = here.take_answer(answer)["video"]
    assert (found.format.payload_type, found.host, found.port, found.sends, found.receives) == (
        102, "192.0.2.2", 30_002, True, True)
    assert found.feedback == {"nack pli", "ccm fir"}
    assert parameters_of(told["video"].format)["sprop-parameter-sets"] == "Z0LgHwE=,aM44gA=="


@pytest.mark.parametrize(("lines", "payload_type", "ours_told"), [
    (("m=video 5000 RTP/AVP 96 97", "a=rtpmap:96 H264/90000", "a=rtpmap:97 H264/90000",
      "a=fmtp:97 packetization-mode=1;profile-level-id=42001f"), 97, "profile-level-id=42001f;packetization-mode=1"),
    (("m=video 5000 RTP/AVP 96", "a=rtpmap:96 h264/90000"), 96, "profile-level-id=42001f;packetization-mode=0"),
    (("m=video 5000 RTP/AVPF 99", "a=rtpmap:99 H264/90000", "a=fmtp:99 profile-level-id=64001F; packetization-mode=1"),
     99, "profile-level-id=64001f;packetization-mode=1"),
    (("m=video 5000 RTP/AVP 96 97", "a=rtpmap:96 H264/90000", "a=rtpmap:97 H264/90000",
      "a=fmtp:96 packetization-mode=1;profile-level-id=640028",
      "a=fmtp:97 packetization-mode=1;profile-level-id=42e00d"), 97, "profile-level-id=42e00d;packetization-mode=1"),
    (("m=video 5000 RTP/AVP 96", "a=rtpmap:96 H264/90000",
      "a=fmtp:96 packetization-mode=1;profile-level-id=42e00d;level-asymmetry-allowed=1"), 96,
     "profile-level-id=42e01f;packetization-mode=1")])
def test_forms_of_the_world(lines: tuple[str, ...], payload_type: int, ours_told: str) -> None:
    """Fragments before none, baseline before more; the level is ours where both may have their own."""
    line, found = answered(*lines)
    assert found is not None
    assert found.format.payload_type == payload_type
    assert (line.attribute("fmtp") or "").lower().startswith(f"{payload_type} {ours_told}")


@pytest.mark.parametrize("lines", [
    ("m=video 5000 RTP/AVP 31",), ("m=video 0 RTP/AVP 96", *VIDEO[1:]),
    ("m=video 5000 RTP/AVP 96", "a=rtpmap:96 VP8/90000"),
    ("m=video 5000 RTP/AVP 96", "a=rtpmap:96 H264/90000", "a=fmtp:96 packetization-mode=2"),
    ("m=video 5000 RTP/AVP 96", "a=rtpmap:96 H264/90000", "a=fmtp:96 profile-level-id=hello"),
    ("m=video 5000 RTP/SAVP 96", *VIDEO[1:]), ("m=video 5000 TCP/MSRP *",),
    (VIDEO[0], "c=IN IP4 host.example.org", *VIDEO[1:])])
def test_what_cannot_be_taken_leaves_a_call_of_sound(lines: tuple[str, ...]) -> None:
    line, found = answered(*lines)
    assert (line.port, found) == (0, None)


def test_a_telephone_without_pictures_answers_with_port_0_and_is_not_asked_again() -> None:
    negotiation = ours()
    negotiation.offer()
    assert set(negotiation.take_answer(theirs("m=video 0 RTP/AVP 102"))) == {"audio"}
    assert negotiation.video is not None
    assert "takes no pictures" in negotiation.video.refusal
    assert not negotiation.outdated
    again = negotiation.offer()
    assert video_of(again).port == 0, "a line never goes"
    older = ours()
    older.offer()
    assert set(older.take_answer(theirs())) == {"audio"}, "an answer without the line"


@pytest.mark.parametrize(("told", "sending", "reply", "sends", "receives"), [
    ("sendrecv", True, "sendrecv", True, True), ("sendrecv", False, "recvonly", False, True),
    ("sendonly", True, "recvonly", False, True), ("recvonly", True, "sendonly", True, False),
    ("recvonly", False, "inactive", False, False), ("inactive", True, "inactive", False, False)])
def test_directions(told: str, sending: bool, reply: str, sends: bool, receives: bool) -> None:
    line, found = answered(*VIDEO, f"a={told}", sending=sending)
    assert found is not None
    assert (direction(line), found.sends, found.receives) == (reply, sends, receives)


@pytest.mark.parametrize(("able", "port", "reply"), [
    (Pictures(camera=False), 30_002, "recvonly"), (Pictures(screen=False), 30_002, "sendonly"),
    (Pictures(camera=False, screen=False), 0, "")])
def test_what_the_board_lacks(able: Pictures, port: int, reply: str) -> None:
    answer, _ = ours(able).answer(theirs(*VIDEO))
    line = video_of(answer)
    assert line.port == port
    assert not reply or direction(line) == reply


def test_without_slices_packets_without_fragments_are_taken_and_not_sent() -> None:
    negotiation = ours(Pictures(slices=False))
    answer, agreed = negotiation.answer(theirs("m=video 5000 RTP/AVP 96", "a=rtpmap:96 H264/90000"))
    assert direction(video_of(answer)) == "recvonly"
    assert (agreed["video"].sends, agreed["video"].receives) == (False, True)
    assert negotiation.video is not None
    assert not negotiation.video.sendable


def test_pictures_begin_rest_and_end_by_new_descriptions() -> None:
    negotiation = ours(asked=False, sending=False)
    assert not Outline.of(negotiation.offer()).pictures
    negotiation.take_answer(theirs())
    assert negotiation.video is not None
    assert not negotiation.outdated
    negotiation.video.asked = negotiation.video.sending = True
    assert negotiation.outdated
    assert direction(video_of(negotiation.offer())) == "sendrecv"
    assert not negotiation.outdated, "until there is an answer"
    assert negotiation.take_answer(theirs(*VIDEO, "a=sendrecv"))["video"].sends
    negotiation.held = True
    assert negotiation.outdated
    assert direction(video_of(negotiation.offer())) == "inactive"
    negotiation.take_answer(theirs(*VIDEO, "a=inactive"))
    negotiation.held = False
    assert direction(video_of(negotiation.offer())) == "sendrecv"
    negotiation.take_answer(theirs(*VIDEO))
    negotiation.video.sending = False
    assert direction(video_of(negotiation.offer())) == "recvonly"
    assert not negotiation.take_answer(theirs(*VIDEO, "a=sendonly"))["video"].sends
    _, agreed = negotiation.answer(theirs("m=video 0 RTP/AVP 96"))
    assert set(agreed) == {"audio"}, "the other side ends them"
    assert video_of(negotiation.offer()).port == 0


def test_each_line_has_keys_of_its_own() -> None:
    here, there = ours(secure=True), Negotiation("192.0.2.2", PORTS, pictures=Pictures())
    answer, _ = there.answer(here.offer())
    found = here.take_answer(answer)
    assert found["audio"].keys is not None
    assert found["video"].keys is not None
    assert found["audio"].keys[0] != found["video"].keys[0]
    key = base64.b64encode(bytes(30)).decode()
    mixed = theirs(*VIDEO).replace(b"4000 RTP/AVP 0", b"4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:"
                                   + key.encode())
    reply, agreed = ours(insist=True).answer(mixed)
    assert (video_of(reply).port, set(agreed)) == (0, {"audio"}), "no picture in the clear beside encrypted sound"


@pytest.mark.parametrize(("lines", "bits"), [
    ((), 0), (("b=TIAS:400000",), 400_000), (("b=AS:400",), 372_000), (("b=AS:400", "b=TIAS:380000"), 380_000),
    (("b=X-YZ:128",), 0), (("b=AS:many",), 0)])
def test_bandwidth(lines: tuple[str, ...], bits: int) -> None:
    _, found = answered(VIDEO[0], *lines, *VIDEO[1:])
    assert found is not None
    assert found.bandwidth == bits


def test_our_own_limit_is_told_in_both_ways() -> None:
    offer = ours(Pictures(receive_bps=300_000)).offer()
    assert b"b=AS:323\r\nb=TIAS:300000\r\n" in offer


def test_feedback_counts_for_its_format_alone() -> None:
    _, found = answered(*VIDEO, "a=rtcp-fb:96 nack  pli", "a=rtcp-fb:97 ccm fir", "a=rtcp-fb:* NACK")
    assert found is not None
    assert found.feedback == {"nack pli"}, "of generic NACK we say nothing: it would bring nothing"


def test_the_request_for_a_key_frame_is_xml() -> None:
    assert FAST_UPDATE.startswith(b"<?xml")
    assert FAST_UPDATE.count(b"picture_fast_update") == 1


def test_any_description_is_answered_refused_or_malformed() -> None:
    dice = random.Random(6184)
    seeds = [theirs(*VIDEO, "b=AS:300", "a=rtcp-fb:* nack pli", "a=sendonly"), ours(secure=True).offer()]
    bits = [b"\r\n", b" ", b":", b";", b"=", b"9", b"\xff", b"m=", b"f", b""]
    for _ in range(2000):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 6)):
            at = dice.randrange(len(data))
            data[at : at + dice.randint(0, 5)] = dice.choice(bits)
        negotiation = ours(secure=dice.random() < 0.5)
        negotiation.offer()
        for step in (negotiation.take_answer, negotiation.answer):
            try:
                step(bytes(data))
            except (Malformed, NotAcceptable):
                continue
