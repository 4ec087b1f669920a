"""Writes the machine's diagram into ``docs/architecture.md``: ``python -m tests.support.machine_page``."""

from __future__ import annotations

import re
from pathlib import Path

from appliance.calls.machine import diagram

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"

if __name__ == "__main__":
    drawn = f"<!-- machine:begin -->\n```mermaid\n{diagram()}\n```\n<!-- machine:end -->"
    page = re.sub(r"<!-- machine:begin -->.*<!-- machine:end -->", lambda _: drawn, PAGE.read_text(), flags=re.S)
    PAGE.write_text(page)
