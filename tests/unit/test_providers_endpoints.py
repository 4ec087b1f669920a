"""Which server is used, by order, by nearness, or pinned, and which is not after it failed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from appliance.providers.endpoints import SET_BACK_S, Endpoints

A, B, C = "wss://a.example", "wss://b.example", "wss://c.example"


class Time:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(choose: str = "order", urls: Sequence[str] = (A, B, C)) -> tuple[Endpoints, Time]:
    time = Time()
    return Endpoints(urls, choose, monotonic=time), time


def told(endpoints: Endpoints) -> tuple[str, float | None, str]:
    selected = endpoints.state()["selectedEndpoint"]
    return selected["url"], selected["roundTripTime"], selected["reason"]


def test_in_order_the_first_that_is_reached() -> None:
    endpoints, time = made()
    assert told(endpoints) == (A, None, "order")
    endpoints.failed(A, "refused")
    assert told(endpoints) == (B, None, "failover")
    endpoints.failed(B, "refused")
    assert endpoints.selected == C
    assert [one["fault"] for one in endpoints.state()["endpoints"]] == ["refused", "refused", None]
    time.now += SET_BACK_S
    assert told(endpoints) == (A, None, "order")


def test_of_servers_that_all_fail_the_one_that_failed_longest_ago() -> None:
    endpoints, time = made()
    for url in (B, A, C):
        endpoints.failed(url, "refused")
        time.now += 1
    assert endpoints.selected == B


def test_a_probe_brings_a_server_back() -> None:
    endpoints, _ = made()
    endpoints.failed(A, "refused")
    assert endpoints.failing
    endpoints.measured(A, 0.0123456)
    assert not endpoints.failing
    assert told(endpoints) == (A, 0.0123, "order")


def test_the_nearest_and_another_only_when_it_is_a_fifth_nearer() -> None:
    endpoints, _ = made("nearest")
    assert endpoints.selected == A  # nothing is measured yet
    for url, round_trip_s in ((A, 0.15), (B, 0.01), (C, 0.05)):
        endpoints.measured(url, round_trip_s)
    assert told(endpoints) == (B, 0.01, "nearest")
    endpoints.measured(C, 0.0081)
    assert endpoints.selected == B
    endpoints.measured(C, 0.0079)
    assert endpoints.selected == C
    endpoints.failed(C, "refused")
    assert endpoints.selected == B


def test_pinned_is_pinned_however_slow_and_failing() -> None:
    endpoints, _ = made("pinned")
    endpoints.measured(A, 0.15)
    endpoints.measured(B, 0.01)
    endpoints.failed(A, "refused")
    assert endpoints.urls == [A]
    assert told(endpoints)[::2] == (A, "pinned")


@pytest.mark.parametrize("choose", ["order", "nearest"])
def test_while_a_room_is_joined_the_server_stays_where_the_others_are(choose: str) -> None:
    endpoints, _ = made(choose)
    endpoints.failed(A, "refused")
    assert endpoints.selected == B
    endpoints.worked(B)
    endpoints.measured(A, 0.001)
    assert endpoints.selected == B
    endpoints.release()
    assert endpoints.selected == A


def test_what_is_no_server_of_ours_is_left_out() -> None:
    endpoints, _ = made()
    endpoints.measured("wss://stranger.example", 0.001)
    assert endpoints.selected == A
