"""The first boot file's words: what is the image's, what the daemon's, and the files the system reads in its stead."""

from __future__ import annotations

import configparser
import dataclasses
import datetime
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from appliance.settings.fields import Shape, fields_of
from appliance.settings.sections import Settings
from edgecall_image.firstfile import SECRETS, move_files, parsed
from edgecall_image.network import NETWORK, radio_files, run_files
from edgecall_image.shapes import checked
from edgecall_image.toml_text import toml_text

_scalars = some.one_of(
    some.booleans(), some.integers(-2**63, 2**63 - 1), some.floats(allow_nan=False), some.text(max_size=20),
    some.dates(), some.times(), some.datetimes(timezones=some.none() | some.just(datetime.UTC)))
_keys = some.text(max_size=8)
_values = some.recursive(
    _scalars, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(_keys, inner, max_size=3), max_leaves=12)


@given(some.dictionaries(_keys, _values, max_size=5))
def test_toml_is_read_back_as_it_was(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(table)) == table


def test_toml_has_no_null() -> None:
    with pytest.raises(TypeError, match="NoneType"):
        toml_text({"a": None})


_words = some.sampled_from([
    "system", "network", "wifi", "ssid", "password", "ethernet", "address", "gateway", "hostname", "time_zone",
    "ca_files", "ca_file", "proxy", "mqtt", "token_file", "accounts"])
_nested = some.recursive(
    _scalars, lambda inner: some.lists(inner, max_size=2) | some.dictionaries(_words, inner, max_size=4), max_leaves=15)
_tables = some.dictionaries(_words, _nested)


@given(some.binary(max_size=200) | _tables.map(lambda table: toml_text(table).encode()))
def test_whatever_stands_there_gives_faults_or_what_can_be_written(content: bytes) -> None:
    file = parsed(content)
    moved = move_files(file.settings, lambda _: None, Path("/d"))
    toml_text(moved.settings)
    if not file.faults:
        run_files(file.network)
        radio_files(file.network)


def _sections(cls: type[Any]) -> Iterator[type[Any]]:
    yield cls
    for one in fields_of(cls):
        if one.shape in (Shape.SECTION, Shape.SECTIONS):
            yield from _sections(one.element)


def test_every_secret_of_the_daemon_may_stand_in_the_file_and_nothing_else_is_taken_for_one() -> None:
    fields = [one for section in _sections(Settings) for one in fields_of(section)]
    assert {one.name for one in fields if one.shape is Shape.SECRET} == SECRETS
    assert not {one.key for one in fields if one.shape is not Shape.SECRET} & SECRETS


def test_the_images_own_keys_are_none_of_the_daemons() -> None:
    sections = {field.name for field in dataclasses.fields(Settings)}
    assert "system" not in sections
    (network,) = (one for one in fields_of(Settings) if one.key == "network")
    assert not {one.key for one in fields_of(network.element)} & set(NETWORK)


def test_secrets_and_files_are_named_where_they_will_lie() -> None:
    file = parsed(b'[mqtt]\npassword = "a"\nca_file = "./ca.crt"\nkey_file = "/data/config/device.key"\n'
                  b'[[sip.accounts]]\npassword = "b"\n[[sip.accounts]]\npassword_file = "credential:x"\n')
    moved = move_files(file.settings, {"ca.crt": b"ca"}.get, Path("/d"))
    assert moved.settings == {
        "mqtt": {"password_file": "/d/mqtt-password.secret", "ca_file": "/d/ca.crt",
                 "key_file": "/data/config/device.key"},
        "sip": {"accounts": [{"password_file": "/d/sip-accounts-1-password.secret"},
                             {"password_file": "credential:x"}]}}
    assert moved.files == {"mqtt-password.secret": b"a", "ca.crt": b"ca", "sip-accounts-1-password.secret": b"b"}
    assert moved.from_card == ["ca.crt"]


@pytest.mark.parametrize(("network", "words"), [
    ({"country": "de"}, "two capital letters"),
    ({"time_servers": ["not a name"]}, "host name or IP address"),
    ({"time_servers": "one"}, "must be a list"),
    ({"proxy": "ftp://proxy"}, "http://HOST:PORT"),
    ({"proxy": 'http://pr"oxy'}, "http://HOST:PORT"),
    ({"proxy": "https://proxy.example.org:3129"}, "those reached by https, are not supported"),
    ({"ethernet": {"gateway": "192.0.2.1"}}, "network.ethernet.address: is missing"),
    ({"ethernet": {"address": "192.0.2.0/24"}}, "address of the network itself"),
    ({"ethernet": {"address": "192.0.2.10/24", "gateway": "198.51.100.1"}}, "is not within 192.0.2.0/24"),
    ({"ethernet": {"address": "192.0.2.10/24", "dns": ["a.example"]}}, "must be an IP address"),
    ({"wifi": [{"password": "long enough"}]}, "network.wifi[1].ssid: is missing"),
    ({"wifi": [{"ssid": "x" * 33}]}, "32 bytes"),
    ({"wifi": [{"ssid": "x", "password": "short"}]}, "8 to 63"),
    ({"wifi": [{"ssid": "x", "hidden": 1}]}, "true or false"),
    ({"wifi": {"ssid": "x"}}, "[[network.wifi]]"),
    ({"ethernets": {}}, "did you mean ethernet?"),
])
def test_a_wrong_network_is_told(network: dict[str, Any], words: str) -> None:
    faults = list(checked(network, NETWORK, "network"))
    assert len(faults) == 1
    assert words in faults[0]


def test_no_fault_tells_a_password() -> None:
    network = {"wifi": [{"ssid": "x", "password": "canary"}], "proxy": "canary://user:canary@host"}
    assert not any("canary" in fault for fault in checked(network, NETWORK, "network"))


def test_files_of_a_fixed_address_and_of_servers() -> None:
    network = {"wlan": {"address": "2001:db8::10/64", "gateway": "2001:db8::1", "dns": ["2001:db8::53"]},
               "time_servers": ["ntp.example.org", "192.0.2.123"], "proxy": "http://proxy.example.org:3128"}
    assert not list(checked(network, NETWORK, "network"))
    files = run_files(network)
    place = configparser.ConfigParser()
    place.read_string(files["systemd/network/70-edgecall-wlan.network"])
    assert place["Match"]["Type"] == "wlan"
    assert place["Network"]["Address"] == "2001:db8::10/64"
    assert place["Route"]["Gateway"] == "2001:db8::1"
    assert "NTP=ntp.example.org 192.0.2.123" in files["systemd/timesyncd.conf.d/50-edgecall.conf"]
    assert 'https_proxy="http://proxy.example.org:3128"' in files["edgecall-image/environment"]


@pytest.mark.parametrize(("radio", "name", "lines"), [
    ({"ssid": "Office 2_a-b", "password": "twelve bottles"}, "Office 2_a-b.psk",
     ["[Security]", "Passphrase=twelve bottles"]),
    ({"ssid": "Café/..", "password": "  back\\slash"}, "=436166c3a92f2e2e.psk",
     ["[Security]", "Passphrase=\\s\\sback\\\\slash"]),
    ({"ssid": "guests"}, "guests.open", []),
    ({"ssid": "dark", "password": "ab" * 32, "hidden": True}, "dark.psk",
     ["[Security]", f"PreSharedKey={'ab' * 32}", "[Settings]", "Hidden=true"]),
])
def test_radio_networks_as_iwd_names_and_reads_them(radio: dict[str, Any], name: str, lines: list[str]) -> None:
    network = {"wifi": [radio]}
    assert not list(checked(network, NETWORK, "network"))
    (file,) = radio_files(network)
    assert (file.name, file.lines) == (name, lines)
