"""The contract of every board (``hw/api.py``) where there is no kernel device; on others, ``inside/`` has its parts."""

from __future__ import annotations

import pytest

from tests.hil.conftest import Device


@pytest.mark.lg_feature("simulated")
@pytest.mark.timeout(400)
def test_the_simulated_board_keeps_the_contract(device: Device) -> None:
    device.pytest("tests/contract", "-k", "sim", seconds=380)
