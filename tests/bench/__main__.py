"""All benches, one after the other, as one table and one JSON document.

    python -m tests.bench [--only NAME ...] [--quick] [--json FILE] [--publish]

Each bench is a process of its own: what one leaves in memory is not weighed by the next. Figures are printed, never
asserted; the exit status is 1 when a bench could not be run, not when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from tests.bench import machine
from tests.bench.figures import Figure, figure_from, report, table

BENCHES: Final = {
    "start": "start to ready",
    "call": "button to ringing, answer to first media",
    "weight": "memory and CPU, idle and in a call",
    "latency": "picture and sound latency beside two Chromium pages",
    "send_path": "CPU of sending a pre-encoded picture beside stock aiortc",
    "media_loop": "the media engine alone, both ends in one process",
    "devices": "the simulated board, by stages",
    "echo": "the echo canceller in the simulated room",
    "media": "the media engine beside stock aiortc and Chromium on a bad network",
    "rooms": "join of a room to first media",
    "self_view": "a look at the camera itself, by its raw pictures and without",
    "sip": "SIP messages, and a call to a baresip",
    "telephone": "CPU and memory of a telephone call beside baresip",
    "watching": "one to nine pictures of a room, decoded and shown, beside Chromium",
    "statistics": "what a report of a call costs the loop",
}
LONG: Final = {"media", "watching"}
"""Only by name: media takes longer than all the others together, watching half as long."""

LIMIT_S: Final = 900.0
LONG_LIMIT_S: Final = 3 * 3600.0
END_S: Final = 20.0
"""What a bench that is over its limit has to end the browsers it started."""

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
OPENING: Final = "<!-- figures, written by scripts/bench --publish -->"
CLOSING: Final = "<!-- end of figures -->"
APART: Final = ("devices", "echo", "media", "watching")
"""Those that give a table of their own, with a place of its own on the page."""


def run(name: str, *, quick: bool) -> dict[str, Any]:
    """The bench's figures and detail, or its ``error``. What it prints on the way goes to stderr."""
    limit = LONG_LIMIT_S if name in LONG else LIMIT_S
    with tempfile.TemporaryDirectory(prefix="edgecall-bench-") as folder:
        out = Path(folder) / "figures.json"
        words = [sys.executable, "-m", f"tests.bench.bench_{name}", "--json", str(out), *(["--quick"] if quick else [])]
        with subprocess.Popen(words, stdout=sys.stderr) as process:
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                process.terminate()
                try:
                    process.wait(END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                return {"figures": [], "error": f"not done within {limit:g} s"}
        if status or not out.exists():
            return {"figures": [], "error": f"it ended with status {status}; its words are above"}
        return dict(json.loads(out.read_text()))


def publish(text: str, page: Path = PAGE, *, between: tuple[str, str] = (OPENING, CLOSING)) -> None:
    """Put the figures in the place of the last ones on the page that explains them."""
    head, opening, rest = page.read_text().partition(between[0])
    _, closing, tail = rest.partition(between[1])
    if not opening or not closing:
        raise ValueError(f"{page} has no place for figures between {between[0]!r} and {between[1]!r}")
    page.write_text(f"{head}{opening}\n{text}\n{closing}{tail}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", action="append", choices=BENCHES, metavar="NAME",
                        help="one of " + ", ".join(BENCHES) + "; may be given more than once")
    parser.add_argument("--quick", action="store_true", help="few samples: to see that it runs, not to publish")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the samples and the machine's facts")
    parser.add_argument("--publish", action="store_true", help="put the table into docs/benchmarks.md")
    arguments = parser.parse_args()
    facts = machine.facts()
    warning = machine.noise(facts)
    if warning:
        print(f"WARNING: {warning}\n", file=sys.stderr)
    results: dict[str, Any] = {}
    for name in arguments.only or [name for name in BENCHES if name not in LONG]:
        print(f"== {name}: {BENCHES[name]}", file=sys.stderr, flush=True)
        begun = time.monotonic()
        results[name] = run(name, quick=arguments.quick)
        print(f"== {name}: {results[name].get('error', 'done')} after {time.monotonic() - begun:.0f} s",
              file=sys.stderr, flush=True)
    document = report(facts, results)
    figures: list[Figure] = [figure_from(one) for name, result in results.items() if name not in APART
                             for one in result["figures"]]
    own = {name: result["detail"]["table"] for name, result in results.items()
           if name in APART and "error" not in result}
    texts = [table(figures)] if figures else []
    print("\n" + "\n\n".join([machine.described(facts), *texts, *own.values()]))
    failed = {name: result["error"] for name, result in results.items() if "error" in result}
    for name, why in failed.items():
        print(f"{name}: NOT MEASURED, {why}")
    if warning:
        print(f"\nWARNING: {warning}")
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.publish and figures:
        publish(f"{machine.described(facts)}\n\n{table(figures, markdown=True)}")
    for name, text in own.items() if arguments.publish else ():
        publish(f"{machine.described(facts)}\n\n{text}", between=(
            f"<!-- figures of {name}, written by scripts/bench --only {name} --publish -->",
            f"<!-- end of figures of {name} -->"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
