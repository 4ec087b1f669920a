"""The accounts of the settings: what is taken, and what is wrong in which words."""

from __future__ import annotations

import pytest

from tests.unit.test_settings_file import faults_of, settings_of

ACCOUNT = "[[sip.accounts]]\nname = 'pbx'\naddress = 'sip:1001@pbx.example.org'\n"
HERE = __file__  # a file that is there
PLAIN = "[sip]\nrequire_encryption = false\n"


def test_an_account_needs_a_name_and_an_address_and_nothing_more() -> None:
    (account,) = settings_of(ACCOUNT).sip.accounts
    assert (account.transport, account.register, account.servers, account.trust_caller_id) == ("tls", True, (), False)
    assert settings_of(ACCOUNT).sip.require_encryption


@pytest.mark.parametrize("servers", ["'sbc.example.org'", "['a.example.org:5070', '192.0.2.1', '[2001:db8::1]:5060']"])
def test_servers_may_be_one_or_several(servers: str) -> None:
    (account,) = settings_of(f"{ACCOUNT}servers = {servers}\n").sip.accounts
    assert 1 <= len(account.servers) <= 3


@pytest.mark.parametrize(("text", "fault"), [
    ("[[sip.accounts]]\nname = 'pbx'\n", "address: is missing"),
    (ACCOUNT.replace("sip:1001@pbx.example.org", "pbx.example.org"), "must be sip:USER@HOST"),
    (ACCOUNT.replace("sip:1001@pbx.example.org", "sip:1001@pbx.example.org;lr"), "must be sip:USER@HOST"),
    (ACCOUNT + "transport = 'udp'\n", "transport: must be tls or wss"),
    (ACCOUNT + "transport = 'ws'\n", "transport: must be tls or wss"),
    (ACCOUNT + "transport = 'wss'\nport = 5061\n", "port: has no effect over a WebSocket"),
    (ACCOUNT + "path = 'ws'\n", "path"),
    (ACCOUNT + "encryption = 'none'\n", "encryption: is none, which sip.require_encryption forbids"),
    (ACCOUNT + "encryption = 'zrtp'\n", "encryption"),
    (ACCOUNT + "transport = 'carrier pigeon'\n", "transport"),
    (ACCOUNT + "servers = 'sip:sbc.example.org'\n", "must be HOST[:PORT]"),
    (ACCOUNT + "servers = 'sbc.example.org:99999'\n", "must be HOST[:PORT]"),
    (ACCOUNT + "port = 5061\n", "cert_file: is missing; who connects"),
    (f"{ACCOUNT}cert_file = '{HERE}'\n", "key_file: is missing"),
    (f"{ACCOUNT}key_file = '{HERE}'\n", "cert_file: is missing; key_file"),
    (f"{PLAIN}{ACCOUNT}transport = 'tcp'\ncert_file = '{HERE}'\nkey_file = '{HERE}'\n", "cert_file: has no"),
    (ACCOUNT + "trusted_names = ['sbc.example.org']\n", "trusted_names: has no effect without a port"),
    (ACCOUNT + "register = false\n", "trusted: is missing"),
    (ACCOUNT + "trusted = ['192.0.2.1/24']\n", "must be a network"),
    (ACCOUNT + "expires_s = 5\n", "expires_s"),
    (ACCOUNT + ACCOUNT, "'pbx' is there already"),
    (f"{PLAIN}{ACCOUNT}transport = 'udp'\nca_file = '/dev/null'\n", "ca_file")])
def test_what_is_wrong_is_said(text: str, fault: str) -> None:
    found = faults_of(text)
    assert any(fault in one for one in found), found


def test_a_trunk_may_be_known_by_its_certificate() -> None:
    (account,) = settings_of(
        f"{ACCOUNT}register = false\nport = 5061\ncert_file = '{HERE}'\nkey_file = '{HERE}'\n"
        "trusted_names = ['sbc.example.org']\n").sip.accounts
    assert (account.port, account.trusted_names, account.trusted) == (5061, ("sbc.example.org",), ())


def test_without_encryption_any_transport_will_do() -> None:
    for transport in ("udp", "tcp", "tls", "ws", "wss"):
        text = f"{PLAIN}{ACCOUNT}transport = '{transport}'\n"
        assert settings_of(text).sip.accounts[0].transport == transport
