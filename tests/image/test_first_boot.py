"""The first boot of a flashed card: what becomes of the file on it, what a bad one leads to, and what a cut leaves."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecall_image.layout import PROVISIONED
from tests.image.appliance import edgecall, ready, status
from tests.image.board import Board, Boot
from tests.image.conftest import CARD_BYTES, Prepared, put_first_file
from tests.image.firmware import Card
from tests.image.first_file import HOST_NAME, NAME, RESULT, SECRET, THERE, first_file

FIRST_BOOT_S = 40.0
"""Of a first boot, from the kernel's begin, that is cut at any point: the daemon is up after it."""


def _result(card: Card) -> str:
    content = card.read(1, RESULT)
    assert content is not None
    return content.rstrip(b"\0 \n").decode()


def _well(boot: Boot) -> None:
    """As the file wanted it."""
    ready(boot)
    boot.run(f"test -e {PROVISIONED}")
    assert boot.run("hostname") == HOST_NAME
    assert edgecall(boot, "state", "device")["id"] == HOST_NAME
    assert f"inet {THERE}/24" in boot.run("ip address")
    assert status(boot)["slot"] == "A"
    assert boot.run("systemctl --failed --plain --no-legend") == ""


def test_a_card_with_a_file_beside_it_becomes_an_appliance(board: Board, prepared: Prepared) -> None:
    """Looked at in the boot after it, for what has to last."""
    print(f"first boot: ready after {prepared.ready_s:.1f} s")
    told = _result(board.card)
    assert "This device is set up." in told
    assert HOST_NAME in told
    assert "-----BEGIN CERTIFICATE REQUEST-----" in told
    emptied = board.card.read(1, NAME)
    assert emptied is not None
    assert SECRET.encode() not in emptied
    assert SECRET.encode() not in _selector(board.card), "overwritten on the partition too, not only in the file"
    assert board.card.partitions()[7].size > CARD_BYTES // 4, "data has the rest of the card"
    boot = board.switch_on()
    _well(boot)
    assert boot.run("date +%Z") in ("CET", "CEST")
    assert int(boot.run("stat -f -c %b /data")) * int(boot.run("stat -f -c %S /data")) > CARD_BYTES // 4
    _spares_the_card(boot)
    assert boot.run("touch /etc/x /usr/x 2>&1 || true").count("Read-only file system") == 2
    kept = "cat /etc/machine-id /var/lib/systemd/credential.secret /data/config/device.key | sha256sum"
    before = boot.run(kept)
    with boot.follow("systemctl reboot"):
        again = board.after(boot, 120)
    ready(again)
    assert again.run(kept) == before, "machine id, credential secret and device key last"


def _spares_the_card(boot: Boot) -> None:
    """And is started again where it hangs."""
    assert boot.run("systemctl show -P RuntimeWatchdogUSec -P RebootWatchdogUSec").split("\n") == ["10s", "2min"]
    journal = boot.run("systemd-analyze cat-config systemd/journald.conf")
    assert {"SystemMaxUse=64M", "SyncIntervalSec=5min"} <= set(journal.split("\n"))
    data = boot.run("findmnt -no OPTIONS /data").split(",")
    assert {"noatime", "commit=30"} <= set(data), data
    assert boot.run("findmnt -no FSTYPE /var") == "tmpfs"


def _selector(card: Card) -> bytes:
    area = card.partitions()[1]
    with card.path.open("rb") as file:
        file.seek(area.start)
        return file.read(area.size)


def test_a_bad_file_boots_all_the_same_and_says_what_is_wrong(fresh: Board, authority: Path) -> None:
    wrong = first_file().replace("Europe/Berlin", "Europe/Atlantis").replace("fps = 15", "fps = 900")
    put_first_file(fresh.card, authority, wrong)
    boot = fresh.switch_on()
    ready(boot)
    told = _result(fresh.card)
    assert "Nothing of it was taken over" in told
    assert "system.time_zone" in told
    assert "video.fps" in told
    assert SECRET not in told
    assert boot.run(f"test -e {PROVISIONED} || echo not yet") == "not yet"
    assert fresh.card.read(1, NAME) == wrong.encode(), "the person finds his file as it was"
    assert edgecall(boot, "health", check=False), "the appliance runs, and can be asked"
    with boot.follow("systemctl poweroff"):
        fresh.wait_off(60)
    put_first_file(fresh.card, authority)
    _well(fresh.switch_on())
    assert "This device is set up." in _result(fresh.card)


def _cut_and_again(board: Board, authority: Path, chance: random.Random) -> None:
    put_first_file(board.card, authority)
    boot = board.switch_on()
    after_s = chance.uniform(0, FIRST_BOOT_S)
    time.sleep(max(0.0, boot.began + after_s - time.monotonic()))
    board.cut()
    print(f"cut {after_s:.1f} s into the first boot")
    again = board.switch_on()
    _well(again)
    assert "This device is set up." in _result(board.card)
    assert SECRET.encode() not in _selector(board.card)


def test_a_cut_in_the_first_boot_is_made_good_by_the_next(
    fresh: Board, authority: Path, chance: Callable[[str], random.Random],
) -> None:
    _cut_and_again(fresh, authority, chance("first boot"))


@pytest.mark.long
@pytest.mark.parametrize("number", range(6))
def test_many_cuts_in_the_first_boot(
    fresh: Board, authority: Path, chance: Callable[[str], random.Random], number: int,
) -> None:
    _cut_and_again(fresh, authority, chance(f"first boot {number}"))
