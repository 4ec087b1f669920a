"""Opens what the operator's settings listen on, and nothing else: the sets of /etc/nftables.conf, filled anew at each
change of the settings."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from edgecall_image.layout import SETTINGS

__all__ = ["Ports", "main", "open_ports", "rules"]

HTTP_PORT: Final = 8080  # where [http] says nothing else
NFT_S: Final = 20.0


class Ports(NamedTuple):
    tcp: frozenset[int]
    udp: frozenset[int]


def open_ports(settings: Mapping[str, Any]) -> Ports:
    """Of ``http`` where it listens on more than this device, and of accounts of telephony with a port of their own.
    What the daemon would refuse of the settings opens nothing."""
    tcp: list[Any] = []
    udp: list[Any] = []
    http = _table(settings.get("http"))
    if not _is_loopback(http.get("listen", "127.0.0.1")):
        tcp.append(http.get("port", HTTP_PORT))
    accounts = _table(settings.get("sip")).get("accounts")
    for account in map(_table, accounts if isinstance(accounts, list) else []):
        (udp if account.get("transport", "tls") == "udp" else tcp).append(account.get("port", 0))
    return Ports(_numbers(tcp), _numbers(udp))


def rules(ports: Ports) -> str:
    """A transaction of nft: all of it or nothing."""
    lines = []
    for name, numbers in (("tcp_open", ports.tcp), ("udp_open", ports.udp)):
        lines.append(f"flush set inet edgecall {name}")
        if numbers:
            lines.append(f"add element inet edgecall {name} {{ {', '.join(map(str, sorted(numbers)))} }}")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str], load: Callable[[str], None] | None = None) -> int:
    """``firewall``: exit status 1 where the rules could not be loaded; those that are there stay."""
    try:
        settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"edgecall: no port is opened: {SETTINGS}: {error}", file=sys.stderr)
        settings = {}
    try:
        (load or _load)(rules(open_ports(settings)))
    except (OSError, subprocess.SubprocessError) as error:
        print(f"edgecall: the ports that the settings name are not opened: {error}", file=sys.stderr)
        return 1
    return 0


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_loopback(listen: Any) -> bool:
    if not isinstance(listen, str) or listen == "localhost":
        return True
    try:
        return ipaddress.ip_address(listen).is_loopback
    except ValueError:
        return True


def _numbers(ports: Iterable[Any]) -> frozenset[int]:
    return frozenset(port for port in ports if type(port) is int and 0 < port < 65536)


def _load(text: str) -> None:
    result = subprocess.run(["nft", "--file", "-"], input=text, capture_output=True, text=True, timeout=NFT_S,
                            check=False)
    if result.returncode:
        raise OSError(result.stderr.strip())
