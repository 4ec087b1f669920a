"""Quality of a call from its statistics: the published score and thresholds, and each part of the level by hand."""

from __future__ import annotations

import itertools

import pytest

from appliance.care.quality import BAD, GOOD, POOR, Judge, Quality, level_of, mos
from appliance.vocabulary import Json
from tests.support.calm_call import CalmCall


def judged(call: CalmCall, *, seconds: float = 5.0, **changes: float) -> Quality:
    """The third look: two saw a calm call, and what changed happened since."""
    judge = Judge()
    for _ in range(2):
        judge.look(call.after(seconds))
    for name, value in changes.items():
        setattr(call, name, value)
    return judge.look(call.after(seconds))


def test_the_score_of_a_clean_line_and_of_a_bad_one() -> None:
    # R = 94.768 - (20+10)/40 = 94.018; MOS = 1 + 0.035 R + 7e-6 R (R-60)(100-R)
    assert mos(0.02, 0.0, 0.0) == pytest.approx(4.4245, abs=1e-3)
    # L = 300+60+10 = 370; R = 94.768 - 25 - 2.5*5 = 57.268
    assert mos(0.3, 0.03, 0.05) == pytest.approx(1 + 0.035 * 57.268 + 7e-6 * 57.268 * -2.732 * 42.732, abs=1e-3)
    assert mos(2.0, 0.0, 0.0) == 1.0


@pytest.mark.parametrize(("changes", "receive"), [
    ({}, GOOD), ({"jitter": 0.04}, POOR), ({"jitter": 0.2}, BAD), ({"loss": 0.04}, POOR), ({"loss": 0.2}, BAD),
    ({"rtt": 0.4}, POOR), ({"rtt": 0.6}, BAD)])
def test_thresholds_of_what_is_received_and_sent(changes: dict[str, float], receive: int) -> None:
    quality = judged(CalmCall(), **changes)
    assert (quality.receive.grade, quality.send.grade) == (receive, receive)


@pytest.mark.parametrize(("changes", "what"), [
    ({}, None), ({"jitter": 0.04}, "jitter 40 ms (poor above 30 ms)"), ({"rtt": 0.6}, "rtt 600 ms (bad above 500 ms)"),
    ({"rtt": 0.4, "jitter": 0.05}, "rtt 400 ms (poor above 300 ms), jitter 50 ms (poor above 30 ms)"),
    ({"rtt": 0.6, "jitter": 0.05}, "rtt 600 ms (bad above 500 ms), jitter 50 ms (poor above 30 ms)")])
def test_a_verdict_names_what_fell_and_its_limit(changes: dict[str, float], what: str | None) -> None:
    quality = judged(CalmCall(), **changes)
    for verdict in (quality.send, quality.receive):
        detail = verdict.detail()
        assert detail.get("what") == what
        if what is None:
            assert detail == {}
        else:
            assert detail["direction"] == verdict.direction
            assert detail["jitter"] == changes.get("jitter", 0.002)
            assert detail["roundTripTime"] == changes.get("rtt", 0.02)


def test_a_figure_at_the_border_does_not_flutter() -> None:
    judge, call = Judge(), CalmCall(jitter=0.031)
    found = [judge.look(call.after(5)).receive]
    for jitter in (0.029, 0.031, 0.025, 0.023, 0.029):
        call.jitter = jitter
        found.append(judge.look(call.after(5)).receive)
    assert [verdict.grade for verdict in found] == [POOR, POOR, POOR, POOR, GOOD, GOOD]
    assert found[3].detail()["what"] == "jitter 25 ms (poor until below 24 ms)"


def test_a_verdict_on_loss_has_the_share_and_each_direction_its_own() -> None:
    detail = judged(CalmCall(), loss=0.2).receive.detail()
    assert (detail["direction"], detail["fractionLost"]) == ("receive", pytest.approx(0.2, abs=0.01))
    assert detail["what"] == f"loss {detail['fractionLost'] * 100:.3g} % (bad above 10 %)"


def test_loss_is_of_what_was_reported_on_and_not_of_what_is_sent_meanwhile() -> None:
    """The picture has stopped: what the last report said of it is over, and a late one is about what went before."""
    judge, call = Judge(), CalmCall()
    for _ in range(2):
        before = {row["id"]: row for row in judge_by(judge, call)}
    stopped = {"packetsSent": before["out-video"]["packetsSent"]}
    told = before["remote-in-video"]
    silent = {"packetsLost": told["packetsLost"], "packetsReceived": told["packetsReceived"], "fractionLost": 1.0}
    late = {"packetsLost": told["packetsLost"] + 2, "packetsReceived": told["packetsReceived"] + 198}
    for report, loss in ((silent, 0.0), (late, 0.01)):
        rows = call.after(5)
        for row in rows:
            row.update({"out-video": stopped, "remote-in-video": report}.get(row["id"], {}))
        found = judge.look(rows)
        assert found.send.loss == pytest.approx(loss)
        assert found.send.grade == GOOD


def judge_by(judge: Judge, call: CalmCall) -> list[Json]:
    report = call.after(5)
    judge.look(report)
    return report


def test_the_level_follows_loss_and_delay_as_the_formula_has_it() -> None:
    levels = {}
    for loss, rtt in itertools.product((0.0, 0.01, 0.05, 0.15), (0.02, 0.3, 0.6)):
        quality = judged(CalmCall(), loss=loss, rtt=rtt)
        score = mos(rtt, 0.002, loss)
        levels[loss, rtt] = quality.level
        assert quality.level == 1 + sum(score > limit for limit in (3.0, 3.6, 4.0, 4.2))
    for rtt in (0.02, 0.3, 0.6):
        ordered = [levels[loss, rtt] for loss in (0.0, 0.01, 0.05, 0.15)]
        assert ordered == sorted(ordered, reverse=True), "more loss, no better level"
    assert (levels[0.0, 0.02], levels[0.15, 0.6]) == (5, 1)


@pytest.mark.parametrize(("loss", "concealed_s"), [(0.0, 0.5), (0.05, 0.5), (0.05, 0.1), (0.15, 0.0)])
def test_what_came_too_late_to_be_heard_is_as_lost_as_what_did_not_come(loss: float, concealed_s: float) -> None:
    """Of five seconds; a tenth of what is concealed is silence. What a copy repaired counts as lost all the same: the
    formula has the network's loss."""
    quality = judged(CalmCall(), loss=loss, concealed=concealed_s)
    part = quality.parts["audio", "receive"]
    assert part.concealed == pytest.approx(concealed_s * 0.9 / 5)
    assert quality.mos == pytest.approx(mos(0.02, 0.002, max(loss, part.concealed)), abs=0.1)
    assert part.level == level_of(quality.mos)
    assert quality.receive.grade == (BAD if loss > 0.1 else POOR if loss > 0.03 else GOOD), "which is of the network"
    assert quality.parts["audio", "send"].concealed == 0.0


@pytest.mark.parametrize(("changes", "level"), [
    ({"fps": 28}, 5), ({"fps": 24}, 4), ({"fps": 15}, 3), ({"fps": 8}, 2), ({"fps": 2}, 1), ({"fps": 0}, 1),
    ({"sent_fps": 0}, 1), ({"frozen": 0.1}, 4), ({"frozen": 0.3}, 3), ({"frozen": 0.9}, 2), ({"frozen": 2.0}, 1),
    ({"sent_fps": 24}, 4), ({"sent_fps": 10}, 2),
    ({"target": 1_400_000}, 5), ({"target": 700_000}, 2), ({"target": 100_000}, 1)])
def test_the_picture_is_judged_by_freezes_frame_rate_and_bit_rate(changes: dict[str, float], level: int) -> None:
    quality = judged(CalmCall(), **changes)
    assert quality.level == level
    assert {part.level for (kind, _), part in quality.parts.items() if kind == "audio"} == {5}


def test_fewer_bits_by_wish_are_no_fault_of_the_network() -> None:
    assert judged(CalmCall(limited_by="none"), target=300_000).level == 5
    assert judged(CalmCall(limited_by="bandwidth"), target=300_000).level == 1


def test_what_is_expected_is_the_best_of_half_a_minute() -> None:
    judge, call = Judge(), CalmCall()
    for _ in range(3):
        judge.look(call.after(5))
    call.fps = 15
    levels = [judge.look(call.after(5)).level for _ in range(8)]
    assert levels[:4] == [3] * 4
    assert levels[-1] == 5, "a peer that has settled at fifteen is not judged by thirty for ever"


def test_loss_counts_since_the_sample_before() -> None:
    call = CalmCall(loss=0.5)
    quality = judged(call, seconds=20, loss=0.001)
    assert quality.receive.loss == pytest.approx(0.001, abs=1e-3)
    assert (quality.receive.grade, quality.level) == (GOOD, 5)


def test_a_stream_that_begins_again_lost_nothing_and_grew_from_nothing() -> None:
    judge, call = Judge(), CalmCall(loss=0.3)
    judge.look(call.after(60))
    again = CalmCall(ssrc=77)
    again.now = 61.0
    assert judge.look(again.report()).receive.loss == 0


def test_nothing_of_a_peer_that_sends_is_bad_and_the_worst_level() -> None:
    judge, call = Judge(), CalmCall()
    judge.look(call.after(5))
    call.silent_since = 5.0
    quality = judge.look(call.after(5))
    assert (quality.receive.grade, quality.level) == (BAD, 1)
    assert quality.receive.detail()["what"] == (
        "no audio arrives although the other side sends it, no video arrives although the other side sends it")
    assert quality.parts["audio", "receive"].level == 1


def test_a_peer_that_stopped_its_picture_is_not_judged_by_it() -> None:
    judge, call = Judge(), CalmCall()
    judge.look(call.after(5))
    report = call.after(5)
    before = {row["id"]: row for row in CalmCall().after(5)}
    for row in report:
        if row["id"] in ("in-video", "remote-out-video"):
            row.update({key: before[row["id"]][key] for key in row if key not in ("id", "timestamp", "type")})
    quality = judge.look(report)
    assert ("video", "receive") not in quality.parts
    assert quality.level == 5


def test_a_picture_that_the_network_holds_back_is_the_worst_and_silence_is_not_judged() -> None:
    judge, call = Judge(), CalmCall()
    before = {row["id"]: row for row in call.after(5)}
    judge.look(list(before.values()))
    report = call.after(5)
    for row in report:
        if row["id"] in ("out-audio", "out-video"):
            row.update({key: before[row["id"]][key] for key in row if key.endswith("Sent")})
    parts = judge.look(report).parts
    assert parts["video", "send"].level == 1
    assert ("audio", "send") not in parts


def test_verbosity_says_how_much_is_told() -> None:
    quality = judged(CalmCall(), loss=0.05)
    assert quality.stats(0) == quality.stats(1) == {}
    assert quality.stats(2) == {"audio": {"send": 4, "recv": 4}, "video": {"send": 5, "recv": 5}}
    detail = quality.stats(3)["audio"]["recvStats"]
    assert set(detail) == {"bandwidth", "latency", "fractionLost", "concealed"}
    assert detail["fractionLost"]["fractionLost"] == pytest.approx(0.05, abs=0.01)
    assert detail["latency"] == {"jitter": 0.002, "rtt": 0.02, "level": 5}
    assert quality.stats(3)["video"]["sendStats"]["bandwidth"]["available"] == 2_000_000
    payload: Json = quality.payload()
    assert payload["networkQualityLevel"] == quality.level == 4


def test_without_statistics_nothing_is_wrong() -> None:
    quality = Judge().look([])
    assert (quality.send.grade, quality.receive.grade, quality.rtt, quality.level) == (GOOD, GOOD, None, 5)
