"""SIP messages as the world sends them: taken where they can be understood, refused by one exception where not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.providers.sip.grammar import Malformed, params_of, params_text, quoted, split, unquoted
from appliance.providers.sip.message import MAX_MESSAGE, PING, PONG, Framer, Headers, Request, Response, Via, parse
from appliance.providers.sip.uri import NameAddr, Uri
from tests.support.sip_fuzz import only_malformed
from tests.support.sip_messages import BROKEN, INVITE, STRANGE


def test_a_message_is_what_it_was_after_parsing_and_printing() -> None:
    message = parse(INVITE)
    assert isinstance(message, Request)
    assert (message.method, message.target) == ("INVITE", "sip:door@198.51.100.7")
    assert message.via.branch == "z9hG4bKa1"
    assert message.sender.display == 'Olga "O" Ö'
    assert message.sender.tag == "77a"
    assert message.cseq.number == 4711
    assert [one.uri.host for one in message.addresses("record-route")] == ["p2.example.org", "p1.example.org"]
    assert message.headers.get("x-unknown") == "kept; as=is"
    assert message.body == b"v=0\r\n"
    again = parse(message.serialise())
    assert list(again.headers) == list(message.headers)
    assert again.serialise() == message.serialise()


@pytest.mark.parametrize(("name", "data", "expected"), STRANGE, ids=[one[0] for one in STRANGE])
def test_what_is_strange_but_right_is_taken(name: str, data: bytes, expected: dict[str, str]) -> None:
    message = parse(data)
    said = {
        "via": str(message.via.host), "from": message.sender.uri.user, "to": str(message.to.uri),
        "tag": message.to.tag, "call-id": message.call_id, "method": message.cseq.method,
        "contact": str(message.headers.values("contact")), "body": message.body.decode(),
        "status": str(message.status) if isinstance(message, Response) else "",
        "branch": message.via.branch, "display": message.sender.display, "port": str(message.via.port),
        "received": message.via.params.get("received", ""), "target": getattr(message, "target", ""),
    }
    assert {key: said[key] for key in expected} == expected
    parse(message.serialise())


@pytest.mark.parametrize(("name", "data"), BROKEN, ids=[one[0] for one in BROKEN])
def test_what_cannot_be_understood_is_one_exception(name: str, data: bytes) -> None:
    with pytest.raises(Malformed):
        parse(data)


def test_limits() -> None:
    with pytest.raises(Malformed, match="larger"):
        parse(INVITE + bytes(MAX_MESSAGE))
    many = INVITE.replace(b"X-Unknown", b"".join(b"X-%d: 1\r\n" % n for n in range(300)) + b"X-Unknown")
    with pytest.raises(Malformed, match="header fields"):
        parse(many)
    hops = b"".join(b"Via: SIP/2.0/UDP h%d.example.org;branch=z9hG4bK%d\r\n" % (n, n) for n in range(80))
    with pytest.raises(Malformed, match="hops"):
        parse(INVITE.replace(b"Max-Forwards", hops + b"Max-Forwards"))
    with pytest.raises(Malformed, match="header of a message"):
        parse(INVITE.replace(b"kept;", b"k" * 40_000))


def test_nobody_writes_a_header_field_of_two_lines() -> None:
    with pytest.raises(ValueError, match="one line"):
        Headers().add("Subject", "Hello\r\nVia: SIP/2.0/UDP mallory")
    shown = NameAddr(Uri.parse("sip:a@b.example"), 'Evil"\r\nVia: x')
    assert "\r" not in str(shown)
    assert NameAddr.parse(str(shown)).display == 'Evil"Via: x'


def test_header_fields_are_found_by_any_of_their_names() -> None:
    headers = Headers([("v", "a, b"), ("VIA", "c"), ("k", "100rel, Timer"), ("Subject", "x")])
    assert headers.values("Via") == ["a", "b", "c"]
    assert headers.tokens("supported") == {"100rel", "timer"}
    headers.drop_first("via")
    assert headers.values("via") == ["b", "c"]
    assert next(iter(headers)) == ("via", "b")
    headers.set("subject", "y")
    assert headers.all("s") == ["y"] or headers.all("subject") == ["y"]


@pytest.mark.parametrize(("text", "user", "host", "port", "params"), [
    ("sip:alice@example.org", "alice", "example.org", None, {}),
    ("SIPS:alice:pass@Example.ORG:5061;transport=TCP;lr", "alice:pass", "Example.ORG", 5061,
     {"transport": "TCP", "lr": ""}),
    ("sip:+49-30;phone-context=de@[2001:db8::10]:5070?subject=a%20b", "+49-30;phone-context=de", "[2001:db8::10]", 5070,
     {}),
    ("sip:192.0.2.1", "", "192.0.2.1", None, {}),
    ("sip:%61lice%40home@h.example;user=phone", "%61lice%40home", "h.example", None, {"user": "phone"}),
])
def test_sip_addresses(text: str, user: str, host: str, port: int | None, params: dict[str, str]) -> None:
    uri = Uri.parse(text)
    assert (uri.user, uri.host, uri.port, dict(uri.params)) == (user, host, port, params)
    assert Uri.parse(str(uri)) == uri


@pytest.mark.parametrize(("text", "identity"), [
    ("sip:%61lice@example.org", "alice"), ("tel:+49-30-1234;ext=5", "+49301234"), ("sip:192.0.2.1", "192.0.2.1"),
    ("urn:service:sos", "service:sos"), ("sip:bob;day=tue:secret@example.org", "bob")])
def test_who_an_address_stands_for(text: str, identity: str) -> None:
    assert Uri.parse(text).identity == identity


@pytest.mark.parametrize("text", [
    "", "sip:", "alice@example.org", "sip:a b@example.org", "sip:a@exa mple.org", "sip:a@b:99999", "sip:a@b:0",
    "sip:a@<b>", "sip:a@[::1", "tel: 123", "sip:a@@b", "1x:y"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(Malformed):
        Uri.parse(text)


@pytest.mark.parametrize(("text", "display", "uri", "tag"), [
    ('"J \\"Q\\" \\\\" <sip:j@x.example>;tag=1', 'J "Q" \\', "sip:j@x.example", "1"),
    ("sip:j@x.example;tag=2", "", "sip:j@x.example", "2"),
    ("Bell Labs <sip:j@x.example;lr>  ;  tag = 3", "Bell Labs", "sip:j@x.example;lr", "3"),
    ('"a, <b>; c" <sip:j@x.example>', "a, <b>; c", "sip:j@x.example", ""),
    ("<tel:+49301>;tag=4", "", "tel:+49301", "4")])
def test_addresses_with_names(text: str, display: str, uri: str, tag: str) -> None:
    one = NameAddr.parse(text)
    assert (one.display, str(one.uri), one.tag) == (display, uri, tag)
    assert NameAddr.parse(str(one)) == one


@pytest.mark.parametrize("text", ["<sip:a@b", "<sip:a@b> x;tag=1", '"a <sip:a@b>', "<>", "a <b>"])
def test_addresses_with_names_that_are_none(text: str) -> None:
    with pytest.raises(Malformed):
        NameAddr.parse(text)


def test_lists_and_parameters() -> None:
    assert split('a, "b, c" , <sip:x,y>;z') == ["a", '"b, c"', "<sip:x,y>;z"]
    assert params_of(';A=1;b="x;y\\"";C') == {"a": "1", "b": 'x;y"', "c": ""}
    assert params_of(params_text({"a": "1", "b": 'x;y"', "c": ""})) == {"a": "1", "b": 'x;y"', "c": ""}
    assert unquoted(quoted('a"\\b')) == 'a"\\b'
    with pytest.raises(Malformed):
        split('"open, b')
    with pytest.raises(Malformed):
        params_of(";=x")


def test_a_via_of_odd_spacing() -> None:
    via = Via.parse("SIP  / 2.0\t/ UDP   192.0.2.2 : 5070 ; branch = z9hG4bKx;rport")
    assert (via.transport, via.host, via.port, via.branch, "rport" in via.params) == (
        "UDP", "192.0.2.2", 5070, "z9hG4bKx", True)


# --- streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_a_stream_is_cut_into_messages_wherever_it_is_torn(step: int) -> None:
    stream = INVITE + PING + b"\r\n" + INVITE.replace(b"4711", b"4712") + PING
    framer, found = Framer(), []
    for at in range(0, len(stream), step):
        found += framer.feed(stream[at : at + step])
    messages = [parse(one) for one in found if one not in (PING, PONG)]
    assert [one.cseq.number for one in messages] == [4711, 4712]
    assert found.count(PING) == 2
    assert found.count(PONG) >= 1


def test_an_answer_to_a_keep_alive_is_told_at_once_and_once() -> None:
    framer = Framer()
    assert framer.feed(PONG) == [PONG]
    assert framer.feed(INVITE) == [INVITE]
    assert framer.feed(b"\r") == []
    assert framer.feed(b"\n") == [PONG]
    assert framer.feed(PONG) == [PING], "it was half of one"
    assert framer.feed(PONG + INVITE) == [PONG, INVITE]


@pytest.mark.parametrize(("data", "why"), [
    (INVITE.replace(b"Content-Length: 5", b"X: 5"), "Content-Length"),
    (INVITE.replace(b"Content-Length: 5", b"Content-Length: 99999"), "larger"),
    (b"INVITE " + b"x" * 50_000, "header"),
])
def test_a_stream_that_cannot_be_cut_is_over(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        Framer().feed(data)


def test_keep_alives_without_end_are_no_matter() -> None:
    framer = Framer()
    assert framer.feed(b"\r\n" * 50_000).count(PING) == 25_000
    assert framer.feed(b"\n" * 10_000) == []


# --- anything at all ------------------------------------------------------------------------------------------------


@given(st.binary(max_size=600))
def test_any_bytes_are_a_message_or_malformed(data: bytes) -> None:
    only_malformed(data)


@given(st.lists(st.tuples(st.sampled_from(["Via", "From", "t", "CSeq", "Contact", "Call-ID", "l", "X"]),
                          st.text(max_size=60)), max_size=12))
def test_any_header_fields_are_a_message_or_malformed(rows: list[tuple[str, str]]) -> None:
    lines = [f"{name}: {value}" for name, value in rows]
    only_malformed("\r\n".join(["OPTIONS sip:a@b SIP/2.0", *lines, "", ""]).encode("utf-8", "replace"))
