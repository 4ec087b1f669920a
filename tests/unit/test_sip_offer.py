"""Offer and answer of voice: what is agreed with peers of all kinds."""

from __future__ import annotations

import base64

import pytest

from appliance.providers.sip.description import Description
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.offer import Agreed, Negotiation, NotAcceptable
from appliance.providers.sip.sdes import SUITES, Key, MediaProtection, parse_crypto

HERE, PORTS = "192.0.2.1", {"audio": (30_000, 30_001)}


def theirs(*lines: str, media: str = "audio 4000 RTP/AVP 0 8", address: str = "198.51.100.5") -> bytes:
    family = "IP6" if ":" in address else "IP4"
    return "\r\n".join(["v=0", f"o=- 1 1 IN {family} {address}", "s=-", f"c=IN {family} {address}", "t=0 0",
                        f"m={media}", *lines, ""]).encode()


def ours(**more: bool) -> Negotiation:
    return Negotiation(HERE, PORTS, **more)


def line_of(sdp: bytes, number: int = 0) -> tuple[str, list[str], str]:
    """Protocol, payload types and direction of a media line."""
    description = Description.parse(sdp)
    media = description.media[number]
    return media.proto, media.formats, description.direction_of(media)


def agreed(sdp: bytes, **more: bool) -> Agreed:
    return ours(**more).answer(sdp)[1]["audio"]


def test_an_offer_has_all_that_we_can_and_an_answer_the_first_in_common() -> None:
    first, second = ours(), Negotiation("192.0.2.2", {"audio": (31_000, 31_001)})
    offer = first.offer()
    assert line_of(offer) == ("RTP/AVP", ["96", "9", "8", "0", "13", "97", "101"], "sendrecv")
    answer, told = second.answer(offer)
    there, here = told["audio"], first.take_answer(answer)["audio"]
    assert (here.format.name, here.format.payload_type, here.event, here.host, here.port) == (
        "opus", 96, 97, "192.0.2.2", 31_000)
    assert (there.format.name, there.event, there.host, there.port) == ("opus", 97, HERE, 30_000)
    assert here.sends
    assert here.receives


@pytest.mark.parametrize(("media", "lines", "name", "payload_type", "event"), [
    ("audio 4000 RTP/AVP 0 8", (), "pcma", 8, None),
    ("audio 4000 RTP/AVP 0", (), "pcmu", 0, None),
    ("audio 4000 RTP/AVP 9 0 127", ("a=rtpmap:127 telephone-event/8000",), "g722", 9, 127),
    ("audio 4000 RTP/AVP 18 0", ("a=rtpmap:18 G729/8000",), "pcmu", 0, None),
    ("audio 4000 RTP/AVP 111 101", ("a=rtpmap:111 OPUS/48000/2", "a=rtpmap:101 Telephone-Event/8000"),
     "opus", 111, 101),
    ("audio 4000 RTP/AVP 111 101 110", ("a=rtpmap:111 opus/48000/2", "a=rtpmap:101 telephone-event/8000",
                                        "a=rtpmap:110 telephone-event/48000"), "opus", 111, 110),
    ("audio 4000/2 RTP/AVPF 0", (), "pcmu", 0, None)])
def test_offers_of_the_world(
    media: str, lines: tuple[str, ...], name: str, payload_type: int, event: int | None
) -> None:
    found = agreed(theirs(*lines, media=media))
    assert (found.format.name, found.format.payload_type, found.event) == (name, payload_type, event)


@pytest.mark.parametrize(("media", "noise", "types"), [
    ("audio 4000 RTP/AVP 0 13 101", 13, ["0", "13", "101"]), ("audio 4000 RTP/AVP 9 13", 13, ["9", "13"]),
    ("audio 4000 RTP/AVP 8", None, ["8"]), ("audio 4000 RTP/AVP 111 13 101", None, ["111", "101"])])
def test_comfort_noise_is_taken_beside_what_counts_by_its_clock(
    media: str, noise: int | None, types: list[str],
) -> None:
    lines = ("a=rtpmap:111 opus/48000/2", "a=rtpmap:101 telephone-event/8000")
    answer, found = ours().answer(theirs(*lines, media=media))
    assert found["audio"].noise == noise
    assert line_of(answer)[1] == types
    assert ("a=rtpmap:13 CN/8000" in answer.decode()) is (noise is not None)


@pytest.mark.parametrize(("told", "reply", "sends", "receives"), [
    ("sendrecv", "sendrecv", True, True), ("sendonly", "recvonly", False, True),
    ("recvonly", "sendonly", True, False), ("inactive", "inactive", False, False)])
def test_directions(told: str, reply: str, sends: bool, receives: bool) -> None:
    negotiation = ours()
    answer, lines = negotiation.answer(theirs(f"a={told}"))
    found = lines["audio"]
    assert line_of(answer)[2] == reply
    assert (found.sends, found.receives) == (sends, receives)
    negotiation.held = True
    assert line_of(negotiation.answer(theirs(f"a={told}"))[0])[2] == ("sendonly" if sends else "inactive")


def test_hold_of_before_rfc_3264_and_a_direction_of_the_session() -> None:
    assert not agreed(theirs(address="0.0.0.0")).sends
    negotiation = ours()
    negotiation.answer(theirs())
    held = negotiation.answer(theirs(address="0.0.0.0"))[1]["audio"]
    assert (held.sends, held.host) == (False, "198.51.100.5"), "reports still have somewhere to go"
    session = theirs().replace(b"t=0 0", b"t=0 0\r\na=sendonly")
    assert not agreed(session).sends


def test_our_hold_and_resume() -> None:
    negotiation = ours()
    negotiation.offer()
    negotiation.take_answer(theirs())
    negotiation.held = True
    held = negotiation.offer()
    assert line_of(held) == ("RTP/AVP", ["0", "96", "9", "8", "13", "97", "101"], "sendonly"), "the codec in use first"
    assert not negotiation.take_answer(theirs("a=recvonly"))["audio"].receives
    negotiation.take_answer(theirs("a=inactive"))
    assert line_of(negotiation.offer())[2] == "inactive", "both hold"
    negotiation.held = False
    assert line_of(negotiation.offer())[2] == "sendrecv"
    origins = {Description.parse(held).origin, Description.parse(negotiation.offer()).origin}
    assert len(origins) == 2, "a new version for each description"


@pytest.mark.parametrize(("lines", "media", "milliseconds"), [
    ((), "0", 20), (("a=ptime:30",), "0", 30), (("a=ptime:30",), "9", 30), (("a=ptime:50",), "96", 40),
    (("a=ptime:5",), "0", 10),
    (("a=ptime:200",), "0", 60), (("a=ptime:40", "a=maxptime:20"), "0", 20), (("a=ptime:20.0",), "0", 20),
    (("a=ptime:many",), "0", 20)])
def test_packet_time(lines: tuple[str, ...], media: str, milliseconds: int) -> None:
    offer = theirs("a=rtpmap:96 opus/48000/2", *lines, media=f"audio 4000 RTP/AVP {media}")
    assert agreed(offer).packet_time_ms == milliseconds


def test_where_reports_go() -> None:
    assert agreed(theirs()).rtcp is None
    assert agreed(theirs("a=rtcp:5005")).rtcp == 5005
    assert agreed(theirs("a=rtcp:5005 IN IP4 198.51.100.5")).rtcp == 5005
    assert agreed(theirs("a=rtcp:99999")).rtcp is None
    assert b"a=rtcp:30005" in Negotiation(HERE, {"audio": (30_000, 30_005)}).offer()


def test_reports_go_beside_the_sound_where_both_sides_say_so() -> None:
    """RFC 5761 5.1.1: an answer has it where the offer had."""
    assert b"a=rtcp-mux" in ours().offer()
    for lines, muxed in (((), False), (("a=rtcp:4007", "a=rtcp-mux"), True)):
        negotiation = ours()
        answer, told = negotiation.answer(theirs(*lines))
        assert (told["audio"].mux, b"a=rtcp-mux" in answer) == (muxed, muxed)
        offering = ours()
        offering.offer()
        assert offering.take_answer(theirs(*lines))["audio"].mux is muxed
        assert told["audio"].rtcp is None


def test_lines_that_are_not_wanted_stay_and_are_refused() -> None:
    offer = theirs("a=rtpmap:96 H264/90000", "m=audio 4000 RTP/AVP 0", "m=text 0 TCP t", media="video 5000 RTP/AVP 96")
    negotiation = ours()
    answer, _ = negotiation.answer(offer)
    said = Description.parse(answer)
    assert [(one.kind, one.port) for one in said.media] == [("video", 0), ("audio", 30_000), ("text", 0)]
    again = Description.parse(negotiation.offer())
    assert [one.kind for one in again.media] == ["video", "audio", "text"], "an m-line never goes"


@pytest.mark.parametrize("sdp", [
    theirs(media="video 5000 RTP/AVP 96"), theirs(media="audio 0 RTP/AVP 0"), theirs(media="audio 4000 RTP/AVP 18"),
    theirs(address="2001:db8::5"),
    theirs(media="audio 4000 UDP/TLS/RTP/SAVPF 0"), theirs(media="audio 4000 RTP/SAVP 0"),
    b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=-\r\nt=0 0\r\n"])
def test_offers_without_anything_for_us(sdp: bytes) -> None:
    with pytest.raises(NotAcceptable):
        ours().answer(sdp)


@pytest.mark.parametrize("sdp", [
    b"", b"v=1\r\n", b"hello", theirs(media="audio many RTP/AVP 0"), theirs(media="audio 70000 RTP/AVP 0"),
    theirs(media="audio"), theirs(address="pbx.example.org"), theirs(address="224.2.2.2"),
    theirs() + b"m=audio 1 RTP/AVP 0\r\n" * 20,
    theirs("a=x" * 20_000), theirs(*["a=x:y"] * 1100), theirs().replace(b"c=IN IP4", b"c=IN IPX")])
def test_descriptions_that_are_none(sdp: bytes) -> None:
    with pytest.raises(Malformed):
        ours().answer(sdp)


def test_an_answer_that_refuses_or_does_not_fit() -> None:
    negotiation = ours()
    negotiation.offer()
    with pytest.raises(NotAcceptable, match="no sound"):
        negotiation.take_answer(theirs(media="audio 0 RTP/AVP 0"))
    with pytest.raises(Malformed):
        negotiation.take_answer(b"v=0\r\n")
    with pytest.raises(NotAcceptable):
        negotiation.take_answer(theirs(media="audio 4000 RTP/SAVP 0"))


# --- encryption ------------------------------------------------------------------------------------------------------


def test_keys_are_exchanged_and_stay_over_a_hold() -> None:
    first, second = ours(secure=True), Negotiation("192.0.2.2", PORTS)
    offer = first.offer()
    assert line_of(offer)[0] == "RTP/SAVP"
    assert offer.count(b"a=crypto:") == len(SUITES)
    answer, told = second.answer(offer)
    there, here = told["audio"], first.take_answer(answer)["audio"]
    assert here.keys is not None
    assert there.keys == (here.keys[1], here.keys[0])
    assert here.keys[0].suite == "AEAD_AES_256_GCM"
    first.held = True
    answer, again = second.answer(first.offer())
    assert again["audio"].keys == there.keys
    assert first.take_answer(answer)["audio"].keys == here.keys


def test_nothing_in_the_clear_where_encryption_is_required() -> None:
    with pytest.raises(NotAcceptable, match="require_encryption"):
        agreed(theirs(), insist=True)
    negotiation = ours(insist=True)
    negotiation.offer()
    with pytest.raises(NotAcceptable, match="no key"):
        negotiation.take_answer(theirs())
    both = theirs() + b"m=audio 4002 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + base64.b64encode(
        bytes(30)) + b"\r\n"
    assert agreed(both, insist=True).port == 4002


@pytest.mark.parametrize(("text", "suite"), [
    (f"1 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(bytes(30)).decode()}", "AES_CM_128_HMAC_SHA1_80"),
    (f"22 AES_CM_128_HMAC_SHA1_32 inline:{base64.b64encode(bytes(30)).decode()}|2^20", "AES_CM_128_HMAC_SHA1_32"),
    (f"3 AEAD_AES_256_GCM inline:{base64.b64encode(bytes(44)).decode().rstrip('=')}", "AEAD_AES_256_GCM"),
    (f"3 aead_aes_128_gcm inline:{base64.b64encode(bytes(28)).decode()}", "AEAD_AES_128_GCM")])
def test_keys_of_the_world(text: str, suite: str) -> None:
    found = parse_crypto(text)
    assert found is not None
    assert (found[0], found[1].suite) == (int(text.split()[0]), suite)
    assert parse_crypto(f"9 {found[1]}") == (9, found[1])


@pytest.mark.parametrize("text", [
    "", "1 AES_CM_128_HMAC_SHA1_80", "x AES_CM_128_HMAC_SHA1_80 inline:AAAA",
    f"1 F8_128_HMAC_SHA1_80 inline:{base64.b64encode(bytes(30)).decode()}",
    f"1 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(bytes(29)).decode()}",
    f"1 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(bytes(30)).decode()}|1:4",
    f"1 AES_CM_128_HMAC_SHA1_80 inline:{base64.b64encode(bytes(30)).decode()} UNENCRYPTED_SRTP",
    "1 AES_CM_128_HMAC_SHA1_80 inline:=A" + "A" * 39])
def test_keys_that_cannot_be_kept_are_left_out(text: str) -> None:
    assert parse_crypto(text) is None


def test_packets_pass_as_agreed() -> None:
    packet = bytes.fromhex("8000000100000000deadbeef") + b"voice"
    here, there = MediaProtection(), MediaProtection()
    with pytest.raises(ConnectionError):
        here.protect(packet, rtcp=False)
    with pytest.raises(ValueError, match="nothing is agreed"):
        here.unprotect(packet, rtcp=False)
    one, other = Key.new("AES_CM_128_HMAC_SHA1_80"), Key.new("AES_CM_128_HMAC_SHA1_80")
    here.agree((one, other))
    there.agree((other, one))
    locked = here.protect(packet, rtcp=False)
    assert b"voice" not in locked
    assert there.unprotect(locked, rtcp=False) == packet
    with pytest.raises(ValueError):
        there.unprotect(packet, rtcp=False)
    assert here.security() == {"srtpCipher": "AES_CM_128_HMAC_SHA1_80"}
    here.agree(None)
    assert here.protect(packet, rtcp=False) == packet
    assert here.security() == {}


def test_a_key_that_stays_goes_on_counting() -> None:
    """A session made anew would take the number of a packet for one of long ago."""
    one, other = Key.new("AEAD_AES_256_GCM"), Key.new("AEAD_AES_256_GCM")
    here = MediaProtection()
    here.agree((one, other))
    packet = bytes.fromhex("8000000100000000deadbeef") + b"voice"
    here.protect(packet, rtcp=False)
    here.agree((one, Key.new("AEAD_AES_256_GCM")))
    with pytest.raises(Exception, match="replay"):
        here.protect(packet, rtcp=False)
