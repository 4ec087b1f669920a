"""The view in the names of Azure Communication Services: each name of the published table, unit, arithmetic."""

from __future__ import annotations

import pytest

from appliance.care import acs
from appliance.care.summary import MediaSummary
from tests.support.calm_call import CalmCall

_STREAM = {"id", "streamId", "codecName", "bitrate", "jitterInMs", "packets", "packetsPerSecond", "packetsLost",
           "packetsLostPerSecond"}


def two(**changes: float) -> tuple[CalmCall, dict[str, object]]:
    call = CalmCall()
    before = call.after(10)
    for name, value in changes.items():
        setattr(call, name, value)
    return call, acs.sample(call.after(2), before)


def test_every_published_name_is_there_where_it_belongs() -> None:
    _, found = two()
    assert set(found) == {"audio", "video", "transports"}
    ((sent,), (came,)) = found["audio"]["send"], found["audio"]["receive"]
    assert set(sent) == _STREAM | {"rttInMs", "audioInputLevel"}
    assert set(came) == _STREAM | {"audioOutputLevel", "jitterBufferDelayInMs", "healedRatio"}
    ((sent,), (came,)) = found["video"]["send"], found["video"]["receive"]
    assert set(sent) == _STREAM | {
        "rttInMs", "frameRateInput", "frameWidthInput", "frameHeightInput", "framesEncoded", "keyFramesEncoded",
        "frameRateEncoded", "framesSent", "frameRateSent", "frameWidthSent", "frameHeightSent"}
    assert set(came) >= (_STREAM | {
        "framesReceived", "framesDecoded", "framesDropped", "keyFramesDecoded", "frameRateReceived", "frameRateDecoded",
        "longestFreezeDurationInMs", "totalFreezeDurationInMs"})
    assert set(found["transports"][0]) == {"id", "rttInMs", "availableOutgoingBitrate"}


def test_units_and_arithmetic() -> None:
    _, found = two(loss=0.1, frozen=0.4, rtt=0.05)
    sent, came = found["audio"]["send"][0], found["audio"]["receive"][0]
    assert (sent["rttInMs"], sent["jitterInMs"], sent["audioInputLevel"]) == (50, 2, 16384)
    assert sent["bitrate"] == pytest.approx(100 * 100 * 8 / 2)
    assert (sent["packets"], sent["packetsPerSecond"], sent["codecName"], sent["streamId"]) == (100, 50, "opus", "1")
    assert (came["packetsLost"], came["packetsLostPerSecond"]) == (10, 5)
    assert (came["audioOutputLevel"], came["jitterBufferDelayInMs"]) == (32768, 60)
    video = found["video"]["receive"][0]
    assert (video["longestFreezeDurationInMs"], video["totalFreezeDurationInMs"]) == (400, 400)
    assert found["transports"][0]["rttInMs"] == 50


def test_the_healed_ratio_is_what_was_concealed_and_not_silent() -> None:
    call = CalmCall()
    before = call.after(10)
    now = call.after(2)
    next(row for row in now if row["id"] == "in-audio").update(concealedSamples=9600, silentConcealedSamples=1920)
    assert acs.sample(now, before)["audio"]["receive"][0]["healedRatio"] == pytest.approx((9600 - 1920) / 96_000)


def test_a_first_sample_has_no_rates_and_none_of_no_call() -> None:
    sent = acs.sample(CalmCall().after(10))["audio"]["send"][0]
    assert not {"bitrate", "packetsPerSecond", "packetsLostPerSecond"} & set(sent)
    assert sent["rttInMs"] == 20
    assert acs.sample([]) == {"audio": {"send": [], "receive": []}, "video": {"send": [], "receive": []},
                              "transports": []}


def test_a_time_series_has_the_columns_of_the_log() -> None:
    summary, call = MediaSummary(), CalmCall()
    for _ in range(4):
        summary.add(call.after(10))
    rows = acs.time_series(summary.payload(), interval_s=10)
    assert {frozenset(row) for row in rows} == {frozenset({
        "MetricName", "Count", "Sum", "Average", "Minimum", "Maximum", "MediaStreamDirection", "MediaStreamType",
        "MediaStreamCodec", "AggregationIntervalSeconds"})}
    row = next(row for row in rows if (row["MetricName"], row["MediaStreamType"]) == ("frameRateDecoded", "Video"))
    assert (row["Count"], row["Average"], row["MediaStreamDirection"], row["MediaStreamCodec"]) == (
        3, 30, "Inbound", "H264")
