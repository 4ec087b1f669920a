"""Calls with media servers: every answer that a server can give, over real HTTP, with scripted media."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

import pytest

from appliance.errors import Refused
from appliance.media.api import (
    Directions,
    IceFragment,
    IceServers,
    SessionBlocked,
    SessionClosed,
    SessionSilent,
    SessionSound,
    SessionStranded,
    SessionUp,
)
from appliance.providers import api
from appliance.providers.whip import resource as http
from appliance.providers.whip import way
from appliance.settings import Secret, WhipSettings
from tests.support.scripted_whip import (
    ANSWER,
    LEAVE,
    OFFER,
    OURS,
    SDP,
    THEIRS,
    TOKEN,
    Reply,
    caller,
    created,
    playing,
    publishing,
    scripted,
    status,
)
from tests.support.turnserver import Authority

# --- the way there ----------------------------------------------------------------------------------------------------


async def test_an_offer_is_posted_with_the_token_and_the_resource_deleted_at_the_end() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        assert session.took[0] == ANSWER
        assert session.wanted == Directions(True, True, False, False)
        assert one.of(api.Connected)[0].security == {"dtls": "1.2"}
        post, = server.of("POST")
        assert (post.path, post.body, post.headers["Content-Type"]) == ("/whip/door?key=1", OFFER, SDP)
        assert post.headers["Authorization"] == f"Bearer {TOKEN}"
        assert one.leg is not None
        await one.leg.end(LEAVE)
        assert await one.ended() == LEAVE
        delete, = server.of("DELETE")
        assert (delete.path, delete.headers["Authorization"]) == ("/session/1", f"Bearer {TOKEN}")
        assert "If-Match" not in delete.headers
        assert session.closed
        assert await one.leg.stats()


async def test_both_ways_are_one_call() -> None:
    async with scripted() as server:
        settings = WhipSettings("studio", f"{server.url}/whip", f"{server.url}/whep", Secret(TOKEN), Secret("other"))
        async with caller(settings) as one:
            await one.dial()
            await one.until(lambda: one.of(api.Accepted))
            out, back = one.studio.sessions
            out.tell(SessionUp({"dtls": "1.2"}))
            await asyncio.sleep(0.02)
            assert not one.of(api.Connected)
            back.tell(SessionUp())
            await one.until(lambda: one.of(api.Connected))
            assert one.of(api.PeerMedia) == [api.PeerMedia(video=True)]
            tokens = {request.path: request.headers["Authorization"] for request in server.of("POST")}
            assert tokens == {"/whip": f"Bearer {TOKEN}", "/whep": "Bearer other"}
            assert one.leg is not None
            await one.leg.set_media(api.MediaWanted(send_video=False, receive_audio=False))
            assert out.wanted == Directions(True, False, False, False)
            assert back.wanted == Directions(False, False, False, True)
            with pytest.raises(Refused, match="no data messages"):
                await one.leg.send("edgecall", "x")
            back.tell(SessionClosed("lost"))
            await one.until(lambda: one.of(api.Lost))
            await one.until(lambda: len(one.studio.sessions) == 3)
            one.studio.sessions[2].tell(SessionUp())
            await one.until(lambda: one.of(api.Recovered))
            assert len(await one.leg.replaced()) == 1
            assert not out.closed


async def test_who_is_not_there_and_what_is_lacking() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        with pytest.raises(Refused, match=r"'cellar' in \[\[whip\]\]"):
            await one.dial("cellar")
        one.studio.sends = False
        with pytest.raises(Refused, match="neither microphone nor camera"):
            await one.dial()
        one.studio.sends = True
        with pytest.raises(Refused, match="only to listen"):
            await one.dial(media=api.MediaWanted(listens_only=True))
        assert one.provider.state()["servers"] == [{"name": "studio", "publishes": True, "plays": False}]
        assert one.provider.reachable(api.Target("whip", "cellar")) is False
        assert not server.asked


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "key"), [
    (400, "400/badOffer"), (401, "401/token"), (403, "403/notPermitted"), (404, "404/noSuchEndpoint"),
    (405, "404/noSuchEndpoint"), (406, "406/offerRefused"), (409, "409/endpointTaken"), (415, "415/noSdp"),
    (422, "422/offerNotProcessed"), (429, "429/tooManyRequests"), (500, "503/provider"), (501, "404/noSuchEndpoint"),
    (503, "503/serverBusy"), (302, "503/provider"), (200, "503/provider"),
])
async def test_each_refusal_ends_the_call_with_its_own_reason(code: int, key: str) -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        server.gives("POST", status(code, "<html>", Location="/elsewhere"))
        await one.dial()
        reason = await one.ended()
        assert (reason.key, bool(reason.advice)) == (key, True)
        assert len(server.asked) == 1
        assert one.studio.sessions[0].closed


async def test_a_short_wait_is_waited_and_a_long_one_told() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        server.gives("POST", status(503, Retry_After="0"), status(429, Retry_After="1"), created())
        begun = asyncio.get_running_loop().time()
        await one.connected()
        assert 1.5 <= asyncio.get_running_loop().time() - begun < 3.5
        assert len(server.of("POST")) == 3


@pytest.mark.parametrize(("headers", "words"), [
    ({"Retry_After": "120"}, "in 120 s"),
    ({"Retry_After": "Sun, 01 Mar 2026 12:02:00 GMT", "Date": "Sun, 01 Mar 2026 12:00:00 GMT"}, "in 120 s"),
])
async def test_a_server_that_asks_to_come_much_later(headers: dict[str, str], words: str) -> None:
    async with scripted() as server, caller(playing(server)) as one:
        server.gives("POST", status(409, **headers))
        await one.dial()
        reason = await one.ended()
        assert reason.key == "409/nothingPublished"
        assert words in reason.message


async def test_a_server_that_is_not_there_or_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted() as server:
        pass
    async with caller(publishing(server)) as one:
        await one.dial()
        reason = await one.ended()
        assert reason.key == "503/provider"
        assert "not reached" in reason.message
    monkeypatch.setattr(http, "CREATE_S", 0.1)
    async with scripted() as server, caller(publishing(server)) as one:
        server.open.clear()
        await one.dial()
        assert "no answer in time" in (await one.ended()).message


@pytest.mark.parametrize("reply", [
    created("v=0" + "x" * 70_000), created("nonsense"), created(Location="http://[::1"), created(Location="ftp://a/"),
])
async def test_answers_that_cannot_be_used(reply: Reply) -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        server.gives("POST", reply)
        await one.dial()
        assert (await one.ended()).key == "503/provider"


async def test_a_server_that_names_no_resource_is_left_by_its_media_alone() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        server.gives("POST", status(201, ANSWER, Content_Type=SDP))
        session = await one.connected()
        assert one.leg is not None
        await one.leg.end(LEAVE)
        assert session.closed
        assert not server.of("DELETE")


async def test_an_unknown_authority_and_the_one_of_the_settings(tmp_path: Path) -> None:
    authority = await asyncio.to_thread(Authority, tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("127.0.0.1"))
    async with scripted(context) as server:
        async with caller(publishing(server)) as one:
            await one.dial()
            reason = await one.ended()
            assert reason.key == "495/certificate"
            assert "ca_file" in reason.advice
            assert not server.asked
        async with caller(publishing(server, ca_file=str(authority.file))) as one:
            await one.connected()
            assert server.of("POST")[0].headers["Authorization"] == f"Bearer {TOKEN}"


# --- redirects --------------------------------------------------------------------------------------------------------


async def test_a_redirect_keeps_method_and_offer_and_the_token_stays_at_its_origin() -> None:
    async with scripted() as first, scripted() as second, caller(publishing(first)) as one:
        first.gives("POST", status(308, Location="/whip/other"), status(307, Location=f"{second.url}/edge/9/whip?x=2"))
        second.gives("POST", created(Location="../session/9"))
        await one.connected()
        assert [request.path for request in first.of("POST")] == ["/whip/door?key=1", "/whip/other"]
        assert all(request.headers["Authorization"] == f"Bearer {TOKEN}" for request in first.of("POST"))
        post, = second.of("POST")
        assert (post.path, post.body, post.headers["Content-Type"]) == ("/edge/9/whip?x=2", OFFER, SDP)
        assert one.leg is not None
        await one.leg.end(LEAVE)
        await one.until(lambda: second.of("DELETE"))
        assert second.of("DELETE")[0].path == "/edge/session/9"
        assert not any("Authorization" in request.headers for request in second.asked)
        assert not first.of("DELETE")


@pytest.mark.parametrize(("location", "words"), [
    ("/again", "more than 5 times"), ("http://192.0.2.1/whip", "not encrypted"), ("", "redirects")])
async def test_redirects_that_lead_nowhere(location: str, words: str) -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        server.gives("POST", status(307, Location=location))
        await one.dial()
        reason = await one.ended()
        assert reason.key == "503/provider"
        assert words in reason.message


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_hanging_up_while_the_answer_is_awaited_deletes_what_is_made_later() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        server.open.clear()
        leg = await one.dial()
        await one.until(lambda: server.of("POST"))
        begun = asyncio.get_running_loop().time()
        await leg.end(LEAVE)
        assert asyncio.get_running_loop().time() - begun < 2
        assert await one.ended() == LEAVE
        assert not server.of("DELETE")
        server.open.set()
        await one.until(lambda: server.of("DELETE"))
        assert server.of("DELETE")[0].path == "/session/1"
        assert not one.of(api.Accepted)


async def test_a_server_that_hangs_does_not_hold_the_appliance_up(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        await one.connected()
        server.open.clear()
        begun = asyncio.get_running_loop().time()
        await one.provider.stop()
        assert asyncio.get_running_loop().time() - begun < 2
        assert (await one.ended()).key == "503/shutdown"
        assert "not told in time" in caplog.text


# --- offers of the server ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [201, 406])
async def test_a_server_that_offers_is_answered(code: int) -> None:
    async with scripted() as server, caller(playing(server)) as one:
        server.gives("POST", created(OFFER, code))
        await one.connected()
        first, second = one.studio.sessions
        assert first.closed
        assert second.took == [OFFER]
        patch, = server.of("PATCH")
        assert (patch.path, patch.body, patch.headers["Content-Type"]) == ("/session/1", ANSWER, SDP)
        assert patch.headers["If-Match"] == '"one"'


async def test_a_refused_answer_ends_the_call_and_the_resource() -> None:
    async with scripted() as server, caller(playing(server)) as one:
        server.gives("POST", created(OFFER, 406))
        server.gives("PATCH", status(422))
        await one.dial()
        assert (await one.ended()).key == "422/offerNotProcessed"
        assert server.of("DELETE")


async def test_a_406_without_an_offer_is_a_refusal() -> None:
    async with scripted() as server, caller(playing(server)) as one:
        server.gives("POST", status(406, "no", Content_Type="text/plain"))
        await one.dial()
        assert (await one.ended()).key == "406/offerRefused"


# --- loss -------------------------------------------------------------------------------------------------------------


async def test_after_a_loss_a_new_resource_is_asked_for_ever_slower() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        server.gives("POST", status(500), status(404), created(Location="/session/2"))
        session.tell(SessionClosed("lost"))
        await one.until(lambda: len(one.studio.sessions) == 4)
        await one.until(lambda: one.studio.sessions[3].took)
        assert [request.path for request in server.of("DELETE")] == ["/session/1"]
        assert one.of(api.Lost) == [api.Lost("media")]
        assert not one.of(api.Recovered)
        one.studio.sessions[3].tell(SessionUp())
        await one.until(lambda: one.of(api.Recovered))
        assert one.leg is not None
        assert len(await one.leg.replaced()) == 3
        assert await one.leg.replaced() == []
        await one.leg.end(LEAVE)
        assert [request.path for request in server.of("DELETE")] == ["/session/1", "/session/2"]


async def test_a_token_that_has_run_out_meanwhile_ends_it() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        server.gives("POST", status(401))
        session.tell(SessionClosed("lost"))
        assert (await one.ended()).key == "401/token"


async def test_an_old_resource_is_deleted_as_soon_as_the_server_can_be_told() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        server.gives("POST", status(409), created())
        server.open.clear()  # neither DELETE nor POST is answered
        session.tell(SessionClosed("lost"))
        await one.until(lambda: len(server.of("POST")) == 2)
        assert len(server.of("DELETE")) == 1
        server.open.set()
        await one.until(lambda: len(server.of("POST")) == 3)  # its own ghost was in the way
        assert len(server.of("DELETE")) == 2


async def test_no_path_at_all_ends_the_call() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        await one.dial()
        await one.until(lambda: one.of(api.Accepted))
        one.studio.sessions[0].tell(SessionClosed("iceFailed"))
        assert (await one.ended()).key == "410/iceFailed"
        assert server.of("DELETE")


# --- ICE --------------------------------------------------------------------------------------------------------------

LINK = '<turn:t.example?transport=udp>; rel="ice-server"; username="u"; credential="c"'
TURN = IceServers(turn=("turn:t.example?transport=udp",), username="u", password="c")


async def test_servers_that_the_server_names_are_asked_where_there_is_no_path_and_it_is_told() -> None:
    async with scripted() as server, caller(publishing(server), ice=IceServers(("stun:own.example",))) as one:
        server.gives("POST", created(Link=LINK))
        await one.dial()
        await one.until(lambda: server.of("PATCH"))
        patch, = server.of("PATCH")
        assert patch.headers["If-Match"] == '"one"'
        assert patch.headers["Content-Type"] == "application/trickle-ice-sdpfrag"
        assert "a=ice-ufrag:ours" in patch.body
        assert OURS.candidates[0] in patch.body
        session = one.studio.sessions[0]
        assert session.ice == TURN
        await one.until(lambda: "candidate ''" in session.took)
        session.tell(SessionClosed("iceFailed"))  # in vain: the next offer has them from the beginning
        await one.until(lambda: len(one.studio.sessions) == 2)
        second = one.studio.sessions[1]
        assert second.ice == IceServers(("stun:own.example",), TURN.turn, "u", "c")
        second.tell(SessionClosed("iceFailed"))
        assert (await one.ended()).key == "410/iceFailed"


async def test_where_it_cannot_be_told_it_is_offered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "RENEW_AFTER_S", 0.1)
    async with scripted() as server, caller(publishing(server)) as one:
        server.gives("POST", created(Link=LINK, Accept_Patch="application/json"))
        await one.dial()
        await one.until(lambda: len(one.studio.sessions) == 2)
        assert one.studio.sessions[0].closed
        assert one.studio.sessions[1].ice == TURN
        await one.until(lambda: one.studio.sessions[1].took)
        one.studio.sessions[1].tell(SessionUp())
        await one.until(lambda: one.of(api.Connected))
        assert len(server.of("POST")) == 2
        assert len(server.of("DELETE")) == 1


async def test_with_a_path_no_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way, "TRICKLE_AFTER_S", 0.05)
    async with scripted() as server, caller(publishing(server)) as one:
        server.gives("POST", created(Link=LINK))
        server.open.clear()
        await one.dial()
        await one.until(lambda: server.of("POST"))
        session, = one.studio.sessions
        session.tell(SessionUp())  # before the answer, from which on it is given that long
        server.open.set()
        await one.until(lambda: "candidate ''" in session.took and one.of(api.Connected))
        assert not server.of("PATCH")


@pytest.mark.parametrize("code", [405, 412, 428, 501])
async def test_a_server_that_takes_no_candidates_is_not_asked_again(code: int) -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        server.gives("POST", created(Link=LINK))
        server.gives("PATCH", status(code))
        await one.dial()
        await one.until(lambda: server.of("PATCH"))
        session = one.studio.sessions[0]
        session.tell(SessionUp())
        await one.until(lambda: one.of(api.Connected))
        session.tell(SessionSilent(3.0))
        await one.until(lambda: len(one.studio.sessions) == 2)  # a new resource at once
        assert len(server.of("PATCH")) == 1


async def test_a_lost_path_is_repaired_by_a_restart_of_ice() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        server.gives("PATCH", status(200, THEIRS, ETag='"two"'))
        session.tell(SessionSilent(3.0))
        await one.until(lambda: one.of(api.Recovered))
        assert one.of(api.Lost)
        patch, = server.of("PATCH")
        assert patch.headers["If-Match"] == "*"
        assert "a=ice-ufrag:ours" in patch.body
        assert session.restarted == [IceFragment("theirs", "q" * 24)]
        assert len(server.of("POST")) == 1
        session.tell(SessionStranded(gone=False))  # a better path: nothing is lost
        await one.until(lambda: len(session.restarted) == 2)
        assert len(one.of(api.Lost)) == 1
        session.tell(SessionSound())
        assert not session.closed


async def test_silence_in_the_handshake_is_waited_out_until_there_was_a_connection() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        await one.dial()
        await one.until(lambda: one.studio.sessions and server.of("POST"))
        first = one.studio.sessions[0]
        first.tell(SessionSilent(3.0))
        await one.until(first.heeded)
        first.tell(SessionUp())
        await one.until(lambda: one.of(api.Connected))
        first.tell(SessionClosed("lost"))
        await one.until(lambda: len(one.studio.sessions) == 2)
        one.studio.sessions[1].tell(SessionSilent(3.0))
        await one.until(lambda: len(one.studio.sessions) == 3)
        assert not one.of(api.Ended)


async def test_a_server_that_wants_the_star_in_quotes_restarts_too() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        server.gives("PATCH", status(412), status(200, THEIRS))
        session.tell(SessionSilent(3.0))
        await one.until(lambda: one.of(api.Recovered))
        assert [patch.headers["If-Match"] for patch in server.of("PATCH")] == ["*", '"*"']
        assert session.restarted == [IceFragment("theirs", "q" * 24)]
        assert len(server.of("POST")) == 1


async def test_where_no_media_pass_any_more_a_new_resource_is_asked_for() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        session.tell(SessionBlocked(before=False))  # it may be a server that never reports
        await one.until(session.heeded)
        assert not one.of(api.Lost)
        session.tell(SessionBlocked(before=True))
        await one.until(lambda: len(one.studio.sessions) == 2)
        assert one.of(api.Lost)
        assert session.closed
        await one.until(lambda: one.studio.sessions[1].took)
        one.studio.sessions[1].tell(SessionUp())
        await one.until(lambda: one.of(api.Recovered))
        assert (len(server.of("DELETE")), len(server.of("PATCH"))) == (1, 0), "what answers checks needs no other path"


async def test_silence_soon_after_a_repair_is_no_fault_of_the_path() -> None:
    """The server may have nothing to send: whether it has, it says when it is asked anew."""
    async with scripted() as server, caller(playing(server)) as one:
        session = await one.connected()
        server.gives("PATCH", status(200, THEIRS))
        session.tell(SessionSilent(3.0))
        await one.until(lambda: one.of(api.Recovered))
        server.gives("POST", status(409))
        session.tell(SessionSilent(3.0))
        await one.until(lambda: len(server.of("POST")) == 3)
        assert len(server.of("PATCH")) == 1
        assert len(one.of(api.Lost)) == 2
        assert not one.of(api.Ended)


async def test_another_network_before_there_was_a_path_begins_anew() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        await one.dial()
        await one.until(lambda: one.of(api.Accepted))
        one.studio.sessions[0].tell(SessionStranded(gone=True))
        await one.until(lambda: len(one.studio.sessions) == 2 and one.studio.sessions[1].took)
        one.studio.sessions[1].tell(SessionUp())
        await one.until(lambda: one.of(api.Connected))
        assert not one.of(api.Lost)
        assert not server.of("PATCH")
        assert len(server.of("DELETE")) == 1


@pytest.mark.parametrize(
    "reply", [status(405), status(422), status(204), status(200, "a=ice-ufrag:x\r\n"), status(404)])
async def test_where_a_restart_is_not_to_be_had_everything_is_made_anew(reply: Reply) -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        server.gives("PATCH", reply)
        session.tell(SessionStranded(gone=True))
        await one.until(lambda: len(one.studio.sessions) == 2)
        assert one.of(api.Lost)
        assert session.closed
        await one.until(lambda: len(server.of("POST")) == 2)
        assert server.of("DELETE")


async def test_a_restart_without_a_path_is_followed_by_a_new_resource() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        session.finds_path = False
        server.gives("PATCH", status(200, THEIRS))
        session.tell(SessionSilent(3.0))
        await one.until(lambda: len(server.of("POST")) == 2)
        assert not one.of(api.Recovered)


async def test_without_accept_patch_for_fragments_none_is_sent() -> None:
    async with scripted() as server, caller(publishing(server)) as one:
        server.gives("POST", created(Accept_Patch="application/json"))
        session = await one.connected()
        session.tell(SessionSilent(3.0))
        await one.until(lambda: len(server.of("POST")) == 2)
        assert not server.of("PATCH")


async def test_the_token_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with scripted() as server, caller(publishing(server)) as one:
        session = await one.connected()
        server.gives("POST", status(503), status(401))
        session.tell(SessionClosed("lost"))
        await one.ended()
        assert caplog.records
        assert TOKEN not in caplog.text
        assert TOKEN not in repr([one.told, one.provider.state(), one.leg, publishing(server)])
