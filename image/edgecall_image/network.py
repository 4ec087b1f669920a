"""The network of an appliance: what ``[network]`` of a first boot file says, and the files in which systemd-networkd,
systemd-timesyncd and iwd read it. Pure; ``facts`` writes the files."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from edgecall_image.shapes import Shape, Table, a_list, a_table, a_text, checked, tables

__all__ = ["NETWORK", "RadioFile", "radio_files", "run_files"]

SSID_BYTES: Final = 32
_LABEL: Final = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_PASSPHRASE: Final = re.compile(r"[ -~]{8,63}")
_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
_PLAIN_SSID: Final = re.compile(r"[A-Za-z0-9_ -]+")


def _host(value: str) -> str:
    return "" if _HOST.fullmatch(value) or _is_address(value) else "must be a host name or IP address"


def _address(value: str) -> str:
    return "" if _is_address(value) else "must be an IP address, such as 192.0.2.1"


def _interface(value: str) -> str:
    try:
        given = ipaddress.ip_interface(value)
    except ValueError:
        given = None
    if given is None or "/" not in value:
        return "must be an address with the length of its network's prefix, such as 192.0.2.10/24"
    if given.version == 4 and given.network.prefixlen < 31 and given.ip in (
            given.network.network_address, given.network.broadcast_address):
        return "is the address of the network itself, or that for all in it"
    return ""


def _country(value: str) -> str:
    return "" if re.fullmatch("[A-Z]{2}", value) else "must be a country's code of ISO 3166-1, two capital letters"


def _proxy(value: str) -> str:
    try:
        parts = urlsplit(value)
        right = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        right = False
    return "" if right and value.isascii() and value.isprintable() and not set(value) & set(" \"'\\") else (
        "must be http://HOST:PORT: other proxies, also those reached by https, are not supported")


def _ssid(value: str) -> str:
    return "" if 1 <= len(value.encode()) <= SSID_BYTES and "\0" not in value else f"must be of 1 to {SSID_BYTES} bytes"


def _password(value: str) -> str:
    return "" if _PASSPHRASE.fullmatch(value) or _KEY.fullmatch(value) else (
        "must be of 8 to 63 characters of ASCII, or the key itself in 64 hexadecimal digits")


_PLACE: Final[Mapping[str, Shape]] = {
    "address": a_text(_interface), "gateway": a_text(_address), "dns": a_list(_address),
}


def _place(table: Table, key: str) -> Iterator[str]:
    yield from checked(table, _PLACE, key, required=("address",))
    if "gateway" in table and not _faulty(table, "address", _interface) and not _faulty(table, "gateway", _address):
        given, gateway = ipaddress.ip_interface(table["address"]), ipaddress.ip_address(table["gateway"])
        if gateway not in given.network:
            yield f"{key}.gateway: {gateway} is not within {given.network}"


def _faulty(table: Table, key: str, rule: Callable[[str], str]) -> bool:
    value = table.get(key)
    return not isinstance(value, str) or bool(rule(value))


def _radio(table: Table, key: str) -> Iterator[str]:
    yield from checked(table, {"ssid": a_text(_ssid), "password": a_text(_password, secret=True), "hidden": bool}, key,
                       required=("ssid",))


NETWORK: Final[Mapping[str, Shape]] = {
    "country": a_text(_country), "time_servers": a_list(_host), "proxy": a_text(_proxy, secret=True),
    "ethernet": a_table(_place), "wlan": a_table(_place), "wifi": tables(_radio),
}
"""The keys of ``[network]`` that are the image's; what else stands there is the daemon's."""


def run_files(network: Table) -> Mapping[str, str]:
    """Files by their paths below /run, of a table that NETWORK found nothing wrong with."""
    files = {}
    for kind, type_, metric in (("ethernet", "ether\nKind=!*", 100), ("wlan", "wlan", 600)):
        if kind in network:
            files[f"systemd/network/70-edgecall-{kind}.network"] = _static(network[kind], type_, metric)
    if network.get("time_servers"):
        files["systemd/timesyncd.conf.d/50-edgecall.conf"] = f"[Time]\nNTP={' '.join(network['time_servers'])}\n"
    if "proxy" in network:
        proxy = network["proxy"]
        files["edgecall-image/environment"] = (
            f'http_proxy="{proxy}"\nhttps_proxy="{proxy}"\nno_proxy="localhost,127.0.0.1,::1"\n')
    country = f"Country={network['country']}\n" if "country" in network else ""
    files["edgecall-image/iwd.conf"] = f"[General]\n{country}"
    return files


def _static(place: Table, type_: str, metric: int) -> str:
    lines = ["[Match]", f"Type={type_}", "", "[Link]", "RequiredForOnline=no", "", "[Network]", "DHCP=no",
             "MulticastDNS=yes", f"Address={place['address']}"]
    lines += [f"DNS={server}" for server in place.get("dns", ())]
    if "gateway" in place:
        lines += ["", "[Route]", f"Gateway={place['gateway']}", f"Metric={metric}"]
    return "\n".join(lines) + "\n"


class RadioFile(NamedTuple):
    """A network that iwd is to join, in its folder (iwd.network(5))."""

    name: str
    lines: Sequence[str]
    """All that we say; iwd adds what it derives of it."""


def radio_files(network: Table) -> Sequence[RadioFile]:
    return [_radio_file(radio) for radio in network.get("wifi", ())]


def _radio_file(radio: Table) -> RadioFile:
    ssid, password = radio["ssid"], radio.get("password", "")
    stem = ssid if _PLAIN_SSID.fullmatch(ssid) else f"={ssid.encode().hex()}"
    lines = []
    if password:
        key = "PreSharedKey" if _KEY.fullmatch(password) else "Passphrase"
        lines += ["[Security]", f"{key}={_escaped(password)}"]
    if radio.get("hidden", False):
        lines += ["[Settings]", "Hidden=true"]
    return RadioFile(f"{stem}.{'psk' if password else 'open'}", lines)


def _escaped(value: str) -> str:
    """As ell's settings files have it: a backslash begins an escape, and blanks in front are passed over."""
    value = value.replace("\\", "\\\\")
    blanks = len(value) - len(value.lstrip(" "))
    return "\\s" * blanks + value[blanks:]


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True
