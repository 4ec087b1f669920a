"""The calling appliance as root sees it: what it tells of itself on its Unix socket, and the lock of a call.

The daemon runs without privileges and may have been taken over: its answers are limited in size and time, and a path in
its folder is opened as what it should be or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import socket
import stat
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from edgecall_image import reach
from edgecall_image.layout import CALL_LOCK, SETTINGS

__all__ = ["DAEMON_SOCKET", "CallLock", "Condition", "Network", "broker_address", "broker_answers", "condition"]

DAEMON_SOCKET: Final = Path("/run/edgecall/edgecall.sock")
ANSWER_S: Final = 5.0
MAX_ANSWER: Final = 4 << 20
MAX_SETTINGS: Final = 1 << 20
CONNECT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Network:
    """Of which families (``reach.family``) there are addresses that others reach, on links with a carrier, and default
    gateways. The addresses themselves may be others after a restart. ``answered``: a gateway did, when it was asked."""

    addresses: frozenset[str] = frozenset()
    gateways: frozenset[str] = frozenset()
    answered: bool = False

    def document(self) -> dict[str, Any]:
        return {"addresses": sorted(self.addresses), "gateways": sorted(self.gateways), "answered": self.answered}

    @classmethod
    def of(cls, document: object) -> Self | None:
        if not isinstance(document, dict):
            return None
        addresses, gateways = document.get("addresses"), document.get("gateways")
        if not isinstance(addresses, list) or not isinstance(gateways, list):
            return None
        return cls(frozenset(map(str, addresses)), frozenset(map(str, gateways)), document.get("answered") is True)


@dataclass(frozen=True, slots=True)
class Condition:
    """``devices``: how many of each kind are plugged in. ``broker``: connected, or None where none is configured.
    ``failed``: by its own account it cannot do its work. ``network``: None where that is not told."""

    devices: dict[str, int] = field(default_factory=dict)
    broker: bool | None = None
    failed: bool = False
    network: Network | None = None

    def document(self) -> dict[str, Any]:
        return {"devices": self.devices, "broker": self.broker, "failed": self.failed,
                "network": None if self.network is None else self.network.document()}

    @classmethod
    def of(cls, document: dict[str, Any]) -> Self | None:
        """What ``document`` made, also by another version; None of anything else."""
        devices, broker, failed = document.get("devices"), document.get("broker"), document.get("failed")
        if not isinstance(devices, dict) or not isinstance(broker, bool | None) or not isinstance(failed, bool):
            return None
        return cls({str(kind): count for kind, count in devices.items() if isinstance(count, int)}, broker, failed,
                   Network.of(document.get("network")))


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(str(self._path))


def condition(path: Path = DAEMON_SOCKET, gateways: Callable[[], Iterable[str]] = reach.gateways) -> Condition | None:
    """The daemon's words, and the kernel's of gateways, of which the daemon has none. None when it does not answer, or
    not as ours does. Blocking, 15 s at most."""
    try:
        devices = _document(path, "/v1/state/devices")
        net = _document(path, "/v1/state/net")
        health = _document(path, "/v1/health")
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    there: dict[str, int] = {}
    rows = devices.get("devices")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and row.get("present") is True:
            kind = str(row.get("kind"))
            there[kind] = there.get(kind, 0) + 1
    broker = net.get("brokerConnected")
    addresses = net.get("addresses")
    network = None
    if isinstance(addresses, list):
        network = Network(frozenset(map(reach.family, map(str, addresses))), frozenset(map(reach.family, gateways())))
    return Condition(there, broker if isinstance(broker, bool) else None, health.get("status") == "failed", network)


def _document(path: Path, route: str) -> dict[str, Any]:
    with contextlib.closing(_Connection(path)) as connection:
        connection.request("GET", route, headers={"Accept": "application/json", "Connection": "close"})
        response = connection.getresponse()
        content = response.read(MAX_ANSWER + 1)
    if response.status not in {200, 503} or len(content) > MAX_ANSWER:  # health answers 503 where it has failed
        raise ValueError(f"{route}: {response.status}")
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError(f"{route}: no object")  # noqa: TRY004 - it is the answer that is wrong
    return document


# --- the broker


def broker_address(path: Path = SETTINGS) -> tuple[str, int] | None:
    """Of the broker that the settings name; None where that is the daemon's own, or the settings cannot be read."""
    try:
        with path.open("rb") as file:
            mqtt = tomllib.loads(file.read(MAX_SETTINGS).decode()).get("mqtt", {})
    except (OSError, ValueError, RecursionError):
        return None
    host = mqtt.get("host", "") if isinstance(mqtt, dict) else ""
    port = mqtt.get("port", 1883) if isinstance(mqtt, dict) else 0
    if not isinstance(host, str) or not host or not isinstance(port, int) or not 1 <= port <= 65_535:
        return None
    return host, port


def broker_answers(address: tuple[str, int]) -> bool:
    """Is something there that takes a connection? Blocking, CONNECT_S for each of its addresses."""
    try:
        socket.create_connection(address, CONNECT_S).close()
    except OSError:
        return False
    return True


# --- calls


class CallLock:
    """Held alone, nobody calls; it is given back with ``close`` or with the process."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path = CALL_LOCK, *, wait: bool = False) -> Self | None:
        """None while somebody calls; with ``wait`` it returns when nobody does. Where the daemon does not run there is
        no lock and no call."""
        try:
            # not a link, and no FIFO to wait at: the folder is the daemon's
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return cls(None)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return cls(None)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:  # a time limit's, while waiting
            os.close(descriptor)
            raise
        return cls(descriptor)

    def close(self) -> None:
        """May be called twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
