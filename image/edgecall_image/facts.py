"""What an appliance was told of its system and its network, on data, and what this boot makes of it: files in /run that
systemd's programs and iwd read, the name, the time zone, further authorities. Each version writes its own files, so
that data need not change with them."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from edgecall_image.durable import remove_file, replace_file
from edgecall_image.firstfile import SYSTEM, ZONES
from edgecall_image.layout import DATA, SYSTEM_FACTS
from edgecall_image.network import NETWORK, radio_files, run_files
from edgecall_image.shapes import Shape, Table, checked

__all__ = ["FACTS", "Facts", "Ground", "apply", "load", "save"]

log = logging.getLogger(__name__)

FACTS: Final = SYSTEM_FACTS.relative_to(DATA)
AUTHORITIES: Final = "config/authorities"
MOUNT_S: Final = 20.0


def _bind(source: Path, target: Path) -> None:
    if os.path.ismount(target):  # we were started a second time
        subprocess.run(["umount", str(target)], timeout=MOUNT_S, check=True)
    subprocess.run(["mount", "--bind", str(source), str(target)], timeout=MOUNT_S, check=True)


class Ground(NamedTuple):
    """Where all this is; a test has a place of its own."""

    data: Path = DATA
    run: Path = Path("/run")
    radios: Path = Path("/var/lib/iwd")
    authorities: Path = Path("/etc/ssl/certs/ca-certificates.crt")
    name: Callable[[str], None] = socket.sethostname
    bind: Callable[[Path, Path], None] = _bind


@dataclass(frozen=True, slots=True)
class Facts:
    system: Table = field(default_factory=dict)
    network: Table = field(default_factory=dict)


def load(data: Path) -> Facts:
    """What cannot be used is passed over, and logged: a device without its network's facts still does DHCP."""
    path = data / FACTS
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return Facts()
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be used: %s", path, error)
        return Facts()
    if not isinstance(document, dict):
        document = {}
    return Facts(_usable(document, "system", SYSTEM), _usable(document, "network", NETWORK))


def _usable(document: Mapping[str, object], name: str, shapes: Mapping[str, Shape]) -> Table:
    table = document.get(name, {})
    if not isinstance(table, dict):
        return {}
    faults = {key: list(checked({key: value}, shapes, name)) for key, value in table.items()}
    for words in faults.values():
        for fault in words:
            log.warning("passed over: %s", fault)
    return {key: value for key, value in table.items() if not faults[key]}


def save(data: Path, facts: Facts) -> None:
    """For root alone: it holds the passwords of radio networks. Raises OSError."""
    document = {"system": dict(facts.system), "network": dict(facts.network)}
    replace_file(data / FACTS, json.dumps(document, ensure_ascii=False).encode())


def apply(facts: Facts, ground: Ground) -> None:
    """At every boot, before the programs that read it are started. What fails is logged, and the rest is done."""
    for step in (_write_run_files, _write_radios, _set_zone, _set_name, _trust):
        try:
            step(facts, ground)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("%s: %s", step.__name__.strip("_").replace("_", " "), error)


def _write_run_files(facts: Facts, ground: Ground) -> None:
    for name, text in run_files(facts.network).items():
        path = ground.run / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.parent.chmod(0o755)  # whatever our umask is: the programs that read it are not root
        path.touch(mode=0o600)
        path.write_text(text)
        path.chmod(0o600 if path.name == "environment" else 0o644)  # a proxy's address may hold a password


def _write_radios(facts: Facts, ground: Ground) -> None:
    wanted = {file.name: file.lines for file in radio_files(facts.network)}
    for path in (path for pattern in ("*.psk", "*.open") for path in ground.radios.glob(pattern)):
        if path.name not in wanted:
            remove_file(path)
    for name, lines in wanted.items():
        path = ground.radios / name
        try:
            there = path.read_text().splitlines()
        except (OSError, ValueError):
            there = None
        if there is None or not set(lines) <= set(there):  # iwd adds what it derives, and that is worth keeping
            replace_file(path, "".join(f"{line}\n" for line in lines).encode())


def _set_zone(facts: Facts, ground: Ground) -> None:
    link, zone = ground.data / "system" / "localtime", ZONES / facts.system.get("time_zone", "Etc/UTC")
    if link.is_symlink() and link.readlink() == zone:
        return
    link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    draft = link.with_name(".localtime.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(zone)
    draft.replace(link)


def _set_name(facts: Facts, ground: Ground) -> None:
    """systemd has taken the name that stood there when it started."""
    path = ground.data / "system" / "hostname"
    name = facts.system.get("hostname")
    if name is not None and path.read_text().strip() != name:
        replace_file(path, f"{name}\n".encode(), 0o644)
        ground.name(name)


def _trust(facts: Facts, ground: Ground) -> None:
    own = [ground.data / AUTHORITIES / name for name in facts.system.get("ca_files", ())]
    if not own:
        return
    bundle = ground.run / "edgecall-image" / "ca-certificates.crt"
    bundle.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    bundle.write_bytes(b"\n".join(path.read_bytes() for path in (ground.authorities, *own)) + b"\n")
    bundle.chmod(0o644)
    ground.bind(bundle, ground.authorities)
