"""Whether what is sent comes to the peer, by its reports."""

from __future__ import annotations

from collections.abc import Iterable

from appliance.media.hearing import UNHEARD_S, Hearing, unheard


class Stream:
    """Fifty packets a second, and a report every second, from second 0 on."""

    def __init__(self) -> None:
        self.hearing = Hearing()
        self.sent = self.come = 0

    def goes_on(self, seconds: Iterable[int], *, sends: bool = True, comes: bool = True) -> None:
        for now in seconds:
            if sends:
                self.hearing.begin(now)
                self.sent += 50
            if comes:
                self.come = self.sent
            self.hearing.report(1000 + self.come, self.sent, now)

    def unheard(self, now: float) -> bool:
        return unheard([self.hearing], now)


def test_what_comes_no_more_though_reports_do_is_known_after_five_of_them() -> None:
    stream = Stream()
    stream.goes_on(range(20))
    stream.goes_on(range(20, 24), comes=False)
    assert not stream.unheard(23)
    stream.goes_on(range(24, 25), comes=False)
    assert stream.unheard(24)
    stream.goes_on(range(25, 26))
    assert not stream.unheard(25)
    assert stream.hearing.heard(25)


def test_who_sends_nothing_is_not_unheard_nor_just_after() -> None:
    """Of what is sent first something is on its way still at the next report."""
    stream = Stream()
    stream.goes_on(range(5))
    stream.goes_on(range(5, 500), sends=False)
    assert not stream.unheard(500)
    stream.goes_on(range(500, 501), comes=False)
    assert not stream.unheard(500)


def test_a_picture_whose_last_packets_are_lost_before_it_pauses_is_not_unheard() -> None:
    stream = Stream()
    stream.goes_on(range(5))
    stream.goes_on(range(5, 6), comes=False)
    stream.goes_on(range(6, 100), sends=False, comes=False)
    assert not stream.unheard(100)


def test_reports_that_were_missing_for_long_say_little_of_that_time() -> None:
    stream = Stream()
    stream.goes_on(range(5))
    stream.goes_on([60], comes=False)
    assert not stream.unheard(60)


def test_without_any_report_it_is_told_as_well_once_something_is_sent() -> None:
    hearing = Hearing()
    assert not unheard([hearing], 1000)
    hearing.begin(1000)
    hearing.begin(1004)
    assert not unheard([hearing], 1000 + UNHEARD_S - 0.1)
    assert unheard([hearing], 1000 + UNHEARD_S)
    assert hearing.heard_at is None


def test_who_is_heard_is_not_disturbed_for_a_picture_that_does_not_come() -> None:
    voice, picture = Stream(), Stream()
    voice.goes_on(range(40))
    picture.goes_on(range(20))
    picture.goes_on(range(20, 40), comes=False)
    assert picture.unheard(39)
    assert not unheard([voice.hearing, picture.hearing], 39)
    voice.goes_on(range(40, 50), sends=False)
    picture.goes_on(range(40, 50), comes=False)
    assert unheard([voice.hearing, picture.hearing], 49), "muted, it says nothing of the path"
