"""The declared statistics: whole in themselves, and a schema that refuses what is not declared."""

from __future__ import annotations

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from appliance.faces.statistics import definitions, dictionary
from appliance.media.dtls_seam import CIPHERS
from appliance.media.stats import CIPHERS as IANA
from appliance.vocabulary import Json
from appliance.webrtc_stats import COMMON, TYPES, StatsType, Unit
from tests.support.reports import faults

CERTIFICATE: Json = {
    "type": "certificate", "id": "c", "timestamp": 1.7e12, "fingerprint": "AB:CD", "fingerprintAlgorithm": "sha-256",
    "base64Certificate": "MII="}


@pytest.mark.parametrize("one", TYPES, ids=lambda one: one.key)
def test_a_type_is_declared_once_with_names_of_the_field(one: StatsType) -> None:
    names = [member.name for member in (*COMMON, *one.members)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][A-Za-z0-9]+", name) for name in names)
    Draft202012Validator.check_schema(dictionary(one))


def test_every_type_and_kind_is_declared_once() -> None:
    assert len({one.key for one in TYPES}) == len(TYPES) == len(definitions())


@pytest.mark.parametrize("one", TYPES, ids=lambda one: one.key)
def test_names_agree_with_units(one: StatsType) -> None:
    """W3C names tell their unit: a time is seconds, a rate bits per second, a time stamp milliseconds."""
    for member in one.members:
        name = member.name
        if name.endswith("Timestamp"):
            assert member.unit is Unit.MILLISECONDS, name
        elif re.search(r"Bitrate$", name):
            assert member.unit is Unit.BITS_PER_SECOND, name
        elif re.search(r"(Time|Delay|Duration|jitter)$", name) and "Squared" not in name:
            assert member.unit is Unit.SECONDS, name
        elif re.search(r"^(bytes|headerBytes|retransmittedBytes)", name):
            assert member.unit is Unit.BYTES, name
        elif re.search(r"^packets(Sent|Received|Discarded)$", name):
            assert member.unit is Unit.PACKETS, name
        elif re.search(r"Samples", name) and "Duration" not in name and "Events" not in name and "Count" not in name:
            assert member.unit is Unit.SAMPLES, name


def test_a_whole_dictionary_is_taken_and_everything_else_refused() -> None:
    def broken(**changes: Any) -> list[str]:
        return faults([{name: value for name, value in (CERTIFICATE | changes).items() if value is not None}])

    assert broken() == []
    assert "unknown type" in broken(type="cert")[0]
    assert "'fingerprint' is a required property" in broken(fingerprint=None)[0]
    assert "'more' was unexpected" in broken(more=1)[0]
    assert "not of type" in broken(timestamp="now")[0]
    assert "two dictionaries" in faults([CERTIFICATE, CERTIFICATE])[0]


def test_counts_are_whole_shares_are_shares_and_references_lead_on() -> None:
    pair: Json = {
        "type": "remote-inbound-rtp", "id": "r", "timestamp": 1.7e12, "kind": "audio", "ssrc": 1, "transportId": "c",
        "codecId": "c", "localId": "c", "packetsLost": -1, "jitter": 0.01, "fractionLost": 0.5,
        "packetsReceived": 9,
        "totalRoundTripTime": 0.1, "roundTripTimeMeasurements": 1}
    assert faults([CERTIFICATE, pair]) == []
    for changes, words in (({"fractionLost": 1.5}, "maximum"), ({"jitter": -1}, "minimum"),
                           ({"roundTripTimeMeasurements": 1.5}, "integer"), ({"localId": "x"}, "no dictionary"),
                           ({"kind": "data"}, "not one of")):
        assert words in faults([CERTIFICATE, pair | changes])[0]


def test_every_cipher_that_is_negotiated_has_its_registered_name() -> None:
    assert set(IANA) == set(CIPHERS.decode().split(":"))
