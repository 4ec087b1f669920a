"""Opens a board by its name. Only ``appliance.__main__`` and benches call this."""

from __future__ import annotations

from hw.api import Board, BoardOptions, HardwareError

__all__ = ["BOARDS", "open_board"]

BOARDS = ("sim", "pi", "auto", "none")
"""``sim``: everything simulated. ``pi``: the devices that a board file names. ``auto``: this computer's own camera and
sound card where it has some, best effort. ``none``: no devices, for safe mode."""


def open_board(name: str, options: BoardOptions) -> Board:
    """Open the board ``name``. Its implementation is imported here and not before.

    Raises HardwareError for an unknown name, and when the board cannot be opened.
    """
    if name == "sim":
        from hw.sim.board import SimBoard

        return SimBoard(options)
    if name == "pi":
        from hw.pi.board import PiBoard

        return PiBoard(options)
    if name == "auto":
        from hw.host.board import HostBoard

        return HostBoard(options)
    if name == "none":
        from hw.bare import BareBoard

        return BareBoard(options)
    raise HardwareError(f"there is no board {name!r}; there are {', '.join(BOARDS)}")
