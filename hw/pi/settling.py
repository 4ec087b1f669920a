"""A device node that has just come: the kernel makes it for root, and udev gives it to its group a moment later."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

__all__ = ["AGAIN_S", "is_settling"]

SETTLING_S: Final = 2.0
"""udev takes milliseconds; on a busy board with a hub full of devices, over a second."""

AGAIN_S: Final = 0.1
"""What is refused meanwhile is tried again so often, and told to nobody."""


def is_settling(node: str) -> bool:
    """Whether ``node`` is so new that a refusal says nothing yet. Empty: there is none to wait for."""
    if not node:
        return False
    try:
        made = Path(node).stat().st_mtime  # its owner and mode change the ctime alone
    except OSError:
        return False
    return 0 <= time.time() - made < SETTLING_S
