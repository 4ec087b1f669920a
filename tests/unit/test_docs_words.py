"""The documentation quotes what the product says: a message that nobody prints helps nobody."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.vocabulary import END_REASONS, STATES

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
SOURCES = [path for folder in ("appliance", "hw", "scripts") for path in (ROOT / folder).rglob("*")
           if path.is_file() and path.suffix in {".py", ".js", ".html", ".sh", ""}]


def _said() -> str:
    """All text of the product, with literals that go over two lines joined."""
    text = "\n".join(path.read_text("utf-8") for path in SOURCES)
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_a_state_that_the_documentation_names_exists(path: Path) -> None:
    named = re.findall(r"edgecall state ([a-z]+)", path.read_text("utf-8"))
    assert set(named) <= set(STATES)


def test_messages_quoted_for_troubleshooting_are_said_somewhere() -> None:
    text, said = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), _said()
    quoted = [*re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE), *re.findall("“([^”]+)”", text)]
    assert len(quoted) > 10
    missing = [fragment for quote in quoted for fragment in re.split(r"…|NAME.*|3\.x|[0-9.]+", quote)
               if len(fragment.strip()) >= 8 and fragment.strip() not in said]
    assert missing == []


def test_codes_and_diagnostics_named_for_troubleshooting_exist() -> None:
    text, said = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8"), _said()
    for code, sub_code in re.findall(r"`(\d{3})/(\w+)`", text):
        assert f"{code}/{sub_code}" in END_REASONS or f'"{sub_code}"' in said
    for name in re.findall(r"`([a-z]+[A-Z]\w+)`", text):
        assert f'"{name}"' in said, name
