"""Boards with the image in them, a network cable from them to here, and a server of bundles (``scripts/image``)."""

from __future__ import annotations

import fcntl
import json
import os
import random
import subprocess
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.image.appliance import journal, ready
from tests.image.board import Board
from tests.image.cable import TAP, Cable
from tests.image.firmware import Card
from tests.image.first_file import HERE, NAME, UPDATE_AUTHORITY, first_file
from tests.image.machines import UserModeLinux, allow_mappings
from tests.image.server import AUTHORITY, CERTIFICATE, Server, make_authority

MADE: Final = "EDGECALL_IMAGE"
"""The folder of what ``tests/image/make`` has made."""
RUN: Final = "EDGECALL_IMAGE_RUN"
"""A folder for what the workers of this run share."""
LONGEST: Final = (
    "test_an_update_waits_for_the_end_of_a_call_is_tried_and_stays", "test_a_cut_in_the_install_and_in_the_trial",
    "test_what_may_not_be_installed_is_refused_and_changes_nothing", "test_a_sick_update_undoes_itself_and_says_why",
    "test_a_factory_reset_forgets_everything_but_the_slots")
"""Tests of minutes, the longest first."""
CARD_BYTES: Final = 6 << 30
"""The card is larger than the image, as cards are; sparse."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """These files need an image and a kernel: they are collected where ``scripts/image`` names one."""
    beside = collection_path.parent == Path(__file__).parent and collection_path.match("test_*.py")
    return True if beside and MADE not in os.environ else None


@pytest.hookimpl(trylast=True)  # of what -m and -k have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.parent == Path(__file__).parent]
    for item in ours:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))
    if len(ours) == len(items):
        ours.sort(key=lambda item: LONGEST.index(item.name) if item.name in LONGEST else len(LONGEST))
        items[:] = _dealt(ours, getattr(config, "workerinput", {}).get("workercount", 1))


def _dealt(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Each worker gets a part of the list, the last ones may get one more, and takes it in order: each part begins with
    one of the first, and the longer that lasts the shorter is what follows."""
    hands: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for number, item in enumerate(items):
        row, place = divmod(number, workers)
        hands[place if row % 2 == 0 else workers - 1 - place].append(item)
    return [item for hand in sorted(hands, key=len) for item in hand]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails tells what the appliance's journal has of it."""
    report = yield
    if report.when == "call" and report.failed and isinstance(item, pytest.Function):
        for board in item.funcargs.values():
            if isinstance(board, Board):
                report.sections.append(("journal", journal(board)))
    return report


@dataclass(frozen=True, slots=True)
class Made:
    """What is flashed, and the bundles by name: good, sick, foreign, old."""

    image: Path
    bundles: dict[str, Path]
    versions: dict[str, str]
    kernel: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """``ready_s``: what the first boot took, from the kernel's begin to the daemon's READY."""

    card: Path
    ready_s: float


@pytest.fixture(scope="session")
def made() -> Made:
    allow_mappings()
    folder = Path(os.environ[MADE])
    told = json.loads((folder / "made.json").read_text())
    return Made(folder / told["image"], {name: folder / file for name, file in told["bundles"].items()},
                told["versions"], Path(told["kernel"]))


def copy_card(image: Path, to: Path) -> None:
    """``image`` as it was flashed onto a card of CARD_BYTES; what is zero takes no room."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, to], check=True)
    os.truncate(to, CARD_BYTES)


def put_first_file(card: Card, authority: Path, text: str = "") -> None:
    """As a person does, with a computer that has the card: the file, and what it names, beside what is there."""
    card.put(1, UPDATE_AUTHORITY, (authority / AUTHORITY).read_bytes())
    card.put(1, NAME, (text or first_file()).encode())


@pytest.fixture(scope="session")
def chance() -> Callable[[str], random.Random]:
    """Numbers of a seed that is printed with the test: ``EDGECALL_IMAGE_SEED`` has them again."""
    seed = os.environ["EDGECALL_IMAGE_SEED"]

    def made(name: str) -> random.Random:
        print(f"EDGECALL_IMAGE_SEED={seed} ({name})")
        return random.Random(f"{seed} {name}")

    return made


@pytest.fixture(scope="session")
def network() -> Cable:
    return Cable()


@pytest.fixture
def cable(network: Cable) -> Iterator[str]:
    """Plugged in for this test: the next one may build something, and fetch packages for it."""
    with network.plugged():
        yield TAP


def _once(name: str, make: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """A folder that the first worker who wants it fills, for all; with what ``make`` told of it. Has that failed, all
    fail for its reason, and none of them tries again."""
    folder = Path(os.environ[RUN]) / name
    folder.mkdir(exist_ok=True)
    done, fault = folder / "told.json", folder / "fault"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if fault.exists():
            pytest.fail(f"{name} has failed before: {fault.read_text()}")
        if not done.exists():
            try:
                done.write_text(json.dumps(make(folder)))
            except BaseException as error:
                fault.write_text(f"{type(error).__name__}: {error}")
                raise
        return folder, json.loads(done.read_text())


@pytest.fixture(scope="session")
def authority() -> Path:
    """A folder with the certificates of ``make_authority``."""
    def make(folder: Path) -> dict[str, Any]:
        make_authority(folder, HERE, datetime.now(UTC))
        return {}

    return _once("authority", make)[0]


@pytest.fixture(scope="session")
def prepared(made: Made, network: Cable, authority: Path) -> Prepared:
    """An appliance after its first boot, switched off."""
    def make(folder: Path) -> dict[str, Any]:
        card = folder / "card.img"
        copy_card(made.image, card)
        put_first_file(Card(card), authority)
        with network.plugged(), Board(card, folder, UserModeLinux(made.kernel, TAP)) as board:
            boot = board.switch_on()
            took = ready(boot)
            with boot.follow("systemctl poweroff"):
                board.wait_off(60)
        return {"ready_s": took}

    folder, told = _once("prepared", make)
    return Prepared(folder / "card.img", **told)


@contextmanager
def _board(folder: Path, made: Made, cable: str) -> Iterator[Board]:
    card = folder / "card.img"
    try:
        with Board(card, folder, UserModeLinux(made.kernel, cable)) as board:
            yield board
    finally:
        card.unlink()  # some hundred MB


@pytest.fixture
def board(prepared: Prepared, made: Made, cable: str, tmp_path: Path) -> Iterator[Board]:
    """A board with a card of its own that is past its first boot."""
    copy_card(prepared.card, tmp_path / "card.img")
    with _board(tmp_path, made, cable) as board:
        yield board


@pytest.fixture
def fresh(made: Made, cable: str, tmp_path: Path) -> Iterator[Board]:
    """A board with a card as it is flashed."""
    copy_card(made.image, tmp_path / "card.img")
    with _board(tmp_path, made, cable) as board:
        yield board


@pytest.fixture
def server(tmp_path: Path, cable: str, authority: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    with Server(folder, HERE, authority / CERTIFICATE) as server:
        yield server
