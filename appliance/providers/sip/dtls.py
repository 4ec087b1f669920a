"""What descriptions say of lines with DTLS-SRTP (RFC 5763, RFC 8842) and of the paths to them (ICE, RFC 8839). Pure.

Who begins the handshake is decided by ``a=setup``: our offers leave it to the other side, and where it is left to us we
begin, as RFC 5763 5 recommends.
"""

from __future__ import annotations

import re
from typing import Final

from appliance.errors import SignalingError
from appliance.media.api import IceFragment
from appliance.media.sdp import usable_candidate
from appliance.media.ways import OurEnd, TheirEnd
from appliance.providers.sip.description import Description, Media, NotAcceptable
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.sdes import parse_crypto

__all__ = ["OFFERED", "PROFILE", "attributes_of", "does_mux", "has_dtls", "has_ice", "their_end"]

PROFILE: Final = "UDP/TLS/RTP/SAVP"  # and SAVPF, which is what browsers speak
OFFERED: Final = "UDP/TLS/RTP/SAVPF"
OLD_PROFILE: Final = "RTP/SAVP"  # with a fingerprint: from before RFC 5764 was understood
CANDIDATES: Final = 64
FINGERPRINTS: Final = 8
_DIGESTS: Final = {"sha-256": 32, "sha-384": 48, "sha-512": 64}  # bytes; SHA-1 proves nothing any more
_FINGERPRINT: Final = re.compile(r"(\S{1,16})\s+([0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){15,63})")
_ICE: Final = re.compile(r"[A-Za-z0-9+/]{4,256}")  # ufrag; the password has 22 at least (RFC 8839 5.4)
_TLS_ID: Final = re.compile(r"[A-Za-z0-9+/\-_]{20,255}")


def has_dtls(theirs: Description, line: Media) -> bool:
    """Whether the keys of a line come by DTLS."""
    if line.proto.startswith(PROFILE):
        return True
    known = any(parse_crypto(value) is not None for value in line.all("crypto"))
    return line.proto.startswith(OLD_PROFILE) and bool(theirs.all_of(line, "fingerprint")) and not known


def has_ice(theirs: Description, line: Media) -> bool:
    return theirs.first_of(line, "ice-ufrag") is not None


def does_mux(line: Media) -> bool:
    """Whether its writer takes RTCP on the port of RTP (RFC 5761)."""
    return line.attribute("rtcp-mux") is not None


def their_end(theirs: Description, line: Media, *, answers: bool, before: TheirEnd | None, mux: bool) -> TheirEnd:
    """What both sides say of theirs. ``answers``: it is an answer; ``before``: what they have said until now; ``mux``:
    both sides take RTCP on the port of RTP. Raises Malformed and NotAcceptable."""
    fingerprints = frozenset(_fingerprints(theirs.all_of(line, "fingerprint")))
    if not fingerprints:
        raise NotAcceptable("the other side names its certificate by no fingerprint that proves anything "
                            "(a=fingerprint with SHA-256, RFC 8122)")
    tls_id = theirs.first_of(line, "tls-id") or ""
    tls_id = tls_id if _TLS_ID.fullmatch(tls_id) else ""
    same = before is not None and (before.fingerprints, before.tls_id) == (fingerprints, tls_id)
    return TheirEnd(
        fingerprints, _begins(theirs.first_of(line, "setup"), answers=answers, now=before if same else None), tls_id,
        _ice(theirs, line, mux=mux), controlling=answers if before is None else before.controlling, mux=mux)


def _fingerprints(values: list[str]) -> list[tuple[str, str]]:
    found = []
    for value in values[:FINGERPRINTS]:
        match = _FINGERPRINT.fullmatch(value)
        if match is None:
            raise Malformed("a fingerprint (a=fingerprint) cannot be read")
        digest, text = match[1].lower(), match[2].upper()
        if digest in _DIGESTS and len(text) != _DIGESTS[digest] * 3 - 1:
            raise Malformed(f"a fingerprint is not as long as {digest} is")
        if digest in _DIGESTS:
            found.append((digest, text))
    return found


def _begins(setup: str | None, *, answers: bool, now: TheirEnd | None) -> bool:
    """Whether they begin the handshake. ``now``: their end of the association that goes on. Raises NotAcceptable."""
    match (setup or ("passive" if answers else "active")).lower():  # the defaults of RFC 4145 4
        case "active":
            return True
        case "passive":
            return False
        case "actpass" if not answers:
            return now is not None and now.client
        case _:
            raise NotAcceptable("the other side does not say who begins the DTLS handshake (a=setup)")


def _ice(theirs: Description, line: Media, *, mux: bool) -> IceFragment | None:
    """None where they do none. Raises Malformed."""
    username, password = theirs.first_of(line, "ice-ufrag"), theirs.first_of(line, "ice-pwd")
    if username is None and password is None:
        return None
    if not _ICE.fullmatch(username or "") or not _ICE.fullmatch(password or "") or len(password or "") < 22:
        raise Malformed("the credentials of ICE (a=ice-ufrag, a=ice-pwd) are not as RFC 8839 wants them")
    candidates = [f"candidate:{one}" for one in line.all("candidate") if _usable(one, rtcp=not mux)]
    lite = any(name == "ice-lite" for name, _ in theirs.attributes)
    return IceFragment(username or "", password or "", tuple(candidates[:CANDIDATES]), lite)


def _usable(candidate: str, *, rtcp: bool) -> bool:
    try:
        return usable_candidate(f"candidate:{candidate}", rtcp=rtcp)
    except SignalingError:
        return False


def attributes_of(end: OurEnd, setup: str, *, tls_id: bool, mux: bool | None) -> list[tuple[str, str]]:
    """Of our line. ``tls_id``: the association is named: in offers, and to who names it too (RFC 8842 5.3). ``mux``:
    RTCP goes by the port of RTP; None: as the other side likes (RFC 5761 5.1.1)."""
    found = [] if mux is False else [("rtcp-mux", "")]
    if end.rtcp and not mux:
        found.append(("rtcp", str(end.rtcp)))
    found += [("fingerprint", f"sha-256 {end.fingerprint}"), ("setup", setup)]
    if tls_id:
        found.append(("tls-id", end.tls_id))
    if end.ice is not None:
        found += [("ice-ufrag", end.ice.username), ("ice-pwd", end.ice.password)]
        candidates = [one.removeprefix("candidate:") for one in end.ice.candidates]
        found += [("candidate", one) for one in candidates if not mux or one.split(" ")[1] == "1"]
    return found
