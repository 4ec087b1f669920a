"""The boundary for session descriptions: rejected lines, limits, and garbage that only ever raises our errors."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.errors import EdgecallError, Refused, SignalingError
from appliance.media import sdp
from appliance.media.api import Directions, IceServers
from appliance.media.downlink import Loudspeaker
from appliance.media.dscp import Marks
from appliance.media.screen import Screen
from appliance.media.servers import ServerPool
from appliance.media.sound import Loudness
from appliance.media.webrtc import WebRtcSession

AUDIO = (
    "m=audio 9 UDP/TLS/RTP/SAVPF 111 3\r\nc=IN IP4 0.0.0.0\r\na=mid:a\r\n"
    "a=rtpmap:111 opus/48000/2\r\na=rtpmap:3 GSM/8000"
)
VIDEO = (
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97 102 103 104\r\na=mid:v\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\n"
    "a=fmtp:97 apt=96\r\na=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1;profile-level-id=42e01f\r\n"
    "a=rtcp-fb:102 nack pli\r\na=rtpmap:103 rtx/90000\r\na=fmtp:103 apt=102\r\na=rtpmap:104 H264/90000\r\n"
    "a=fmtp:104 packetization-mode=0;profile-level-id=42e01f"
)
DATA = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d"
TRANSPORT = "\r\na=ice-ufrag:abcd\r\na=ice-pwd:" + "p" * 22 + "\r\na=fingerprint:sha-256 AA\r\na=setup:active"
HEAD = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE a v d"


def text(*sections: str) -> str:
    return "\r\n".join([HEAD, *sections, ""])


def test_an_offer_keeps_what_we_speak() -> None:
    admitted, kinds, rejected = sdp.admit_offer(text(AUDIO, VIDEO, DATA))
    assert kinds == ["audio", "video", "application"]
    assert not rejected.places
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n" in admitted
    assert "m=video 9 UDP/TLS/RTP/SAVPF 102 103\r\n" in admitted
    assert "VP8" not in admitted
    assert "a=rtcp-fb:102 nack pli" in admitted


@pytest.mark.parametrize("name", ["fingerprint", "ice-ufrag", "ice-pwd"])
def test_a_description_without_what_encryption_needs_is_told_so(name: str) -> None:
    whole = text(AUDIO + TRANSPORT)
    sdp.require_dtls(whole)
    with pytest.raises(SignalingError, match=f"no a={name}: media goes over ICE and DTLS-SRTP alone"):
        sdp.require_dtls(whole.replace(f"a={name}:", "a=x-gone:"))


FIRST = "\r\na=candidate:1 1 udp 5 192.0.2.1 1000 typ host\r\na=end-of-candidates"
OTHER = "\r\na=candidate:1 1 udp 5 192.0.2.1 2000 typ host"


@pytest.mark.parametrize("others", ["", OTHER])
def test_every_line_has_the_candidates_of_the_first(others: str) -> None:
    """aiortc takes those of the last line; a browser means those of the first."""
    lines = [AUDIO + TRANSPORT + FIRST, VIDEO + TRANSPORT + others, DATA + TRANSPORT + others]
    for admitted in (sdp.admit_offer(text(*lines))[0], sdp.admit_answer(text(*lines), text(AUDIO, VIDEO, DATA))[0]):
        for section in sdp.SessionText.parse(admitted).sections:
            found = [line for line in section.lines if line.startswith(("a=candidate", "a=end-of"))]
            assert found == FIRST.split("\r\n")[1:]


def test_lines_we_do_not_speak_are_rejected_in_their_place() -> None:
    vp8 = VIDEO.replace("H264", "AV1")
    admitted, kinds, rejected = sdp.admit_offer(text(vp8, AUDIO, DATA, VIDEO.replace("a=mid:v", "a=mid:w"), AUDIO))
    assert kinds == ["audio", "application", "video"]
    assert "a=group:BUNDLE a d w" in admitted
    assert "H.264" in rejected.reasons["video"]
    answer = sdp.finish_answer(text(AUDIO, DATA, VIDEO.replace("a=mid:v", "a=mid:w")), rejected)
    ports = [section.port for section in sdp.SessionText.parse(answer).sections]
    assert ports == [0, 9, 9, 9, 0]
    assert "m=video 0 UDP/TLS/RTP/SAVPF 96 97 102 103 104\r\nc=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:v" in answer
    assert "a=group:BUNDLE a d w" in answer


@pytest.mark.parametrize("line", [
    "m=image 9 udptl t38", "m=x-hologram.2 9 FOO/1.0 a b", "m=application 9 TCP/TLS/BFCP *", "m=text 9 RTP/SAVPF 98 99",
    "m=message 9/2 TCP/TLS/MSRP *",
])
def test_a_line_that_nobody_knows_is_rejected_by_itself(line: str) -> None:
    admitted, kinds, rejected = sdp.admit_offer(text(AUDIO, line + "\r\na=mid:x", DATA))
    assert kinds == ["audio", "application"]
    assert line not in admitted
    answer = sdp.SessionText.parse(sdp.finish_answer(text(AUDIO, DATA), rejected)).sections
    assert [section.port for section in answer] == [9, 0, 9]
    assert (answer[1].proto, answer[1].mid) == (line.split(" ")[2], "x")


def test_a_line_of_ours_that_the_peer_does_not_know_leaves_the_others() -> None:
    """Whatever it answers in its place; only the kind must be the one we offered (RFC 3264 6)."""
    for refusal in ("m=video 0 UDP/TLS/RTP/SAVPF 0", "m=video 0 RTP/AVP 31", VIDEO.replace("H264", "FOO") + TRANSPORT):
        admitted, reasons = sdp.admit_answer(
            text(AUDIO + TRANSPORT, refusal, DATA + TRANSPORT), text(AUDIO, VIDEO, DATA))
        assert set(reasons) == {"video"}
        sections = sdp.SessionText.parse(admitted).sections
        assert "a=inactive" in sections[1].lines
        assert "a=inactive" not in sections[0].lines + sections[2].lines


def test_only_h264_gets_the_start_hint() -> None:
    hinted = sdp.start_boldly(text(AUDIO, VIDEO))
    assert hinted.count("x-google-start-bitrate=1200") == 2
    assert "a=fmtp:102 packetization-mode=1;profile-level-id=42e01f;x-google-start-bitrate=1200\r\n" in hinted
    assert "a=fmtp:97 apt=96\r\n" in hinted


def test_no_codec_in_common_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        sdp.admit_offer(text(AUDIO.replace("opus", "speex"), DATA))
    assert refused.value.key == "488/noCodec"


def test_a_rejected_line_of_an_answer_becomes_an_inactive_one() -> None:
    offer = text(AUDIO, VIDEO, DATA)
    answer = text(AUDIO + TRANSPORT, "m=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:v", DATA + TRANSPORT)
    admitted, reasons = sdp.admit_answer(answer, offer)
    video = sdp.SessionText.parse(admitted).sections[1]
    assert video.port
    assert "a=inactive" in video.lines
    assert video.attribute("ice-ufrag") == "abcd"
    assert reasons == {"video": "the peer rejected it"}


def test_an_answer_must_have_our_lines() -> None:
    with pytest.raises(SignalingError):
        sdp.admit_answer(text(AUDIO + TRANSPORT), text(AUDIO, DATA))


@pytest.mark.parametrize("bad", ["", "v=0", "m=audio", "x" * (sdp.MAX_SDP + 1), text(*[DATA] * 17),
                                 text(AUDIO, DATA.replace("a=mid:d", "a=mid:a")), text(AUDIO + "\r\na=mid:b", DATA),
                                 f"m={'a' * 33} 9 RTP/AVP 0", "m=audio 9 RTP/\u202eAVP 0"])
def test_what_is_no_description_is_told_so(bad: str) -> None:
    with pytest.raises(SignalingError):
        sdp.admit_offer(bad)


LINES = text(AUDIO + TRANSPORT, VIDEO + TRANSPORT, DATA + TRANSPORT + "\r\na=sctp-port:5000").split("\r\n")


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The offer with lines dropped, doubled, swapped and cut, and numbers replaced."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
            case 3:
                lines[at] = lines[at] + draw(st.text(max_size=20))
            case _:
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
        if not lines:
            break
    return "\r\n".join(lines)


def session() -> WebRtcSession:
    return WebRtcSession(
        "fuzz", wanted=Directions(), servers=ServerPool(IceServers()), marks=Marks(), loopback=True, microphone=None,
        camera=None, loudspeaker=Loudspeaker(), screen=Screen(None), voice=Loudness(),
    )


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offer=st.one_of(mutated(), st.text(max_size=300)))
async def test_garbage_only_raises_our_errors(offer: str) -> None:
    one = session()
    try:
        with contextlib.suppress(EdgecallError):
            await one.answer(offer)
        with contextlib.suppress(EdgecallError):
            await one.add_candidate(offer[:200], None, 0)
    finally:
        await one.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=st.one_of(mutated(), st.text(max_size=300)))
async def test_garbage_answers_only_raise_our_errors(answer: str) -> None:
    one = session()
    try:
        await one.offer()
        with contextlib.suppress(EdgecallError):
            await one.accept_answer(answer)
    finally:
        await one.close()


def test_format_parameters_are_those_of_the_codec() -> None:
    text = (
        "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:111 Opus/48000/2\r\n"
        "a=fmtp:111 minptime=10;UseInbandFec=1; usedtx=1\r\n"
    )
    assert sdp.format_parameters(text, "opus/48000") == {"minptime": "10", "useinbandfec": "1", "usedtx": "1"}
    assert sdp.format_parameters(text, "g722/8000") == {}


def test_a_telephone_gateway_is_understood_without_maps_of_its_codecs() -> None:
    phone = "m=audio 9 UDP/TLS/RTP/SAVPF 8 13 101\r\na=mid:a\r\na=rtpmap:101 telephone-event/8000"
    taken, kinds, rejected = sdp.admit_offer(text(phone + TRANSPORT))
    assert (kinds, rejected.reasons) == (["audio"], {})
    assert "m=audio 9 UDP/TLS/RTP/SAVPF 8\r\n" in taken
    assert "a=rtpmap:8 PCMA/8000" in taken
    assert "telephone-event" not in taken


def test_a_rooms_offer_keeps_all_its_lines_of_one_kind() -> None:
    lines = [f"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:{n}\r\na=rtpmap:111 opus/48000/2\r\n" for n in range(20)]
    admitted = sdp.SessionText.parse(sdp.admit_room_offer(text(*lines)), 48)
    assert [section.mid for section in admitted.sections] == [str(n) for n in range(20)]


@pytest.mark.parametrize("line", [
    "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=rtpmap:96 VP8/90000\r\n",
    "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n",
    "m=application 9 RTP/SAVPF 96\r\na=mid:0\r\n",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n" * 2,
])
def test_a_rooms_line_that_nobody_asked_for_is_refused(line: str) -> None:
    with pytest.raises(SignalingError):
        sdp.admit_room_offer(text(line))


def test_an_offer_of_data_alone_is_taken_and_any_other_is_not() -> None:
    data = ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\n"
            "a=candidate:1 1 udp 1 239.0.0.1 9 typ host\r\n")
    [section] = sdp.SessionText.parse(sdp.admit_data_offer(text(data))).sections
    assert (section.kind, section.lines) == ("application", ["a=mid:0"])
    for bad in (data * 2, data.replace("SCTP", "RTP"), data.replace("a=mid:0", "a=x"),
                "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=rtpmap:111 opus/48000/2\r\n"):
        with pytest.raises(SignalingError):
            sdp.admit_data_offer(text(bad))
