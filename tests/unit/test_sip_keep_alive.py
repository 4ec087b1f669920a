"""Signs of life of a server, by the clock."""

from __future__ import annotations

from appliance.providers.sip.agent import Hop
from appliance.providers.sip.keep_alive import KeepAlive
from appliance.providers.sip.message import Request, Response
from tests.support.sip_world import Clock, End, Network

HERE, SERVER = Hop("udp", "192.0.2.1", 5060), Hop("udp", "192.0.2.9", 5060)


class Server:
    """Answers with 501, unless it is ``dead``; ``told`` is what is made of that."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.network = Network(self.clock)
        self.end = End(self.network, "door", HERE.host, SERVER)
        self.dead = False
        self.asked: list[float] = []
        self.told: list[tuple[str, float]] = []
        self.alive = KeepAlive(self.end.agent, lambda: self._tell("lost"), lambda: self._tell("heard"))
        self.network.taps[SERVER.host, SERVER.port] = self._receive

    def _tell(self, word: str) -> None:
        self.told.append((word, self.clock.time()))

    def _receive(self, message: Request | Response, source: Hop) -> None:
        assert isinstance(message, Request)
        if not self.asked or message.via.branch != self._branch:
            self.asked.append(self.clock.time())
        self._branch = message.via.branch
        if not self.dead:
            self.network.carry(message.response(501, "no", tag="s").serialise(), SERVER, source)

    def words(self) -> list[str]:
        return [word for word, _ in self.told]


def test_it_is_asked_every_15_s_and_any_answer_will_do() -> None:
    server = Server()
    server.alive.start()
    server.alive.start()
    server.clock.pass_time(46)
    assert server.asked == [1015.0, 1030.0, 1045.0]
    assert server.words() == ["heard"] * 3


def test_one_that_dies_is_noticed_within_23_s_and_heard_when_it_is_back() -> None:
    server = Server()
    server.alive.start(0.0)
    server.clock.pass_time(1)
    server.dead = True
    server.clock.pass_time(37)
    assert server.told == [("heard", 1000.0), ("lost", 1023.0), ("lost", 1038.0)]
    server.dead = False
    server.clock.pass_time(10)
    assert set(server.words()[3:]) == {"heard"}, "by copies of what is not given up yet"
    server.alive.stop()
    server.clock.pass_time(60)
    assert server.end.agent.busy == 0


def test_what_is_stopped_says_nothing_any_more() -> None:
    server = Server()
    server.dead = True
    server.alive.start(0.0)
    server.clock.pass_time(1)
    server.alive.stop()
    server.alive.stop()
    server.dead = False
    server.clock.pass_time(60)
    assert server.told == []
    server.alive.start()
    server.clock.pass_time(16)
    assert server.words() == ["heard"]
