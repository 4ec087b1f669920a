"""SIP messages for tests of the parser, of the kinds that RFC 4475 and RFC 5118 tell of, in words of our own."""

from __future__ import annotations

__all__ = ["BROKEN", "INVITE", "STRANGE"]


def _lines(*lines: str, body: str = "") -> bytes:
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("utf-8", "surrogateescape")


INVITE = _lines(
    "INVITE sip:door@198.51.100.7 SIP/2.0",
    "Via: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bKa1;rport",
    "Max-Forwards: 70",
    'From: "Olga \\"O\\" Ö" <sip:olga@example.org>;tag=77a',
    "To: <sip:door@example.org>",
    "Call-ID: 8f2c@192.0.2.10",
    "CSeq: 4711 INVITE",
    "Record-Route: <sip:p2.example.org;lr>",
    "Record-Route: <sip:p1.example.org;lr>",
    "Contact: <sip:olga@192.0.2.10>",
    "X-Unknown: kept; as=is",
    "Content-Type: application/sdp",
    "Content-Length: 5",
    body="v=0\r\n")

_REST = ("From: <sip:a@example.org>;tag=1", "To: <sip:b@example.org>", "Call-ID: c1", "CSeq: 1 OPTIONS")
_VIA = "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1"


def _options(*more: str, via: str = _VIA, first: str = "OPTIONS sip:b@example.org SIP/2.0") -> bytes:
    return _lines(first, via, *_REST, *more)


STRANGE: list[tuple[str, bytes, dict[str, str]]] = [
    ("compact forms, odd case and spacing", _lines(
        "INVITE sip:vip@example.org;unknown=x SIP/2.0", "TO :", "  sip:vip@example.org ;   tag    = 19b ",
        'f: "J Ros \\\\\\"" <sip:jros@example.org>', "  ;tag = 98", "MaX-fOrWaRdS: 0068", "i: weird.1@192.0.2.1",
        "cseq: 0009", " INVITE", "v:  SIP  / 2.0", " /UDP 192.0.2.2;branch=z9hG4bK39", "s:", "NewField: ü, \"x",
        "  folded", 'm:"Quoted ""string" <sip:j@192.0.2.2>;x=";;,,y=";z', "l: 3", body="abc"),
     {"from": "jros", "tag": "19b", "display": 'J Ros \\"', "body": "abc", "method": "INVITE", "branch": "z9hG4bK39"}),
    ("every character a token may have", _lines(
        "!interesting-Method0123456789_*+`.%indeed'~ sip:1_u.n%40~(&=+$,;?/:@example.org SIP/2.0", _VIA, *_REST[:3],
        "CSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~"),
     {"method": "!interesting-Method0123456789_*+`.%indeed'~"}),
    ("lines that end in a line feed alone", _options("l: 2").replace(b"\r\n", b"\n") + b"hi", {"body": "hi"}),
    ("no reason phrase", _lines("SIP/2.0 100 ", _VIA, *_REST), {"status": "100"}),
    ("no reason phrase and no blank", _lines("SIP/2.0 486", _VIA, *_REST), {"status": "486"}),
    ("a reason phrase in another script", _lines("SIP/2.0 200 = 2**3 * 5**2 но", _VIA, *_REST), {"status": "200"}),
    ("several Via in one line", _options(via="Via: SIP/2.0/UDP 192.0.2.5;branch=z9hG4bK5, SIP/2.0/TCP p.example.org"),
     {"via": "192.0.2.5"}),
    ("a body longer than its length", _options("Content-Length: 2") + b"hithere", {"body": "hi"}),
    ("no length at all", _options() + b"everything", {"body": "everything"}),
    ("escaped characters in addresses", _options(first="OPTIONS sip:%75se%72%00@example.org SIP/2.0"),
     {"target": "sip:%75se%72%00@example.org"}),
    ("bytes that are no UTF-8", _options("Subject: \udcff\udcfe"), {"call-id": "c1"}),
    ("an empty line before the message", b"\r\n\r\n" + _options(), {"call-id": "c1"}),
    ("a contact of everything", _options("Contact: *"), {"contact": "['*']"}),
    ("two contacts, one without brackets", _options('m: sip:a@b.example;q=0.5, "x, y" <sip:c@d.example>'),
     {"contact": "['sip:a@b.example;q=0.5', '\"x, y\" <sip:c@d.example>']"}),
    ("an unknown scheme", _options(first="OPTIONS nobodyKnows:that SIP/2.0"), {"target": "nobodyKnows:that"}),
    ("a URN", _options(first="OPTIONS urn:service:sos SIP/2.0"), {"target": "urn:service:sos"}),
    ("IPv6 in Via and Contact", _options(
        "m: <sip:a@[2001:db8::9:1]>", via="Via: SIP/2.0/UDP [2001:db8::9:1]:5070;branch=z9hG4bK6"),
     {"via": "[2001:db8::9:1]", "port": "5070"}),
    ("IPv6 in received without brackets", _options(
        via="Via: SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bK6"),
     {"received": "2001:db8::9:255"}),
    ("IPv6 in received with brackets", _options(
        via="Via: SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bK6"),
     {"received": "[2001:db8::9:255]"}),
    ("IPv4 written as IPv6", _options(first="OPTIONS sip:b@[::ffff:192.0.2.2] SIP/2.0"),
     {"target": "sip:b@[::ffff:192.0.2.2]"}),
    ("a colon before the port of an IPv6 address", _options(first="OPTIONS sip:[2001:db8::10:5070] SIP/2.0"),
     {"target": "sip:[2001:db8::10:5070]"}),
    ("a branch of before RFC 3261", _options(via="Via: SIP/2.0/UDP 192.0.2.1"), {"branch": ""}),
    ("digest challenges with commas", _options(
        'WWW-Authenticate: Digest realm="a, b", qop="auth,auth-int", nonce="x"'), {"call-id": "c1"}),
    ("an unclosed quote where nobody looks", _options('X-Thing: "open'), {"call-id": "c1"}),
    ("a huge but bearable parameter", _options(via=_VIA + ";x=" + "a" * 3000), {"branch": "z9hG4bK1"}),
]

BROKEN: list[tuple[str, bytes]] = [
    ("nothing", b""),
    ("a keep-alive", b"\r\n\r\n"),
    ("no SIP at all", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    ("another version", _options(first="OPTIONS sip:b@example.org SIP/7.0")),
    ("another version in a response", _options(first="SIP/7.0 200 OK")),
    ("a status that is none", _options(first="SIP/2.0 4294967301 better not")),
    ("a status below 100", _options(first="SIP/2.0 099 hm")),
    ("blanks within the Request-URI", _options(first="OPTIONS sip:b@example.org; lr SIP/2.0")),
    ("two blanks in the request line", _options(first="OPTIONS  sip:b@example.org SIP/2.0")),
    ("a blank behind the request line", _options(first="OPTIONS sip:b@example.org SIP/2.0 ")),
    ("no Via", _lines("OPTIONS sip:b@example.org SIP/2.0", *_REST)),
    ("a Via that is none", _options(via="Via: SIP/2.0 192.0.2.1")),
    ("a Via of another protocol version", _options(via="Via: SIP/3.0/UDP 192.0.2.1;branch=z9hG4bK1")),
    ("a Via with an impossible port", _options(via="Via: SIP/2.0/UDP 192.0.2.1:70000;branch=z9hG4bK1")),
    ("no From", _options().replace(b"From:", b"X-From:")),
    ("no To", _options().replace(b"To:", b"X-To:")),
    ("no Call-ID", _options().replace(b"Call-ID: c1", b"Call-ID:")),
    ("no CSeq", _options().replace(b"CSeq:", b"X-CSeq:")),
    ("CSeq of another method", _options().replace(b"1 OPTIONS", b"1 INVITE")),
    ("CSeq too large", _options().replace(b"1 OPTIONS", b"36893488147419103232 OPTIONS")),
    ("CSeq negative", _options().replace(b"1 OPTIONS", b"-1 OPTIONS")),
    ("Max-Forwards too many", _options("Max-Forwards: 99999999999999999999")),
    ("From twice", _options("From: <sip:x@y.example>;tag=2")),
    ("To in both forms", _options("t: <sip:x@y.example>")),
    ("Content-Length twice", _options("Content-Length: 0", "l: 0")),
    ("a negative length", _options("Content-Length: -999")),
    ("a length longer than the body", _options("Content-Length: 9999") + b"short"),
    ("a length that is no number", _options("Content-Length: many")),
    ("a quote that is not closed in To", _options().replace(b"To: <sip:b", b'To: "b <sip:b')),
    ("a bracket that is not closed", _options().replace(b"<sip:a@example.org>;tag=1", b"<sip:a@example.org;tag=1")),
    ("an address without scheme", _options().replace(b"<sip:a@example.org>", b"<a@example.org>")),
    ("a header field without a colon", _options("Nonsense")),
    ("a header field with a blank in its name", _options("Two words: x")),
    ("a first header field that is folded", _lines("OPTIONS sip:b@example.org SIP/2.0", "  folded", _VIA, *_REST)),
    ("a lone carriage return", _options("Subject: a\rb")),
    ("an IPv6 address without brackets", _options(via="Via: SIP/2.0/UDP 2001:db8::9:1;branch=z9hG4bK1")),
    ("a name before the first line", b"hello\r\n" + _options()),
]
