"""A partition that somebody has mounted is unmounted before it is written, and left alone where that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgecall_image.device import Device, DeviceError


@pytest.fixture
def partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Mounted as long as the file ``mounted`` lies beside it: the kernel refuses O_EXCL then. ``nsenter`` removes
    that file, unless there is one that says ``busy``."""
    path, mounted = tmp_path / "p1", tmp_path / "mounted"
    path.write_bytes(bytes(1_024))
    opened = os.open

    def kernel(name: str | Path, flags: int, mode: int = 0o777, **named: int) -> int:
        if Path(name) == path and flags & os.O_EXCL and mounted.exists():
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        return opened(name, flags, mode, **named)

    monkeypatch.setattr(os, "open", kernel)
    nsenter = tmp_path / "bin" / "nsenter"
    nsenter.parent.mkdir()
    nsenter.write_text(f"""#!/bin/sh
echo "$*" >>{tmp_path}/told
if [ -e {tmp_path}/busy ]; then echo "umount: target is busy." >&2; exit 32; fi
rm {mounted}
""")
    nsenter.chmod(0o755)
    monkeypatch.setenv("PATH", f"{nsenter.parent}:{os.environ['PATH']}")
    return path


def test_a_mounted_partition_is_read_as_it_is(partition: Path) -> None:
    (partition.parent / "mounted").touch()
    with Device(partition) as device:
        assert device.read(512, 512) == bytes(512)
    assert not (partition.parent / "told").exists()


def test_it_is_unmounted_everywhere_before_it_is_written(partition: Path) -> None:
    (partition.parent / "mounted").touch()
    with Device(partition, writable=True) as device:
        device.write(512, b"x" * 512)
    assert partition.read_bytes() == bytes(512) + b"x" * 512
    assert (partition.parent / "told").read_text() == f"--target=1 --mount umount --all-targets {partition}\n"


def test_one_that_nobody_has_mounted_is_simply_written(partition: Path) -> None:
    with Device(partition, writable=True) as device:
        device.write(0, b"x" * 512)
    assert not (partition.parent / "told").exists()


def test_one_that_stays_mounted_is_left_alone_and_named(partition: Path) -> None:
    (partition.parent / "mounted").touch()
    (partition.parent / "busy").touch()
    with pytest.raises(DeviceError, match=r"p1 is mounted or in use and must not be .*: umount: target is busy\."), \
            Device(partition, writable=True):
        pass
    assert partition.read_bytes() == bytes(1_024)


def test_one_that_cannot_even_be_unmounted_is_named(partition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (partition.parent / "mounted").touch()
    monkeypatch.setenv("PATH", str(partition.parent))
    with pytest.raises(DeviceError, match=r"must not be while it is written: .*nsenter"), \
            Device(partition, writable=True):
        pass


def test_a_sector_that_the_medium_does_not_take_is_told(partition: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Device(partition, writable=True) as device:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails)
            with pytest.raises(DeviceError, match="p1 cannot be written at byte 512: Input/output error"):
                device.write(512, b"x" * 512)
            patch.setattr(os, "pread", fails)
            with pytest.raises(DeviceError, match="p1 cannot be read at byte 0: Input/output error"):
                device.read(0, 512)
        device.write(512, b"y" * 512)
    assert partition.read_bytes()[512:] == b"y" * 512
