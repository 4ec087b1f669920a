"""The diagram of the architecture page is the table of the machine."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.calls.machine import diagram

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def test_the_page_shows_the_machine_as_it_is() -> None:
    shown = re.search(r"<!-- machine:begin -->\n```mermaid\n(.*?)\n```\n<!-- machine:end -->", PAGE.read_text(), re.S)
    assert shown is not None
    assert shown[1] == diagram(), "run: python -m tests.support.machine_page"
