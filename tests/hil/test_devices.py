"""Each file in ``inside/`` on the device, against the kernel devices it names; each on a device of its own.

The contract, which a real board keeps too, is for ``test_contract.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hil.conftest import Device

INSIDE = Path(__file__).parent / "inside"
FILES = sorted(set(INSIDE.glob("test_*.py")) - {INSIDE / "test_board.py"})


@pytest.mark.lg_feature(["kernel", "faults"])
@pytest.mark.timeout(660)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_on_the_device(device: Device, file: Path) -> None:
    print(device.pytest(str(file), seconds=600))
