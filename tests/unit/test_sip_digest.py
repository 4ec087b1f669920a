"""Digest authentication: the examples of RFC 7616, several challenges, stale nonces, wrong passwords."""

from __future__ import annotations

import random
import re

import pytest

from appliance.providers.sip.digest import Authenticator, Challenge, Credentials, challenges
from appliance.providers.sip.grammar import Malformed
from appliance.providers.sip.message import Headers, Request, Response

RFC = ('realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
       'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"')


def refused(status: int, *asked: str) -> Response:
    name = "WWW-Authenticate" if status == 401 else "Proxy-Authenticate"
    return Response(Headers([(name, one) for one in asked]), b"", status, "")


def fields(header: str) -> dict[str, str]:
    return {name: quoted or plain for name, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', header)}


def answer(authenticator: Authenticator, response: Response, request: Request | None = None) -> dict[str, str]:
    request = request or Request(method="REGISTER", target="sip:example.org")
    assert authenticator.retry(request, response)
    name = "authorization" if response.status == 401 else "proxy-authorization"
    return fields(request.headers.get(name))


@pytest.mark.parametrize(("algorithm", "expected"), [
    ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
    ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1")])
def test_the_examples_of_rfc_7616(algorithm: str, expected: str) -> None:
    mufasa = Authenticator(Credentials("Mufasa", "Circle of Life"),
                           lambda: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ")
    request = Request(method="GET", target="/dir/index.html")
    said = answer(mufasa, refused(401, f"Digest {RFC.format(algorithm)}"), request)
    assert said["response"] == expected
    assert (said["qop"], said["nc"], said["algorithm"]) == ("auth", "00000001", algorithm)
    assert said["opaque"] == "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"


def test_a_challenge_of_before_rfc_2617() -> None:
    said = answer(Authenticator(Credentials("bob", "zanzibar")),
                  refused(401, 'Digest realm="biloxi.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'))
    assert "qop" not in said
    assert "cnonce" not in said
    assert len(said["response"]) == 32


def test_of_two_challenges_of_a_realm_the_first_that_is_known_is_answered() -> None:
    said = answer(Authenticator(Credentials("a", "b")), refused(
        401, 'Digest realm="r", nonce="1", algorithm=SHA-3, qop="auth"',
        'Digest realm="r", nonce="2", algorithm=SHA-256, qop="auth"', 'Digest realm="r", nonce="3", algorithm=MD5'))
    assert (said["nonce"], said["algorithm"], len(said["response"])) == ("2", "SHA-256", 64)


def test_each_realm_gets_its_answer() -> None:
    request = Request(method="INVITE", target="sip:b@example.org")
    authenticator = Authenticator(Credentials("a", "b"))
    assert authenticator.retry(request, refused(407, 'Digest realm="p", nonce="1"', 'Digest realm="q", nonce="2"'))
    assert [fields(one)["realm"] for one in request.headers.all("proxy-authorization")] == ["p", "q"]
    assert authenticator.retry(request, refused(401, 'Digest realm="r", nonce="3"'))
    assert len(request.headers.all("proxy-authorization")) == 2
    assert len(request.headers.all("authorization")) == 1


def test_a_wrong_password_is_tried_once() -> None:
    request = Request(method="REGISTER", target="sip:example.org")
    authenticator = Authenticator(Credentials("a", "wrong"))
    assert authenticator.retry(request, refused(401, 'Digest realm="r", nonce="1", qop="auth"'))
    assert not authenticator.retry(request, refused(401, 'Digest realm="r", nonce="2", qop="auth"'))
    later = Request(method="REGISTER", target="sip:example.org")
    authenticator.prepare(later)
    assert "authorization" not in later.headers, "what was refused is not sent beforehand"


def test_a_stale_nonce_is_no_wrong_password() -> None:
    request = Request(method="REGISTER", target="sip:example.org")
    authenticator = Authenticator(Credentials("a", "b"))
    assert authenticator.retry(request, refused(401, 'Digest realm="r", nonce="1", qop="auth"'))
    said = answer(authenticator, refused(401, 'Digest realm="r", nonce="2", qop="auth", stale=TRUE'), request)
    assert (said["nonce"], said["nc"]) == ("2", "00000001")
    assert len(request.headers.all("authorization")) == 1


def test_a_server_that_was_started_anew_does_not_know_its_nonces() -> None:
    authenticator = Authenticator(Credentials("a", "b"))
    answer(authenticator, refused(401, 'Digest realm="r", nonce="1", qop="auth"'))
    request = Request(method="REGISTER", target="sip:example.org")
    authenticator.prepare(request)
    said = answer(authenticator, refused(401, 'Digest realm="r", nonce="2", qop="auth"'), request)
    assert said["nonce"] == "2"
    assert not authenticator.retry(request, refused(401, 'Digest realm="r", nonce="3", qop="auth"'))


def test_later_requests_are_answered_beforehand_and_counted() -> None:
    authenticator = Authenticator(Credentials("a", "b"))
    answer(authenticator, refused(401, 'Digest realm="r", nonce="1", qop="auth"'))
    counts = []
    for _ in range(2):
        request = Request(method="REGISTER", target="sip:example.org")
        authenticator.prepare(request)
        counts.append(fields(request.headers.get("authorization"))["nc"])
    assert counts == ["00000002", "00000003"]


@pytest.mark.parametrize("asked", ['Basic realm="r"', 'Digest realm="r", nonce="1", algorithm=XYZ',
                                   'Digest realm="r", nonce="1", qop="auth-conf"'])
def test_what_cannot_be_answered_is_not(asked: str) -> None:
    request = Request(method="REGISTER", target="sip:example.org")
    assert not Authenticator(Credentials("a", "b")).retry(request, refused(401, asked))
    assert not Authenticator(Credentials("a", "b")).retry(request, refused(401))


def test_session_algorithms_and_integrity_of_the_body() -> None:
    request = Request(Headers(), b"v=0\r\n", "INVITE", "sip:b@example.org")
    asked = refused(401, 'Digest realm="r", nonce="1", qop="auth-int", algorithm=MD5-sess')
    said = answer(Authenticator(Credentials("a", "b"), lambda: "c"), asked, request)
    assert (said["qop"], said["algorithm"], said["cnonce"]) == ("auth-int", "MD5-sess", "c")
    other = Request(Headers(), b"v=1\r\n", "INVITE", "sip:b@example.org")
    again = answer(Authenticator(Credentials("a", "b"), lambda: "c"), asked, other)
    assert said["response"] != again["response"]


def test_names_and_realms_cannot_break_out_of_their_quotes() -> None:
    request = Request(method="REGISTER", target="sip:example.org")
    authenticator = Authenticator(Credentials('a"\r\nVia: x', "b"))
    assert authenticator.retry(request, refused(401, r'Digest realm="r\" evil", nonce="1"'))
    assert "\r" not in request.headers.get("authorization")
    assert r'realm="r\" evil"' in request.headers.get("authorization")


def test_any_challenge_is_parsed_or_malformed() -> None:
    dice = random.Random(8760)
    seed = f"Digest {RFC.format('SHA-256')}, stale=true"
    for _ in range(2000):
        text = list(seed)
        for _ in range(dice.randint(1, 6)):
            at = dice.randrange(len(text))
            text[at : at + dice.randint(0, 3)] = dice.choice(['"', ",", "=", " ", "\\", "x", ";", ""])
        try:
            Challenge.parse("".join(text))
            challenges(refused(407, "".join(text)))
        except Malformed:
            continue
