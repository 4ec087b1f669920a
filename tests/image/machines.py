"""What an image runs on here: User Mode Linux, or QEMU as a 64-bit ARM computer.

To either, systemd's credentials are handed from outside: the agent and a unit that runs it. They are all that a test
adds to a boot, and no file of an image knows of them.
"""

from __future__ import annotations

import base64
import os
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tests.image.firmware import Card, Choice, Unbootable

__all__ = ["Machine", "UserModeLinux", "Virt", "allow_mappings", "memory_folder"]

MEMORY_MIB: Final = 640
MAPPINGS: Final = 1 << 20
COMMAND_LINE: Final = 4000
"""Bytes; the kernel of User Mode Linux cuts off what comes after 4096."""
UNIT: Final = "a.service"
"""So short since QEMU takes names of 55 characters, which ``opt/io.systemd.credentials/systemd.extra-unit.`` and this
are: systemd's debug generator makes a unit of the credential of that name."""
WANTS: Final = f"systemd.wants={UNIT}"

_UNIT: Final = """\
[Unit]
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
[Service]
LoadCredential=agent
ExecStart=/usr/bin/python3 -I -c "import zlib; exec(zlib.decompress(open('%d/agent', 'rb').read()))" /dev/ttyS0
"""
MODULES: Final = ("lib/crypto/libsha256.ko", "crypto/sha256_generic.ko")
"""Of the kernel of User Mode Linux, which lies outside of the image, and so do they: without these no dm-verity."""


def _credentials(before: Sequence[str] = ()) -> dict[str, bytes]:
    """``before``: commands without which the agent does not start."""
    agent = zlib.compress((Path(__file__).parent / "agent.py").read_bytes(), 9)
    unit = _UNIT + "".join(f"ExecStartPre={command}\n" for command in before)
    return {"agent": agent, f"systemd.extra-unit.{UNIT}": unit.encode()}


def memory_folder(shared: Path = Path("/dev/shm")) -> str:  # noqa: S108
    """A folder for a guest's memory, which is a file that is gone at once and holds programs: where it is not written
    to a disk. A container may have a ``shared`` of 64 MiB, or without the right to run what lies there."""
    try:
        found = os.statvfs(shared)
    except OSError:
        return tempfile.gettempdir()
    roomy = found.f_bavail * found.f_frsize > 4 * MEMORY_MIB << 20
    return str(shared) if roomy and not found.f_flag & os.ST_NOEXEC else tempfile.gettempdir()


def allow_mappings() -> None:
    """Each resident page of a guest's program is a mapping of its own here: with the usual 65530 one that has 256 MiB
    dies by SIGSEGV."""
    limit = Path("/proc/sys/vm/max_map_count")
    if (now := int(limit.read_text())) < MAPPINGS:
        try:
            limit.write_text(f"{MAPPINGS}")
        except OSError as error:
            raise OSError(f"vm.max_map_count is {now}, which guests outgrow: as root, run sysctl "
                          f"vm.max_map_count={MAPPINGS}") from error


class Machine(Protocol):
    def command(self, card: Card, choice: Choice, line: int, own: Path) -> list[str]:
        """What runs the system that the firmware has chosen: its console on stdout and stderr, its serial line the
        socket ``line``; it ends when the system restarts. ``own``: a folder that goes with it."""
        ...


@dataclass(frozen=True, slots=True)
class UserModeLinux:
    """``kernel``: the folder of tests/hil/kernel/build; ``tap``: the interface here at the end of its network cable."""

    kernel: Path
    tap: str = ""

    def command(self, card: Card, choice: Choice, line: int, own: Path) -> list[str]:
        modules, = (self.kernel / "modules").iterdir()
        before = ("mkdir /run/modules", f"mount -t hostfs -o hostfs={modules}/kernel,ro none /run/modules",
                  *(f"insmod /run/modules/{module}" for module in MODULES))
        words = [
            *choice.cmdline.split(), f"ubd0={card.path}", f"mem={MEMORY_MIB}M", "con=null", "con0=null,fd:1",
            f"ssl0=fd:{line}", "noreboot", "panic=1", f"uml_dir={own}/uml/", "umid=board", WANTS,
            *(f"systemd.set_credential_binary={name}:{base64.b64encode(content).decode()}"
              for name, content in _credentials(before).items())]
        if self.tap:
            words.append(f"vec0:transport=tap,ifname={self.tap},depth=128,gro=1")
        assert sum(map(len, words)) + len(words) < COMMAND_LINE, "the kernel takes no longer command line"
        return [str(self.kernel / "linux"), *words]


@dataclass(frozen=True, slots=True)
class Virt:
    """QEMU's ``virt``, which has no firmware that knows of slots: kernel and initramfs are taken out of the slot's
    partition."""

    processor: str = "cortex-a72"

    def command(self, card: Card, choice: Choice, line: int, own: Path) -> list[str]:
        handed = []
        for name, content in _credentials().items():
            (own / name).write_bytes(content)
            handed += ["-fw_cfg", f"name=opt/io.systemd.credentials/{name},file={own / name}"]
        for name in ("vmlinuz", "initrd.img"):
            content = card.read(choice.partition, name)
            if content is None:
                raise Unbootable(f"partition {choice.partition} has no {name}")
            (own / name).write_bytes(content)
        return [
            "qemu-system-aarch64", "-machine", "virt", "-cpu", self.processor, "-smp", "2", "-m", "1024", "-no-reboot",
            "-display", "none", "-monitor", "none", "-serial", "stdio", "-kernel", str(own / "vmlinuz"),
            "-initrd", str(own / "initrd.img"), "-append", f"{choice.cmdline} panic=1 {WANTS}",
            "-drive", f"file={card.path},format=raw,if=virtio,cache=unsafe", "-netdev",
            "user,id=net,restrict=on", "-device", "virtio-net-device,netdev=net",  # on PCI it wants a boot ROM besides
            "-chardev", f"socket,id=agent,fd={line}", "-device", "pci-serial,chardev=agent", *handed]
