"""``python -m appliance.faces``: write everything that is generated; ``--check`` tells what is stale (exit code 1)."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from appliance.faces import asyncapi, jsonschema, openapi, reference, statistics
from appliance.vocabulary import Json

__all__ = ["generated", "main", "stale"]


def generated() -> Mapping[str, str]:
    """Path in the repository and content of every generated file."""
    return {
        "config/edgecall.toml": reference.default_file(),
        "docs/configuration.md": reference.configuration(),
        "docs/reference.md": reference.reference(),
        "docs/statistics.md": statistics.page(),
        "docs/schema.json": _json(jsonschema.document()),
        "docs/openapi.json": _json(openapi.document()),
        "docs/asyncapi.json": _json(asyncapi.document()),
    }


def stale(root: Path) -> list[str]:
    """The generated files below ``root`` that are missing or differ."""
    return [name for name, content in generated().items()
            if not (root / name).is_file() or (root / name).read_text("utf-8") != content]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m appliance.faces", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when something is stale")
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="folder of the repository")
    asked = parser.parse_args(arguments)
    old = stale(asked.root)
    if asked.check:
        for name in old:
            print(f"{name} is stale: run python -m appliance.faces", file=sys.stderr)
        return 1 if old else 0
    content = generated()
    for name in old:
        (asked.root / name).parent.mkdir(parents=True, exist_ok=True)
        (asked.root / name).write_text(content[name], "utf-8")
        print(f"wrote {name}", file=sys.stderr)
    return 0


def _json(document: Json) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
