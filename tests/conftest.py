"""What holds for every test: nothing blocks the loop, nothing is left behind, everything ends in time.

Time-outs and leak checks go by folder; ``support/clock.py`` has virtual time, ``support/leaks.py`` says what is left.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import forbiddenfruit  # type: ignore[import-untyped]
import pytest
import pytest_timeout
from blockbuster import BlockBuster
from hypothesis import HealthCheck, settings

from tests.support.leaks import Belongings, tasks_left

# deadline: the machine decides how long an example takes, not the code. derandomize: the same examples at each run, so
# that a failure belongs to the change it is seen with; without CI every run tries new ones.
settings.register_profile(
    "bounded", deadline=None, max_examples=50, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", parent=settings.get_profile("bounded"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "bounded")

TESTS = Path(__file__).parent
TIMEOUT_S = {"unit": 20, "contract": 30, "sim": 60, "peers": 120}
"""Unless the test says otherwise; ten times what the slowest needs, so that only a hang reaches it."""

LEAK_CHECKED = {"unit", "contract", "sim"}
"""Browsers and brokers of the peer tests are kept over many tests; their counts are tests of their own."""

MAY_BLOCK: list[tuple[str, str, str, str]] = [
    # function as blockbuster names it, end of the file's path, function in it that may call it on the loop, why
]


def _tier(item: pytest.Item) -> str:
    path = item.path.relative_to(TESTS) if item.path.is_relative_to(TESTS) else item.path
    return path.parts[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = _tier(item)
        if tier in TIMEOUT_S and item.get_closest_marker("timeout") is None and item.get_closest_marker("long") is None:
            item.add_marker(pytest.mark.timeout(TIMEOUT_S[tier]))
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.function):
            # right behind nothing_left, so before every fixture of the test: what those leave running is seen too
            place = item.fixturenames.index("nothing_left") + 1 if "nothing_left" in item.fixturenames else 0
            item.fixturenames.insert(place, "no_task_left")
            item.fixturenames.insert(place + 1, "never_blocks")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A second run has its whole time again: pytest-timeout sets one clock for all runs of a test, and takes it away at
    the first failure (pytest-rerunfailures, issue 99)."""
    if getattr(item, "execution_count", 1) > 1:
        limits = pytest_timeout._get_item_settings(item)
        if limits.timeout:
            item.ihook.pytest_timeout_set_timer(item=item, settings=limits)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Adds to the file ``EDGECALL_UNSTEADY`` which tests failed first and were run again (scripts/test)."""
    if name := os.environ.get("EDGECALL_UNSTEADY"):
        with Path(name).open("a") as file:
            file.writelines(f"{report.nodeid}\n" for report in terminalreporter.stats.get("rerun", []))


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test after which a thread, a child process or a descriptor is left that was not there before."""
    if _tier(request.node) not in LEAK_CHECKED:
        yield
        return
    before = Belongings.now()
    yield
    left = before.left()
    assert not left, f"left behind: {', '.join(left)}"


@pytest.fixture
async def no_task_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Fails a test after which a task is left on the loop. Async tests get it by themselves."""
    before = asyncio.all_tasks()
    yield
    if _tier(request.node) not in LEAK_CHECKED:
        return
    deadline = asyncio.get_running_loop().time() + 1.0
    while (left := tasks_left(before)) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - see below
        await asyncio.sleep(0.01)  # what was cancelled needs a turn or two to end
    assert not left, f"left running: {', '.join(left)}"


_blockbuster = BlockBuster(["appliance", "hw"])
for _function, _file, _caller, _reason in MAY_BLOCK:
    _blockbuster.functions[_function].can_block_in(_file, _caller)


@pytest.fixture
def never_blocks() -> Iterator[None]:
    """Raises BlockingError where code of ours blocks the loop: sleep, file and socket calls, locks, SQLite."""
    _blockbuster.activate()
    yield
    _blockbuster.deactivate()
    # A wrapper that is left in a built-in type takes stdout with it when the interpreter takes the type apart: a crash.
    for kind in (io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper):
        for name in [name for name in vars(kind) if name.startswith("_c_")]:
            forbiddenfruit.reverse(kind, name)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data folder, as private as the daemon makes its own."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder
