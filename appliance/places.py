"""Where files are: the settings file, the data folder, the socket. No imports of weight: the command line needs it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = [
    "CALL_LOCK", "SOCKET", "UPDATE_SOCKET", "call_lock_path", "config_path", "data_path", "socket_candidates",
    "socket_path",
]

SOCKET: Final = "edgecall.sock"
CALL_LOCK: Final = "call.lock"
UPDATE_SOCKET: Final = Path("/run/edgecall-update/socket")
"""Where the root service of a flashed image listens; without an image there is none."""
SYSTEM_CONFIG: Final = Path("/etc/edgecall/edgecall.toml")
SYSTEM_RUNTIME: Final = Path("/run/edgecall")


def config_path(environ: Mapping[str, str] = os.environ) -> tuple[Path, bool]:
    """The settings file, and whether it was named (a named file must exist).

    EDGECALL_CONFIG, else the first that exists of ``~/.config/edgecall/edgecall.toml`` (XDG) and
    ``/etc/edgecall/edgecall.toml``, else the former.
    """
    named = environ.get("EDGECALL_CONFIG")
    if named:
        return Path(named).expanduser().absolute(), True
    own = _xdg(environ, "XDG_CONFIG_HOME", ".config") / "edgecall" / "edgecall.toml"
    if not own.exists() and SYSTEM_CONFIG.exists():
        return SYSTEM_CONFIG, False
    return own, False


def data_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The data folder: EDGECALL_DATA, else systemd's StateDirectory, else ``~/.local/share/edgecall`` (XDG)."""
    named = environ.get("EDGECALL_DATA")
    if named:
        return Path(named).expanduser().absolute()
    state = environ.get("STATE_DIRECTORY")
    if state:
        return Path(state.split(":")[0])
    return _xdg(environ, "XDG_DATA_HOME", ".local/share") / "edgecall"


def socket_path(data_dir: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Where the daemon puts its Unix socket: systemd's RuntimeDirectory, else the data folder."""
    runtime = environ.get("RUNTIME_DIRECTORY")
    return (Path(runtime.split(":")[0]) if runtime else data_dir) / SOCKET


def call_lock_path(data_dir: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The file that is locked while somebody calls: beside the socket."""
    return socket_path(data_dir, environ).with_name(CALL_LOCK)


def socket_candidates(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Where the command line looks for it: a named data folder alone, else the user's own, then the service's."""
    own = data_path(environ) / SOCKET
    if environ.get("EDGECALL_DATA"):
        return (own,)
    return (own, SYSTEM_RUNTIME / SOCKET)


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    # the XDG base directory specification: a relative path is invalid and to be ignored
    value = environ.get(variable, "")
    if value.startswith("/"):
        return Path(value)
    home = environ.get("HOME")
    return (Path(home) if home else Path.home()) / below_home
