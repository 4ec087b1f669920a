"""The parts of the update service that decide by words: versions, addresses, RAUC's errors, and what lies on data."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecall_image.origins import Origins, OriginsError
from edgecall_image.rauc import cause_of
from edgecall_image.record import Job, Record, Result
from edgecall_image.versions import Version, minimum_version, own_version

# --- versions

ORDER = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11",
         "1.0.0-rc.1", "1.0.0", "1.0.1", "1.2.0", "1.10.0", "2.0.0-0", "2.0.0"]
"""The first eight as Semantic Versioning 2.0.0, 11.4, gives them."""


def test_versions_are_ordered_by_precedence() -> None:
    mixed = ORDER.copy()
    random.Random(8).shuffle(mixed)
    assert sorted(mixed, key=Version.parse) == ORDER
    assert not Version.parse("1.0.0+a") < Version.parse("1.0.0+b")


@pytest.mark.parametrize("text", ["", "1", "1.0", "1.0.0.0", "v1.0.0", "01.0.0", "1.0.0-", "1.0.0-a..b", "1.0.0 ",
                                  "\N{ARABIC-INDIC DIGIT ONE}.0.0"])
def test_what_is_no_version_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is no version"):
        Version.parse(text)


def test_the_minimum_is_read_from_raucs_own_configuration(tmp_path: Path) -> None:
    conf = tmp_path / "system.conf"
    conf.write_text("[system]\ncompatible=edgecall-uml-amd64\nmin-bundle-version=1.2.0\n[slot.rootfs.0]\nbootname=A\n")
    assert minimum_version(conf) == Version.parse("1.2.0")
    conf.write_text("[system]\ncompatible=x\n")
    assert minimum_version(conf) is None
    conf.write_text("min-bundle-version=1.2.0\n")
    with pytest.raises(ValueError, match="cannot be understood"):
        minimum_version(conf)
    assert own_version(tmp_path / "none") == "unknown"


# --- where updates may come from

OURS = Origins(("https://updates.example.org/edgecall/", "http://127.0.0.1:8080/"))


@pytest.mark.parametrize("url", [
    "https://updates.example.org/edgecall/1.3.0.raucb", "https://updates.example.org:443/edgecall/a/b.raucb?sig=x",
    "http://127.0.0.1:8080/x"])
def test_what_lies_below_an_origin_is_allowed(url: str) -> None:
    OURS.check(url)


@pytest.mark.parametrize("url", [
    "", "https://", "https://updates.example.org/other/x", "https://updates.example.org/edgecall",
    "http://updates.example.org/edgecall/x", "https://updates.example.org.evil.example/edgecall/x",
    "https://updates.example.org@evil.example/edgecall/x", "https://u:p@updates.example.org/edgecall/x",
    "https://updates.example.org/edgecall/../other/x", "https://updates.example.org/edgecall/%2e%2e/other/x",
    "https://updates.example.org/edgecall/a%2f..%2f..%2fother/x", "https://updates.example.org/edgecall/%2F%2E/x",
    "https://updates.example.org/edgecall/..%5cx", "https://updates.example.org:8443/edgecall/x",
    "https://updates.example.org/edgecall/x#y", "https://updates.example.org/edgecall/a b", "file:///etc/passwd",
    "https://updates.example.org/edgecall/\n", "https://[::1/edgecall/x", "https://updates.example.org:0/edgecall/x",
    "http://127.0.0.1:8081/x", "https://updates.example.org/edgecall/" + "x" * 2048])
def test_nothing_else_is(url: str) -> None:
    with pytest.raises(OriginsError):
        OURS.check(url)


@given(st.text(max_size=60))
def test_any_text_is_judged_and_none_crashes(text: str) -> None:
    for url in (text, f"https://updates.example.org/edgecall/{text}"):
        try:
            OURS.check(url)
        except OriginsError as error:
            assert str(error)


def test_the_settings_say_where_from(tmp_path: Path) -> None:
    path = tmp_path / "edgecall.toml"
    assert Origins.read(path) == Origins()
    path.write_text('[update]\norigins = ["https://a.example/"]\nca_file = "/data/ca.pem"\nwindow = ["02:00-05:00"]\n')
    assert Origins.read(path) == Origins(("https://a.example/",), "/data/ca.pem")
    path.write_text("[device]\nid = 'x-1'\n")
    with pytest.raises(OriginsError, match="nowhere"):
        Origins.read(path).check("https://a.example/x")


@pytest.mark.parametrize("text", ["[update\n", "update = 3\n", "[update]\norigins = 3\n", "[update]\norigins = [3]\n",
                                  "[update]\nca_file = false\n", "\xff"])
def test_settings_with_a_fault_allow_nothing_and_say_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "edgecall.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(OriginsError, match="fault"):
        Origins.read(path)


# --- RAUC's words


@pytest.mark.parametrize(("words", "code"), [
    ("signature verification failed: Verify error: unable to get local issuer certificate", "signature"),
    ("signature verification failed: Verify error: unsuitable certificate purpose", "signature"),
    ("Failed to check bundle identifier: Invalid identifier. Did you pass a valid RAUC bundle?", "signature"),
    ("Version mismatch: Expected at least '1.2.0' but bundle manifest has '1.1.9'", "tooOld"),
    ("Compatible mismatch: Expected 'edgecall-rpi-arm64' but bundle manifest has 'other'", "incompatible"),
    ("Failed to stream bundle http://127.0.0.1:1/x: failed to configure streaming: range requests not supported by "
     "server", "noRange"),
    ("Failed to stream bundle http://127.0.0.1:1/x: failed to configure streaming: server not responding", "network"),
    ("Failed to stream bundle http://127.0.0.1:1/x: not found: unexpected HTTP response code 404", "network"),
    ("Failed mounting bundle: failed to resolve 'nbd' netlink family - BLK_DEV_NBD not enabled in kernel?", "failed"),
    ("Installation error: Failed updating slot rootfs.1: Failed splicing data: Error writing to file descriptor: "
     "No space left on device", "noSpace"),
    ("Installation error: Failed updating slot rootfs.1: Error reading: Input/output error", "failed"),
    ("Failed to contact rauc service: Already processing a different method", "busy"),
])
def test_raucs_errors_have_a_code_each(words: str, code: str) -> None:
    assert cause_of(words) == code


# --- on data


def test_a_job_and_its_end_outlive_the_process(tmp_path: Path) -> None:
    record = Record(tmp_path / "update")
    assert (record.job(), record.result()) == (None, None)
    job = Job("j-1", "B", "pending", "https://a.example/x", "1.3.0", {"devices": {"camera": 1}})
    record.set_job(job)
    assert Record(tmp_path / "update").open_job() == job
    result = Result("j-1", "rolledBack", "1.2.0", "unhealthy", "camera")
    record.end(result)
    assert (record.job(), record.result()) == (None, result)


def test_two_ends_of_one_job_have_two_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The appliance tells by it what it has told before: an end that came within the second of the last was lost."""
    ends = []
    for at in (1_796_083_200.250, 1_796_083_200.251):
        monkeypatch.setattr("edgecall_image.record.time.time", lambda at=at: at)
        ends.append(Result("j-1", "failed", None).at)
    assert ends == ["2026-12-01T00:00:00.250Z", "2026-12-01T00:00:00.251Z"]


def test_a_cut_between_result_and_job_is_an_end(tmp_path: Path) -> None:
    record = Record(tmp_path)
    record.set_job(Job("j-1", "B", "rebooting"))
    kept = (tmp_path / "job.json").read_bytes()
    record.end(Result("j-1", "succeeded", "1.3.0"))
    (tmp_path / "job.json").write_bytes(kept)
    assert record.open_job() is None
    record.set_job(Job("j-2", "A", "installing"))
    assert record.open_job() is not None


@pytest.mark.parametrize("document", [
    b"", b"{", b"[]", b"null", b'{"id": "x"}', b'{"id": 3, "slot": "B", "stage": "pending"}',
    b'{"id": "x", "slot": "C", "stage": "pending"}', b'{"id": "x", "slot": "B", "stage": "later"}',
    b'{"id": "x", "slot": "B", "stage": "pending", "before": 3}', b"\xff\xfe", b"[" * 70_000, b" " * 70_000])
def test_a_damaged_file_counts_as_none(tmp_path: Path, document: bytes) -> None:
    (tmp_path / "job.json").write_bytes(document)
    assert Record(tmp_path).open_job() is None


def test_fields_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    later: dict[str, Any] = {"id": "x", "slot": "B", "stage": "pending", "shard": 7}
    (tmp_path / "job.json").write_text(json.dumps(later))
    job = Record(tmp_path).open_job()
    assert job is not None
    assert job.version is None
