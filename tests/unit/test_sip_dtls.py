"""Offer and answer of lines with DTLS-SRTP: who begins the handshake, whose certificate, by which path."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from appliance.media.api import IceFragment
from appliance.media.ways import OurEnd
from appliance.providers.sip.description import Description
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.offer import Agreed, Carrier, Negotiation, NotAcceptable, Outline
from appliance.providers.sip.video_line import Pictures

PRINT = ":".join(["AB"] * 32)
OTHER = ":".join(["CD"] * 32)
TLS_ID = "a" * 32
CANDIDATE = "candidate:1 1 udp 2130706431 198.51.100.5 4000 typ host"
ICE = ("a=ice-ufrag:abcd", "a=ice-pwd:" + "p" * 22, f"a={CANDIDATE}")
LINE = "audio 4000 UDP/TLS/RTP/SAVPF 0 101"


def end(number: int = 1, *, ice: bool = True) -> OurEnd:
    fragment = IceFragment("ours", "w" * 22, ("candidate:9 1 udp 1 192.0.2.1 30000 typ host",)) if ice else None
    return OurEnd(("192.0.2.1", 30_000), ":".join([f"{number:02X}"] * 32), f"{number}" * 32, fragment)


def ours(*, insist: bool = False, ice: bool = True) -> Negotiation:
    return Negotiation("192.0.2.1", {"audio": end(ice=ice)}, insist=insist)


def theirs(
    *lines: str, media: str = LINE, setup: str = "actpass", mark: str = f"sha-256 {PRINT}", mux: bool = True,
    address: str = "198.51.100.5", session: tuple[str, ...] = (),
) -> bytes:
    told = [f"a=setup:{setup}"] if setup else []
    told += [f"a=fingerprint:{mark}"] if mark else []
    told += ["a=rtcp-mux"] if mux else []
    return "\r\n".join([
        "v=0", f"o=- 1 1 IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0", *session, f"m={media}",
        "a=rtpmap:101 telephone-event/8000", *told, *lines, ""]).encode()


def attribute(sdp: bytes, name: str) -> str | None:
    return Description.parse(sdp).media[0].attribute(name)


def agreed(sdp: bytes, negotiation: Negotiation | None = None) -> Agreed:
    return (negotiation or ours()).answer(sdp)[1]["audio"]


def test_our_offer_leaves_the_beginning_to_the_other_side() -> None:
    offer = ours().offer()
    (line,) = Description.parse(offer).media
    assert (line.proto, line.port, line.attribute("setup")) == ("UDP/TLS/RTP/SAVPF", 30_000, "actpass")
    assert line.attribute("fingerprint") == "sha-256 " + ":".join(["01"] * 32)
    assert line.attribute("tls-id") == "1" * 32
    assert line.attribute("rtcp-mux") == ""
    assert (line.attribute("ice-ufrag"), line.attribute("candidate")) == ("ours", "9 1 udp 1 192.0.2.1 30000 typ host")
    assert line.all("crypto") == []
    assert b"a=group:BUNDLE audio\r\n" in offer, "who insists on bundles gets one, of this line"


def test_without_ice_an_offer_says_nothing_of_it() -> None:
    assert b"ice" not in ours(ice=False).offer()


@pytest.mark.parametrize(("setup", "client"), [("active", True), ("passive", False), ("", False)])
def test_an_answer_says_who_begins(setup: str, client: bool) -> None:
    negotiation = ours()
    negotiation.offer()
    found = negotiation.take_answer(theirs(*ICE, setup=setup))["audio"].end
    assert found is not None
    assert (found.client, found.controlling) == (client, True)
    assert found.fingerprints == {("sha-256", PRINT)}
    assert found.ice == IceFragment("abcd", "p" * 22, (CANDIDATE,))


@pytest.mark.parametrize(("setup", "reply", "client"), [
    ("actpass", "active", False), ("active", "passive", True), ("passive", "active", False), ("", "passive", True)])
def test_their_offer_says_who_may_begin(setup: str, reply: str, client: bool) -> None:
    answer, found = ours().answer(theirs(setup=setup, media=LINE.replace("SAVPF", "SAVP")))
    assert (attribute(answer, "setup"), Description.parse(answer).media[0].proto) == (reply, "UDP/TLS/RTP/SAVP")
    assert attribute(answer, "tls-id") is None, "who does not name associations is not told names"
    there = found["audio"].end
    assert there is not None
    assert (there.client, there.controlling, there.ice) == (client, False, None)


def test_a_hold_by_either_side_is_the_same_association() -> None:
    negotiation = ours()
    first = agreed(theirs("a=tls-id:" + TLS_ID, setup="active"), negotiation).end
    answer, again = negotiation.answer(theirs("a=tls-id:" + TLS_ID, "a=sendonly"))
    assert first == again["audio"].end, "actpass leaves everything as it is"
    assert (attribute(answer, "setup"), attribute(answer, "tls-id")) == ("passive", "1" * 32)
    assert not again["audio"].sends
    negotiation.held = True
    held = negotiation.offer()
    assert (attribute(held, "setup"), attribute(held, "fingerprint")) == ("actpass", "sha-256 " + ":".join(["01"] * 32))
    assert negotiation.take_answer(theirs("a=tls-id:" + TLS_ID, setup="active"))["audio"].end == first


@pytest.mark.parametrize("change", [{"mark": f"sha-256 {OTHER}"}, {"setup": "passive"}])
def test_another_certificate_or_part_is_another_association(change: dict[str, Any]) -> None:
    negotiation = ours()
    first = agreed(theirs(setup="active"), negotiation).end
    second = negotiation.ends(theirs(**{"setup": "active", **change}))["audio"]
    assert second != first
    negotiation.move({"audio": end(2)})
    answer = negotiation.answer(theirs(**{"setup": "active", **change}))[0]
    assert attribute(answer, "fingerprint") == "sha-256 " + ":".join(["02"] * 32), "ours is another one too"


def test_what_stands_for_the_session_holds_for_its_lines() -> None:
    session = (f"a=fingerprint:sha-256 {PRINT}", "a=setup:active", *ICE[:2], "a=ice-lite")
    found = agreed(theirs(ICE[2], setup="", mark="", session=session)).end
    assert found is not None
    assert found.client
    assert found.fingerprints == {("sha-256", PRINT)}
    assert found.ice == IceFragment("abcd", "p" * 22, (CANDIDATE,), lite=True)


def test_an_address_of_nowhere_is_no_hold_where_a_path_is_looked_for() -> None:
    found = agreed(theirs(*ICE, media=LINE.replace("4000", "9"), address="0.0.0.0"))
    assert found.sends
    assert found.receives


def test_names_of_lines_and_bundles_are_kept() -> None:
    session = ("a=group:BUNDLE 0 1",)
    more = b"m=video 4000 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n"
    answer, _ = ours().answer(theirs("a=mid:0", session=session) + more)
    description = Description.parse(answer)
    assert description.attributes == [("group", "BUNDLE 0")]
    assert [(one.port, one.attribute("mid")) for one in description.media] == [(30_000, "0"), (0, "1")]
    answer, _ = ours().answer(theirs("a=mid:0"))
    assert Description.parse(answer).attributes == [], "who does not bundle is not asked to"


@pytest.mark.parametrize(("more", "words"), [
    ({"mux": False}, "a port of its own"), ({"mark": ""}, "fingerprint"),
    ({"mark": "sha-1 " + ":".join(["AB"] * 20)}, "SHA-256"), ({"setup": "holdconn"}, "setup"),
    ({"media": "audio 4000 RTP/AVP 0"}, "no sound with DTLS"),
    ({"media": "audio 4000 UDP/TLS/RTP/SAVPF 18"}, "codec")])
def test_what_cannot_be_taken_is_refused_with_words(more: dict[str, Any], words: str) -> None:
    with pytest.raises(NotAcceptable, match=words):
        agreed(theirs(**more))


@pytest.mark.parametrize("more", [
    {"mark": "sha-256 AB:CD"}, {"mark": "sha-256"}, {"mark": "sha-256 " + ":".join(["AB"] * 48)},
    {"session": ("a=ice-ufrag:abcd",)}, {"session": ("a=ice-ufrag:ab", ICE[1])},
    {"session": (ICE[0], "a=ice-pwd:short")}])
def test_what_cannot_be_read_is_malformed(more: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        agreed(theirs(**more))


def test_candidates_that_nobody_could_check_are_left_out() -> None:
    bad = ("a=candidate:1 1 tcp 1 198.51.100.5 9 typ host tcptype active", "a=candidate:x", "a=candidate:1 1 udp 1 h")
    many = (f"a=candidate:{number} 1 udp 1 198.51.100.5 {number} typ host" for number in range(1, 99))
    found = agreed(theirs(*ICE, *bad, *many)).end
    assert found is not None
    assert found.ice is not None
    assert len(found.ice.candidates) == 64
    assert found.ice.candidates[0] == CANDIDATE


def test_an_answer_must_be_what_was_offered() -> None:
    negotiation = ours()
    negotiation.offer()
    with pytest.raises(NotAcceptable, match="DTLS"):
        negotiation.take_answer(theirs(media="audio 4000 RTP/AVP 0"))
    with pytest.raises(NotAcceptable, match="setup"):
        negotiation.take_answer(theirs(setup="actpass"))


def test_dtls_is_encryption_where_that_is_required() -> None:
    assert agreed(theirs(), ours(insist=True)).end is not None
    ports = Negotiation("192.0.2.1", {"audio": (30_000, 30_001)}, insist=True)
    with pytest.raises(NotAcceptable, match="DTLS is not taken"):
        ports.answer(theirs())


@pytest.mark.parametrize(("sdp", "carrier"), [
    (theirs(), Carrier.DTLS), (theirs(*ICE), Carrier.ICE), (theirs(media="audio 4000 RTP/AVP 0"), Carrier.PORTS),
    (theirs(media="audio 0 UDP/TLS/RTP/SAVPF 0"), Carrier.PORTS),
    (theirs(media="audio 4000 RTP/SAVPF 0"), Carrier.DTLS),
    (theirs("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + "A" * 40, media="audio 4000 RTP/SAVPF 0"), Carrier.PORTS),
    (theirs(media="audio 4000 RTP/SAVPF 0", mark=""), Carrier.PORTS)])
def test_what_an_offer_asks_for(sdp: bytes, carrier: Carrier) -> None:
    assert Outline.of(sdp).carrier is carrier
    negotiation = Negotiation("192.0.2.9", carrier.stand_in)
    if carrier is not Carrier.PORTS:
        assert negotiation.answer(sdp)[1]["audio"].end is not None


def test_any_description_is_answered_refused_or_malformed() -> None:
    dice = random.Random(8842)
    seeds = [theirs(*ICE, "a=mid:0", "a=tls-id:" + TLS_ID, session=("a=group:BUNDLE 0", "a=ice-lite")), ours().offer(),
             theirs(*ICE, SECOND, "a=rtcp:4001", mux=False), apart().offer()]
    bits = [b"\r\n", b" ", b":", b"/", b"9", b"\xff", b"=", b"a=", b"AB:", b""]
    for _ in range(3000):
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.randint(1, 6)):
            at = dice.randrange(len(data))
            data[at : at + dice.randint(0, 5)] = dice.choice(bits)
        negotiation = dice.choice((ours, apart))()
        negotiation.offer()
        for step in (negotiation.take_answer, negotiation.answer, negotiation.ends, Outline.of):
            try:
                step(bytes(data))
            except (Malformed, NotAcceptable):
                continue


def test_the_profile_without_feedback_is_offered_once_more_to_who_refuses_the_other() -> None:
    negotiation = seen(end(2))
    negotiation.offer()
    assert negotiation.leave_feedback()
    negotiation.forget()
    lines = Description.parse(negotiation.offer()).media
    assert [one.proto for one in lines] == ["UDP/TLS/RTP/SAVP"] * 2
    assert not negotiation.leave_feedback(), "there is no other"
    assert not Negotiation("192.0.2.1", {"audio": (30_000, 30_001)}, secure=True).leave_feedback()


# --- RTCP on a port of its own ----------------------------------------------------------------------------------------


SECOND = "a=" + CANDIDATE.replace(":1 1 ", ":1 2 ").replace("4000", "4001")
OURS = ["9 1 udp 1 192.0.2.1 30000 typ host", "9 2 udp 0 192.0.2.1 30001 typ host"]


def apart_end(number: int = 1) -> OurEnd:
    """A place with a port for it."""
    here = end(number)
    assert here.ice is not None
    return replace(here, rtcp=30_001, ice=replace(here.ice, candidates=tuple(f"candidate:{one}" for one in OURS)))


def apart() -> Negotiation:
    return Negotiation("192.0.2.1", {"audio": apart_end()})


def told(sdp: bytes) -> tuple[bool, str | None, list[str]]:
    """What our description says of RTCP: beside RTP, its port, and the candidates of both."""
    (line,) = Description.parse(sdp).media
    return line.attribute("rtcp-mux") is not None, line.attribute("rtcp"), line.all("candidate")


def test_our_offer_leaves_it_to_the_other_side_where_rtcp_goes() -> None:
    assert told(apart().offer()) == (True, "30001", OURS)


@pytest.mark.parametrize("ice", [(), (*ICE, SECOND)])
@pytest.mark.parametrize(("lines", "port"), [
    ((), None), (("a=rtcp:4711 IN IP4 198.51.100.5",), 4711), (("a=rtcp:x",), None)])
def test_an_answer_without_it_takes_rtcp_on_a_port_of_its_own(
    ice: tuple[str, ...], lines: tuple[str, ...], port: int | None,
) -> None:
    negotiation = apart()
    negotiation.offer()
    found = negotiation.take_answer(theirs(*ice, *lines, setup="active", mux=False))["audio"]
    assert found.end is not None
    assert (found.mux, found.end.mux, found.rtcp) == (False, False, port)
    candidates = [] if found.end.ice is None else list(found.end.ice.candidates)
    assert candidates == ([CANDIDATE, SECOND.removeprefix("a=")] if ice else [])
    assert told(negotiation.offer()) == (False, "30001", OURS), "and it is not asked again"


def test_an_answer_with_it_needs_no_other_port() -> None:
    negotiation = apart()
    negotiation.offer()
    found = negotiation.take_answer(theirs(*ICE, SECOND, "a=rtcp:4711", setup="active"))["audio"]
    assert found.end is not None
    assert (found.mux, found.end.mux, found.rtcp) == (True, True, None)
    assert found.end.ice is not None
    assert found.end.ice.candidates == (CANDIDATE,)
    assert told(negotiation.offer()) == (True, None, OURS[:1])


def test_what_was_not_offered_is_not_believed() -> None:
    negotiation = apart()
    negotiation.offer()
    negotiation.take_answer(theirs(setup="active", mux=False))
    negotiation.offer()
    assert not negotiation.take_answer(theirs(setup="active"))["audio"].mux


@pytest.mark.parametrize("mux", [True, False])
def test_their_offer_is_answered_in_its_way(mux: bool) -> None:
    negotiation = apart()
    answer, found = negotiation.answer(theirs(*ICE, SECOND, "a=rtcp:4001", mux=mux))
    there = found["audio"]
    assert there.end is not None
    assert (there.mux, there.end.mux, there.rtcp) == (mux, mux, None if mux else 4001)
    assert told(answer) == ((True, None, OURS[:1]) if mux else (False, "30001", OURS))
    assert told(negotiation.offer()) == told(answer), "and so are ours then"


def test_another_association_leaves_it_to_the_other_side_again() -> None:
    negotiation = apart()
    negotiation.answer(theirs(*ICE))
    negotiation.move({"audio": apart_end(2)})
    assert told(negotiation.offer()) == (True, "30001", OURS)


def test_whether_all_lines_of_an_offer_have_it() -> None:
    assert Outline.of(theirs()).mux
    assert not Outline.of(theirs(mux=False)).mux
    other = "m=video %d UDP/TLS/RTP/SAVPF 96\r\n"
    assert not Outline.of(theirs() + (other % 4002).encode()).mux
    assert Outline.of(theirs() + (other % 0).encode()).mux, "a line that is none has no port either"


# --- pictures, in a bundle with the sound ----------------------------------------------------------------------------


def seen(place: OurEnd | None = None, **more: Any) -> Negotiation:
    """With pictures, at a place of their own or, without one, at that of the sound."""
    voice = end()
    return Negotiation("192.0.2.1", {"audio": voice, "video": place or voice}, pictures=Pictures(), **more)


def pictured(*more: str, bundled: bool = True, setup: str = "actpass", port: int = 4002) -> bytes:
    """Their offer or answer with sound and pictures."""
    session = ("a=group:BUNDLE audio video",) if bundled else ()
    video = (f"m=video {port} UDP/TLS/RTP/SAVPF 102", "a=rtpmap:102 H264/90000",
             "a=fmtp:102 profile-level-id=42e01f;packetization-mode=1", "a=mid:video", f"a=setup:{setup}",
             f"a=fingerprint:sha-256 {PRINT}", "a=rtcp-mux", *more, "")
    return theirs(*ICE, "a=mid:audio", setup=setup, session=session) + "\r\n".join(video).encode()


def test_an_offer_has_a_place_for_each_line_and_leaves_it_to_the_other_side_to_bundle() -> None:
    negotiation = seen(end(2))
    offer = Description.parse(negotiation.offer())
    assert offer.attributes == [("group", "BUNDLE audio video")]
    assert len({one.attribute("fingerprint") for one in offer.media}) == 2
    found = negotiation.take_answer(pictured(*ICE, setup="active"))
    assert found["video"].place == found["audio"].place == end()
    assert found["video"].end == found["audio"].end
    again = Description.parse(negotiation.offer())
    assert again.attributes == [("group", "BUNDLE audio video")]
    assert len({one.attribute("fingerprint") for one in again.media}) == 1, "from then on it is one place"


def test_without_a_bundle_each_line_has_its_own() -> None:
    negotiation = seen(end(2))
    negotiation.offer()
    found = negotiation.take_answer(pictured(*ICE, setup="active", bundled=False))
    assert (found["audio"].place, found["video"].place) == (end(), end(2))
    answer, found = seen(end(2)).answer(pictured(*ICE, bundled=False))
    assert Description.parse(answer).attributes == []
    assert (found["audio"].place, found["video"].place) == (end(), end(2))


@pytest.mark.parametrize("own", [None, end(2)])
def test_a_bundle_of_theirs_is_answered_as_one(own: OurEnd | None) -> None:
    answer, found = seen(own).answer(pictured(*ICE))
    description = Description.parse(answer)
    assert description.attributes == [("group", "BUNDLE audio video")]
    assert {(one.port, one.attribute("ice-ufrag"), one.attribute("setup")) for one in description.media} == {
        (30_000, "ours", "active")}
    assert found["video"].place == found["audio"].place
    assert found["video"].end == found["audio"].end


def test_pictures_that_are_added_to_a_bundle_keep_who_began() -> None:
    """Alone they would take it for a first offer, and begin themselves."""
    negotiation = seen(asked=False)
    negotiation.answer(theirs(*ICE, "a=mid:audio", setup="active", session=("a=group:BUNDLE audio",)))
    answer, found = negotiation.answer(pictured(*ICE, port=9))
    assert [one.attribute("setup") for one in Description.parse(answer).media] == ["passive", "passive"]
    assert found["video"].end == found["audio"].end


def test_pictures_on_a_path_of_their_own_are_refused_where_there_is_none() -> None:
    negotiation = seen(asked=False)
    answer, found = negotiation.answer(pictured(*ICE, bundled=False))
    assert [one.port for one in Description.parse(answer).media] == [30_000, 0]
    assert set(found) == {"audio"}
    negotiation = seen()
    negotiation.offer()
    assert set(negotiation.take_answer(pictured(*ICE, setup="active", bundled=False))) == {"audio"}


@pytest.mark.parametrize(("sdp", "bundles"), [
    (pictured(), True), (pictured(bundled=False), False), (theirs("a=mid:0"), False),
    (theirs("a=mid:0", session=("a=group:BUNDLE 0",)), True)])
def test_whether_an_offer_bundles_all(sdp: bytes, bundles: bool) -> None:
    assert Outline.of(sdp).bundled is bundles
