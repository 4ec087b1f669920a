"""The first process of an appliance, with e2fsprogs' own tools on a file in place of the data partition.

Its paths are moved into a folder, and ``mount`` is a stand-in: what is "on" the partition lies in a folder beside it
that appears at /data, as long as the file holds a sound file system.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

INIT = Path(__file__).parents[2] / "image/overlay/common/usr/lib/edgecall-image/init"
DATA_MIB = 256  # of two groups, so that there is a second superblock

MOUNT = r"""#!/bin/sh
# mount -t TYPE -o OPTIONS WHAT WHERE | mount --bind WHAT WHERE | mount -o remount,bind,ro WHERE
echo "mount $*" >>"@/log"
case "$1 $2" in
  "-t ext4")
    dumpe2fs -h "$5" >/dev/null 2>&1 || exit 32
    [ "$(e2fsck -fn "$5" >/dev/null 2>&1; echo $?)" -lt 4 ] || exit 32
    mkdir -p "$5.files" && rm -rf "$6" && ln -s "$5.files" "$6"
    ;;
  "-t tmpfs") rm -rf "$6" && mkdir -p "$6" ;;
  --bind*) cp "$2" "$3" ;;
esac
"""
UMOUNT = '#!/bin/sh\necho "umount $*" >>"@/log"\nrm "$1" && mkdir "$1"\n'
MKE2FS = '#!/bin/sh\nfor last; do :; done\nrm -rf "$last.files"\n[ ! -e @/cut ] || exit 1\nexec {mke2fs} "$@"\n'
HELD = "#!/bin/sh\n[ -e @/held ]\n"
STARTED = '#!/bin/sh\necho "started $*" >>"@/log"\n'
DATE = '#!/bin/sh\nif [ "$1" = -s ]; then echo "set $2" >>"@/log"; else echo 1800000000; fi\n'


class Device:
    """One card, on which the first process is started again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.p7 = folder, folder / "dev" / "p7"
        for name in ("bin", "dev", "data", "etc", "proc/sys/kernel/random", "run", "sys/block/p/p5", "sys/block/p/p7",
                     "sys/dev/block"):
            (folder / name).mkdir(parents=True)
        programs = {"mount": MOUNT, "umount": UMOUNT, "mke2fs": MKE2FS.format(mke2fs=_which("mke2fs")), "held": HELD,
                    "started": STARTED, "date": DATE, "mountpoint": "#!/bin/sh\necho 8:5\n"}
        for name, text in programs.items():
            (folder / "bin" / name).write_text(text.replace("@/", f"{folder}/"))
            (folder / "bin" / name).chmod(0o755)
        for number in (5, 7):
            (folder / f"sys/block/p/p{number}/partition").write_text(f"{number}\n")
            (folder / f"sys/block/p/p{number}/uevent").write_text(f"MAJOR=8\nDEVNAME=p{number}\n")
        (folder / "sys/dev/block/8:5").symlink_to(folder / "sys/block/p/p5")
        (folder / "etc/machine-id").touch()
        (folder / "dev/gpiochip0").touch()
        (folder / "dev/kmsg").touch()
        with self.p7.open("wb") as file:
            file.truncate(DATA_MIB << 20)
        text = INIT.read_text()
        text = text.replace("/usr/bin/python3 -I /usr/lib/edgecall-image/run reset", f"{folder}/bin/held")
        text = text.replace("exec /sbin/init", f"exec {folder}/bin/started").replace(
            "PATH=/usr/sbin", f"PATH={folder}/bin:/usr/sbin")
        text = re.sub(r'(?<![\w./}])/(data|run|sys|proc|etc|dev)(?=[/" ;)]|$)(?!/zero|/null)', rf"{folder}/\1", text,
                      flags=re.MULTILINE)
        # a node takes each write as a record; a file would be emptied before
        (folder / "init").write_text(text.replace(f">{folder}/dev/kmsg", f">>{folder}/dev/kmsg"))

    def boot(self, *words: str) -> str:
        """What it did: the log of the stand-ins and of the kernel's."""
        for name in ("proc/mounts", "log", "dev/kmsg"):
            (self.folder / name).write_text("")
        (self.folder / "proc/sys/kernel/random/uuid").write_text("0a1b2c3d-0000-4000-8000-00000000abcd\n")
        ended = subprocess.run(["sh", str(self.folder / "init"), *words], capture_output=True, text=True, timeout=20,
                               check=False)
        assert not ended.stderr, ended.stderr
        return (self.folder / "log").read_text() + (self.folder / "dev/kmsg").read_text()

    @property
    def files(self) -> Path:
        return self.folder / "dev" / "p7.files"

    @property
    def lasts(self) -> bool:
        return not (self.folder / "run/edgecall-image/no-data").exists()


def _which(program: str) -> str:
    return next(f"{folder}/{program}" for folder in ("/usr/sbin", "/sbin") if os.access(f"{folder}/{program}", os.X_OK))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    made = Device(tmp_path)
    made.boot()
    (made.files / "keep").touch()
    return made


def test_a_blank_partition_is_made_and_the_machine_gets_id_and_name(tmp_path: Path) -> None:
    one = Device(tmp_path)
    assert "started single\n" in one.boot("single")
    assert one.lasts
    assert (one.files / "system/machine-id").read_text() == "0a1b2c3d0000400080000000" + "0000abcd\n"
    assert (one.files / "system/hostname").read_text() == "edgecall-0a1b2c\n"
    assert (tmp_path / "etc/machine-id").read_text() == (one.files / "system/machine-id").read_text()
    assert {path.name for path in one.files.iterdir()} == {"config", "state", "system", "update"}


def test_a_later_boot_keeps_everything(device: Device) -> None:
    (device.files / "system/machine-id").write_text("f" * 32 + "\n")
    (device.files / "system/hostname").write_text("front-door\n")
    did = device.boot()
    assert "started" in did
    assert "making" not in did
    assert (device.files / "keep").exists()
    assert (device.files / "system/machine-id").read_text() == "f" * 32 + "\n"
    assert (device.files / "system/hostname").read_text() == "front-door\n"


@pytest.mark.parametrize("content", ["", "not an id\n", "0" * 31 + "\n"])
def test_an_id_that_is_none_is_made_anew(device: Device, content: str) -> None:
    (device.files / "system/machine-id").write_text(content)
    device.boot()
    assert re.fullmatch("[0-9a-f]{32}\n", (device.files / "system/machine-id").read_text())


@pytest.mark.parametrize(("known", "said"), [(1_900_000_000, "set @1900000000\n"), (1_700_000_000, "")])
def test_the_clock_is_never_before_what_was_known_last(device: Device, known: int, said: str) -> None:
    clock = device.files / "state/systemd/timesync/clock"
    clock.parent.mkdir(parents=True)
    clock.touch()
    os.utime(clock, (known, known))
    did = device.boot()
    assert said in did
    assert ("set " in did) == bool(said)


def _by_command(device: Device) -> None:
    (device.files / "update/factory-reset").touch()


def _by_button(device: Device) -> None:
    (device.folder / "held").touch()


@pytest.mark.parametrize("ask", [_by_command, _by_button])
def test_a_factory_reset_makes_data_anew_once(device: Device, ask: Callable[[Device], None]) -> None:
    ask(device)
    did = device.boot()
    assert "factory reset was asked for" in did
    assert "started" in did
    assert not (device.files / "keep").exists()
    assert device.lasts
    (device.folder / "held").unlink(missing_ok=True)
    (device.files / "keep").touch()
    assert "making" not in device.boot()
    assert (device.files / "keep").exists()


def test_a_power_cut_in_a_reset_is_made_good_by_the_next_boot(device: Device) -> None:
    _by_command(device)
    (device.folder / "cut").touch()
    did = device.boot()  # in place of a cut: mke2fs ends before its superblock
    assert "started" in did
    assert not device.lasts
    (device.folder / "cut").unlink()
    (device.folder / "run/edgecall-image/no-data").unlink()
    assert "making" in device.boot()
    assert device.lasts


def test_a_damaged_partition_is_repaired(device: Device) -> None:
    with device.p7.open("r+b") as file:  # the superblock; there is a copy of it
        file.seek(1024)
        file.write(b"\xff" * 1024)
    assert "is damaged" in device.boot()
    assert device.lasts
    assert (device.files / "keep").exists()


def test_one_that_cannot_be_repaired_is_left_for_the_button_and_the_system_starts(device: Device) -> None:
    content = b"no file system".ljust(1 << 20, b"?")
    with device.p7.open("wb") as file:
        file.write(content)
        file.truncate(DATA_MIB << 20)
    did = device.boot()
    assert "nothing outlives this boot" in did
    assert "started" in did
    assert not device.lasts
    with device.p7.open("rb") as file:
        assert file.read(len(content)) == content
    _by_button(device)
    (device.folder / "run/edgecall-image/no-data").unlink()
    assert "making" in device.boot()
    assert device.lasts


def test_without_a_data_partition_it_starts_all_the_same(tmp_path: Path) -> None:
    one = Device(tmp_path)
    (tmp_path / "sys/block/p/p7/partition").unlink()
    assert "started" in one.boot()
    assert not one.lasts
    assert (tmp_path / "data/system/machine-id").exists()
