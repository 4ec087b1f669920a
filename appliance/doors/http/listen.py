"""Sockets the door listens on, and who holds one that is taken."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Final

from appliance.errors import EdgecallError, SettingsError

__all__ = ["PortBusyError", "bind_tcp", "bind_unix", "holder_of"]

_LISTEN: Final = "0A"  # TCP_LISTEN in /proc/net/tcp
_SUN_PATH: Final = 107  # bytes of sockaddr_un.sun_path without its NUL (unix(7))
BACKLOG: Final = 128


class PortBusyError(EdgecallError, OSError):
    """The port is taken; the message names the holder where the system tells."""

    sub_code = "portBusy"


def bind_tcp(host: str, port: int) -> socket.socket:
    """A bound TCP socket. Blocking (``/proc`` is searched when the port is taken): call it off the loop.

    Raises PortBusyError, or SettingsError when the address is not one of ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise SettingsError("settings", [f"http.listen {host!r} is no address: {error}"]) from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortBusyError(
                f"Port {port} on {host} is held by {holder_of(port)}. End it, or take another (--port, http.port).",
                sub_code="portBusy", port=port) from error
        if error.errno == errno.EACCES:
            raise SettingsError("settings", [f"http.port {port} needs a privilege; use one above 1023"]) from error
        raise SettingsError("settings", [f"http.listen {host}:{port} cannot be used: {error.strerror}"]) from error
    sock.setblocking(False)
    return sock


def bind_unix(path: Path) -> socket.socket:
    """A listening Unix socket of mode 0660. A socket file that nobody serves any more is replaced.

    Raises PortBusyError when another appliance serves it, SettingsError when the path cannot be used.
    """
    if len(os.fsencode(path)) > _SUN_PATH:
        raise SettingsError("settings", [f"data folder too deep for a socket: {path} has over {_SUN_PATH} bytes"])
    if path.exists() and _served(path):
        raise PortBusyError(f"Another appliance already runs on {path}. End it, or choose another folder (--data).",
                            sub_code="portBusy")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        os.fchmod(sock.fileno(), 0o660)  # before bind: on Linux the file is born with this mode, never wider
        sock.bind(os.fspath(path))
        path.chmod(0o660)  # what the umask took from the group
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise SettingsError("settings", [f"the socket {path} cannot be made: {error.strerror}"]) from error
    sock.setblocking(False)
    return sock


def _served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except OSError:
            return False
    return True


def holder_of(port: int) -> str:
    """``python3 (pid 4711)`` for the process that listens on a TCP port, from ``/proc``."""
    inodes: dict[str, str] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text("ascii").splitlines()[1:]
        except OSError:  # IPv6 switched off
            continue
        for row in rows:
            words = row.split()
            if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                inodes[f"socket:[{words[9]}]"] = words[7]
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and _holds(process, inodes):
            return f"{_name(process)} (pid {process.name})"
    if inodes:
        return f"a process of user id {next(iter(inodes.values()))}"
    return "another process"


def _holds(process: Path, inodes: dict[str, str]) -> bool:
    try:
        return any(os.fspath(entry.readlink()) in inodes for entry in (process / "fd").iterdir())
    except OSError:  # not ours to see, or gone meanwhile
        return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text("utf-8", "replace").strip() or "a process"
    except OSError:
        return "a process"
