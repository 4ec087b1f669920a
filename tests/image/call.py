"""A call of the appliance under test: another appliance beside it in the guest, which answers by itself."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.image.appliance import edgecall
from tests.image.board import Boot
from tests.image.first_file import HOST_NAME, LOBBY_PORT, SECRET

__all__ = ["calling"]

SEARCH_S: Final = 90.0
"""Until a call is connected: two appliances and their media on one slow processor."""
_FOLDER: Final = "/run/lobby"
_CALLED: Final = f"""
[device]
id = "lobby-2"
[http]
port = {LOBBY_PORT}
[mqtt]
enabled = false
[board]
microphone = "tone:1500"
[video]
width = 160
height = 120
fps = 1
bitrate = 100_000
[[http.tokens]]
name = "{HOST_NAME}"
scope = "device"
token_file = "{_FOLDER}/token"
[[book]]
name = "Front door"
uris = ["lan:{HOST_NAME}"]
auto_answer = true
"""


@contextmanager
def calling(boot: Boot) -> Iterator[Callable[[], None]]:
    """Connected; of pictures there is one a second, in one direction, so that an update goes on beside them. What is
    yielded hangs up."""
    _write(boot, f"{_FOLDER}/token", SECRET)
    _write(boot, f"{_FOLDER}/edgecall.toml", _CALLED)
    boot.run("systemd-run --quiet --unit lobby --property Type=notify --property TimeoutStartSec=120 "
             f"edgecall run --config {_FOLDER}/edgecall.toml --data {_FOLDER}/data", 150)
    answer = edgecall(boot, "call.dial", "lan:lobby", "--no-video", seconds=SEARCH_S)
    assert answer["result"] == "done", answer
    assert edgecall(boot, "state", "call")["state"] == "Connected"

    def hang_up() -> None:
        edgecall(boot, "call.hangup")

    yield hang_up
    boot.run("systemctl stop lobby", 90)


def _write(boot: Boot, path: str, text: str) -> None:
    """A file that its owner alone may read; its folder is made."""
    boot.run(f"install -D -m 600 /dev/stdin {shlex.quote(path)}", given=text)
