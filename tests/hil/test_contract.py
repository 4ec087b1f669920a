"""The contract of every Protocol of ``hw/api.py``: on the simulated board where there is no kernel device, else on the
board ``pi`` with the kernel's."""

from __future__ import annotations

import pytest

from tests.hil.conftest import Device


@pytest.mark.lg_feature("simulated")
@pytest.mark.timeout(400)
def test_the_simulated_board_keeps_the_contract(device: Device) -> None:
    device.pytest("tests/contract", "-k", "sim", seconds=380)


@pytest.mark.lg_feature("kernel")
@pytest.mark.timeout(320)
def test_the_board_keeps_the_contract(device: Device) -> None:
    print(device.pytest("tests/hil/inside/test_board.py", "--durations=5", seconds=300))
