"""Messages that try a SIP parser and what stands behind it: one of our own for each that RFC 4475 and RFC 5118 tell of,
under its name there. With each, what comes of it at an agent that is no registrar:

* a status: it is answered so;
* ``RINGS``: it becomes a call;
* ``TAKEN``: it is understood, and nothing is to be said;
* ``REFUSED``: it is none; it is counted, and left without a word.

Where both standards let a receiver be generous (empty parameters, blanks in brackets, names without quotes) it is.
"""

from __future__ import annotations

from typing import Final

__all__ = ["REFUSED", "RFC_4475", "RFC_5118", "RINGS", "TAKEN", "Outcome"]

RINGS: Final = "rings"
TAKEN: Final = "taken"
REFUSED: Final = "refused"

Outcome = int | str

SDP: Final = "\r\n".join(["v=0", "o=- 1 1 IN IP4 192.0.2.77", "s=-", "c=IN IP4 192.0.2.77", "t=0 0",
                          "m=audio 4000 RTP/AVP 0", ""])
SDP_6: Final = SDP.replace("IP4 192.0.2.77", "IP6 2001:db8::77")


def _request(
    method: str, *more: str, uri: str = "sip:bob@example.org", first: str = "", via: str | None = None,
    sender: str = "From: <sip:torturer@example.com>;tag=t1", to: str = "To: <sip:bob@example.org>",
    call: str | None = "Call-ID: torture@192.0.2.77", cseq: str = "", body: str = "", length: bool = True,
    newline: str = "\r\n",
) -> bytes:
    """Complete but for what is changed of it. An empty text leaves its header field out."""
    lines = [first or f"{method} {uri} SIP/2.0",
             "Via: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bKtorture" if via is None else via,
             "Max-Forwards: 70", sender, to, call or "", cseq or f"CSeq: 17 {method}", *more]
    if method == "INVITE" and not any(line.lower().startswith(("contact", "m:")) for line in more):
        lines.append("Contact: <sip:torturer@192.0.2.77>")
    if body and not any(line.lower().startswith("content-type") for line in more):
        lines.append("Content-Type: application/sdp")
    if length:
        lines.append(f"Content-Length: {len(body.encode('utf-8', 'surrogateescape'))}")
    return (newline.join(line for line in lines if line) + newline * 2 + body).encode("utf-8", "surrogateescape")


def _response(first: str, *more: str, cseq: str = "CSeq: 17 INVITE", via: str = "") -> bytes:
    lines = [first, via or "Via: SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKnobodys", "From: <sip:bob@example.org>;tag=1",
             "To: <sip:torturer@example.com>;tag=2", "Call-ID: torture@192.0.2.2", cseq, *more, "Content-Length: 0"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


_VALID: list[tuple[str, bytes, Outcome]] = [
    ("wsinv", _request(
        "INVITE", "s :", "Contact\t:\"Two \"\t\t", " words <sip:torturer@192.0.2.77>;q = .5;odd=\" ; , \\\"\"",
        "X-New: \t  folded", "   over lines,\t\"", uri="sip:bob@example.org;unknownparam",
        sender="f  :  \"Tor \\\\\\\"\"   <sip:torturer@example.com>", to="TO :", call="i:  spaces@192.0.2.77",
        cseq="CseQ:\t0000000017\r\n  INVITE",
        via="v:  SIP  / 2.0\r\n /UDP\r\n    192.0.2.77;branch=z9hG4bKws\r\nt:\r\n sip:bob@example.org ;  tag2  = 5",
        body=SDP).replace(b"TO :\r\n", b""), RINGS),
    ("intmeth", _request("~Odd!%*_`'+.9", uri="sip:1_b.o%42!*'(~&=+$,/;x?:@example.org"), 405),
    ("esc01", _request("INVITE", uri="sip:b%6Fb@example.org", to="To: <sip:%62ob@example.org;lr%3d=1>",
                       sender="From: <sip:I%20have%20blanks@example.com>;tag=%41", body=SDP), RINGS),
    ("escnull", _request("REGISTER", "Contact: <sip:%00@192.0.2.77>", "Contact: <sip:%00%00@192.0.2.77>"), 405),
    ("esc02", _request("O%50TIONS", "Contact: <sip:alias%@192.0.2.77>"), 405),
    ("lwsdisp", _request("OPTIONS", sender="From: torturer<sip:torturer@example.com>;tag=1"), 200),
    ("longreq", _request(
        "INVITE", f"Contact: \"{'long ' * 60}\"<sip:{'l' * 200}@192.0.2.77;{'p' * 150}=1>",
        f"X-{'Longer' * 30}: {'v' * 1200}",
        *(f"Via: SIP/2.0/TCP hop{n}.example.com;branch=z9hG4bK{n}" for n in range(34)),
        sender=f"From: \"{'I am long ' * 30}\"<sip:{'torturer' * 20}@example.com>;tag={'12' * 100}",
        to=f"To: \"{'You too ' * 30}\"<sip:bob@example.org>", call=f"Call-ID: {'c' * 300}", body=SDP), RINGS),
    ("dblreq", _request("OPTIONS") + _request("INVITE", call="Call-ID: second", body=SDP), 200),
    ("semiuri", _request("OPTIONS", uri="sip:bob;par=u%40example.com@example.org"), 200),
    ("transports", _request("OPTIONS", via="\r\n".join(
        f"Via: SIP/2.0/{name} t{n}.example.com;branch=z9hG4bK{n}" for n, name in enumerate(
            ("UDP", "SCTP", "TLS", "NoSuchThing", "TCP")))), 200),
    ("mpart01", _request(
        "MESSAGE", "Content-Type: multipart/mixed;boundary=cut", body="--cut\r\nContent-Type: text/plain\r\n\r\nHi\r\n"
        "--cut\r\nContent-Type: application/octet-stream\r\n\r\n\x00\udcff\udc80\r\n--cut--\r\n"), 405),
    ("unreason", _response("SIP/2.0 200 = 2**3 * 5**2 \u0431\u043e\u0431 %41 \"("), TAKEN),
    ("noreason", _response("SIP/2.0 100 "), TAKEN),
]

_INVALID: list[tuple[str, bytes, Outcome]] = [
    ("badinv01", _request("INVITE", "Contact: \"Joe\" <sip:joe@192.0.2.77>;;;;",
                          via="Via: SIP/2.0/UDP 192.0.2.77;;,;,,", body=SDP), RINGS),
    ("clerr", _request("INVITE", "Content-Length: 9999", length=False, body=SDP), REFUSED),
    ("ncl", _request("INVITE", "Content-Length: -999", length=False, body=SDP), REFUSED),
    ("scalar02", _request("REGISTER", "Expires: 1" + "0" * 60, "Contact: <sip:bob@192.0.2.77>;expires=2" + "8" * 30,
                          cseq="CSeq: 36893488147419103232 REGISTER"), REFUSED),
    ("scalarlg", _response("SIP/2.0 503 Busy", "Retry-After: 9" + "4" * 40, "Warning: 1812 x \"y\"",
                           cseq="CSeq: 9292394834772304023312 OPTIONS"), REFUSED),
    ("quotbal", _request("INVITE", to="To: \"Mr. B. Ob <sip:bob@example.org>", body=SDP), REFUSED),
    ("ltgtruri", _request("INVITE", uri="<sip:bob@example.org>", body=SDP), REFUSED),
    ("lwsruri", _request("INVITE", uri="sip:bob@example.org; lr", body=SDP), REFUSED),
    ("lwsstart", _request("INVITE", first="INVITE  sip:bob@example.org  SIP/2.0", body=SDP), REFUSED),
    ("trws", _request("OPTIONS", first="OPTIONS sip:bob@example.org SIP/2.0  "), REFUSED),
    ("escruri", _request("INVITE", uri="sip:bob@example.org?Route=%3Csip:elsewhere.example.com%3E", body=SDP), RINGS),
    ("baddate", _request("INVITE", "Date: Fri, 01 Jan 2010 16:00:00 EST", body=SDP), RINGS),
    ("regbadct", _request("REGISTER", "Contact: sip:bob@example.org?Route=%3Csip:elsewhere.example.com%3E"), 405),
    ("badaspec", _request("OPTIONS", to="To: \"Watt, J.\" < sip:bob@example.org >"), 200),
    ("baddn", _request("OPTIONS", sender="From: Watt, James <sip:j.watt@example.com>;tag=43"), 200),
    ("badvers", _request("OPTIONS", first="OPTIONS sip:bob@example.org SIP/7.0"), REFUSED),
    ("mismatch01", _request("OPTIONS", cseq="CSeq: 8 INVITE"), REFUSED),
    ("mismatch02", _request("NEWMETHOD", cseq="CSeq: 8 INVITE"), REFUSED),
    ("bigcode", _response("SIP/2.0 4294967301 better not break the receiver"), REFUSED),
]

_LAYERS: list[tuple[str, bytes, Outcome]] = [
    ("badbranch", _request("OPTIONS", via="Via: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bK"), 200),
    ("insuf", _request("INVITE", sender="", to="", call=None, body=SDP), REFUSED),
    ("unkscm", _request("OPTIONS", uri="nobodyKnowsThisScheme:opaque"), 416),
    ("novelsc", _request("OPTIONS", uri="soap.beep://192.0.2.103:3002"), 416),
    ("unksm2", _request("OPTIONS", "Contact: <name:Torturer_Tom>", to="To: isbn:2983792873",
                        sender="From: <http://www.example.com>;tag=3"), 200),
    ("bext01", _request("OPTIONS", "Require: nothingSupportsThis, norThis", "Proxy-Require: nothingHere"), 420),
    ("invut", _request("INVITE", "Content-Type: application/unknownformat", body="<audio><pcmu port='443'/></audio>"),
     415),
    ("regaut01", _request("REGISTER", "Authorization: NoOneKnowsThis opaque=\"data, and\", more"), 405),
    ("multi01", _request("INVITE", "From: <sip:other@example.com>;tag=9", "To: <sip:carol@example.org>",
                         "Call-ID: another@192.0.2.77", "CSeq: 18 INVITE", "Max-Forwards: 5", body=SDP), REFUSED),
    ("mcl01", _request("OPTIONS", "Content-Length: 13"), REFUSED),
    ("bcast", _response("SIP/2.0 200 OK", via="Via: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1\r\n"
                        "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bK2"), TAKEN),
    ("zeromf", _request("OPTIONS").replace(b"Max-Forwards: 70", b"Max-Forwards: 0"), 200),
    ("cparam01", _request("REGISTER", "Contact: sip:+19725552222@192.0.2.77;unknownparam"), 405),
    ("cparam02", _request("REGISTER", "Contact: <sip:+19725552222@192.0.2.77;unknownparam>"), 405),
    ("regescrt", _request("REGISTER", "Contact: <sip:bob@example.org?Route=%3Csip:elsewhere.example.com%3E>"), 405),
    ("sdp01", _request("INVITE", "Accept: text/nobodyKnowsThis", body=SDP), RINGS),
    ("inv2543", _request("INVITE", via="Via: SIP/2.0/UDP 192.0.2.77", sender="From: <sip:torturer@example.com>",
                         length=False, body=SDP), RINGS),
]

RFC_4475: Final = [*_VALID, *_INVALID, *_LAYERS]
"""In its order: syntax that is right, that is wrong, and what the layers above have to bear."""

RFC_5118: Final[list[tuple[str, bytes, Outcome]]] = [
    ("4.1 a reference in the Request-URI", _request(
        "OPTIONS", "Contact: <sip:torturer@[2001:db8::1]>", uri="sip:[2001:db8::10]",
        via="Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bK1"), 200),
    ("4.2 an address that is no reference", _request(
        "OPTIONS", uri="sip:2001:db8::10", via="Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bK2"), REFUSED),
    ("4.3 a port that is part of the address", _request(
        "OPTIONS", uri="sip:[2001:db8::10:5070]", via="Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bK3"), 200),
    ("4.4 a port behind the address", _request(
        "OPTIONS", uri="sip:[2001:db8::10]:5070", via="Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bK4"), 200),
    ("4.5 received in brackets", _request(
        "OPTIONS", via="Via: SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bK5"), 200),
    ("4.5 received without brackets", _request(
        "OPTIONS", via="Via: SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bK6"), 200),
    ("4.6 an address in the description", _request("INVITE", body=SDP_6), RINGS),
    ("4.7 both kinds in header fields", _request(
        "OPTIONS", "Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bK8", "Contact: <sip:torturer@[2001:db8::9:1]>",
        "Route: <sip:192.0.2.9;lr>, <sip:[2001:db8::9]:5080;lr>"), 200),
    ("4.8 both kinds in the description", _request(
        "INVITE", body=SDP + "m=video 6000 RTP/AVP 31\r\nc=IN IP6 2001:db8::9:255\r\n"), RINGS),
    ("4.9 IPv4 written as IPv6", _request(
        "INVITE", "Contact: <sip:torturer@[::ffff:192.0.2.10]:19823>",
        via="Via: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bK9",
        body=SDP.replace("c=IN IP4 192.0.2.77", "c=IN IP6 ::ffff:192.0.2.10")), RINGS),
    ("4.10 a colon too many, as the grammar of RFC 3261 has it", _request(
        "OPTIONS", uri="sip:bob@[2001:db8:::192.0.2.1]", via="Via: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bK10"), 200),
]
