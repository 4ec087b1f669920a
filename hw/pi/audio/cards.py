"""Which sound devices there are, by identities that outlive a start and a replug, and in which order they are wanted.

Reads ``/proc/asound`` and ``/sys``; card numbers, which depend on who came first, leave this module only in the path
of a node.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from hw.api import Kind

__all__ = ["SERVER", "Endpoint", "endpoints", "rank"]

SERVER: Final = "server:pipewire"
"""The session's sound server, where one runs: it mixes us with other programs. Its two directions may be of two cards,
and what waits on the way to it has to be bent to its size even where they are not."""

_USB: Final = re.compile(r"\d+-\d+(\.\d+)*")
_PCM: Final = re.compile(r"(\d+)-(\d+): ([^:]*) :")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One direction of one device. ``clock`` is equal where two share a clock: those of one card."""

    kind: Kind
    id: str  # usb:PORT or alsa:CARD, and /DEVICE where that is not 0; or ``SERVER``
    name: str
    device: str  # what ALSA opens
    node: str  # /dev/snd/…; empty for the server
    clock: str
    mixer: str  # the card of its mixer; empty for the server


def endpoints(
    proc: str = "/proc/asound", sysfs: str = "/sys", environment: Mapping[str, str] = os.environ
) -> list[Endpoint]:
    """Everything that records or plays, cards in the order of their identities, the server last."""
    found = []
    try:
        lines = (Path(proc) / "pcm").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        match = _PCM.match(line)
        if match is None:
            continue
        card, device = int(match[1]), int(match[2])
        try:
            name = (Path(proc) / f"card{card}" / "id").read_text().strip()
        except OSError:  # unplugged while we look
            continue
        base = _identity(Path(sysfs) / "class/sound" / f"card{card}", name)
        for kind, word, letter in ((Kind.MICROPHONE, "capture", "c"), (Kind.SPEAKER, "playback", "p")):
            if re.search(rf": {word} \d", line):
                found.append(Endpoint(
                    kind, base + (f"/{device}" if device else ""), _title(Path(proc), card, name),
                    f"hw:CARD={name},DEV={device}", f"/dev/snd/pcmC{card}D{device}{letter}", base, f"hw:{name}"))
    found.sort(key=lambda one: one.id)
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and (Path(runtime) / "pipewire-0").exists():
        found += [Endpoint(kind, SERVER, "PipeWire", "pipewire", "", f"{SERVER}/{kind.value}", "")
                  for kind in (Kind.MICROPHONE, Kind.SPEAKER)]
    return found


def _identity(card: Path, name: str) -> str:
    """The port of a USB card, whatever else is plugged; the card's own name of one that is soldered."""
    for part in reversed(Path(os.path.realpath(card / "device")).parts):
        if _USB.fullmatch(part):
            return f"usb:{part}"
    return f"alsa:{name}"


def _title(proc: Path, card: int, name: str) -> str:
    try:
        lines = (proc / "cards").read_text().splitlines()
    except OSError:
        return name
    for line in lines:
        number, _, rest = line.strip().partition(" ")
        if number == str(card) and " - " in rest:
            return rest.partition(" - ")[2].strip() or name
    return name


def rank(found: Sequence[Endpoint], kind: Kind, wanted: Sequence[str], selected: str = "") -> list[Endpoint]:
    """Those of ``kind`` that ``wanted`` names, best first; before them the one with the id ``selected``, named or not.
    A pattern (``*``, ``?``) is matched with id and name."""
    ranked = []
    for one in found:
        if one.kind is not kind:
            continue
        if selected and one.id == selected:
            ranked.append((-1, one))
            continue
        at = next((number for number, pattern in enumerate(wanted)
                   if fnmatchcase(one.id.lower(), pattern.lower()) or fnmatchcase(one.name.lower(), pattern.lower())),
                  None)
        if at is not None:
            ranked.append((at, one))
    ranked.sort(key=lambda row: row[0])  # stable: of one pattern in the order found
    return [one for _, one in ranked]
