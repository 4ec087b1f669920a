"""``edgecall run``: reads the settings, opens the house, serves until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TextIO

from appliance import __version__
from appliance.care.first_boot import first_boot
from appliance.care.logs import Logs, in_journal, secrets_in
from appliance.errors import EdgecallError, SettingsError
from appliance.house import House, Start
from appliance.places import config_path, data_path
from appliance.settings import EXIT_CONFIG, Loaded, load_or_last_good
from hw.api import HardwareError
from hw.boards import open_board

log = logging.getLogger(__name__)

SWITCH_S: Final = 0.001
"""Interpreter switch interval: the default of 5 ms steals half an audio block from ``hw.audio``."""


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="edgecall run", description="Run the appliance.")
    parser.add_argument("--config", type=Path, help="settings file")
    parser.add_argument("--data", type=Path, help="data folder")
    parser.add_argument("--board", help="sim, pi or auto, in place of board.name")
    parser.add_argument("--port", type=int, help="in place of http.port")
    parser.add_argument("--no-broker", action="store_true", help="do not start the embedded broker")
    parser.add_argument("--safe", action="store_true", help="no media; everything else up")
    parser.add_argument("--version", action="version", version=__version__)
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM. Returns the exit code: 0, 1 after a failure, 78 for faults in the settings, 130 when
    Ctrl-C came before it was up."""
    given = arguments(sys.argv[1:] if words is None else words)
    environ = os.environ | ({"EDGECALL_CONFIG": str(given.config)} if given.config else {})
    path, _ = config_path(environ)
    folder = given.data or data_path(environ)
    overrides = {key: value for key, value in (("board.name", given.board), ("http.port", given.port))
                 if value is not None}

    def load() -> Loaded:
        return load_or_last_good(path, folder, overrides=overrides, environ=environ)

    try:
        loaded = load()
    except SettingsError as error:
        print(f"edgecall: {error.path} has errors:", *error.faults, sep="\n  ", file=sys.stderr)
        return EXIT_CONFIG
    logs = Logs(loaded.settings.log.level, secrets=secrets_in(loaded.settings)).install()
    start = Start(loaded, load, path, open_board, _announce, logs.set_level, not given.no_broker, given.safe, logs.hide,
                  first_boot=first_boot(environ))
    try:
        sys.setswitchinterval(SWITCH_S)
        asyncio.run(_live(start))
    except (EdgecallError, HardwareError) as error:
        log.error("cannot run: %s", error)  # noqa: TRY400 - words for people, no traceback
        return 1
    except KeyboardInterrupt:  # from then on SIGINT only asks it to stop
        return 128 + signal.SIGINT
    except Exception:
        log.exception("failed; this is a defect")
        return 1
    finally:
        logs.close()
    return 0


def _announce(address: str) -> None:
    """For the person who started us. The address makes its opener admin: it is no matter for the journal, which more
    people may read and which is kept and sent on."""
    if _output_is_kept(os.environ, sys.stdout):
        print("The command 'edgecall address' prints an address that opens the page.", flush=True)
    else:
        print(f"\n  Open this address in a browser:\n\n    {address}\n\n  Ctrl-C stops the appliance.\n", flush=True)


def _output_is_kept(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Does the journal read ``stream``? Where a unit gives output and errors a journal stream each, JOURNAL_STREAM
    names that of the errors only (systemd.exec(5)): then any socket is taken for one."""
    if in_journal(environ, stream):
        return True
    try:
        return "JOURNAL_STREAM" in environ and stat.S_ISSOCK(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # no file behind it
        return False


async def _live(start: Start) -> None:
    loop = asyncio.get_running_loop()
    async with House(start) as house:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, house.stopping.set)
        reloads: set[asyncio.Task[None]] = set()

        def hang_up() -> None:
            task = loop.create_task(house.reload(), name="house.reload")
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, hang_up)
        # What start-up made stays for good: kept out of every later collection, which would stop the loop for it.
        gc.collect()
        gc.freeze()
        await house.serve()


if __name__ == "__main__":
    sys.exit(main())
