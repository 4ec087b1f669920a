"""What the benches compute from their samples: percentiles, targets, table, report, the moments of marks."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from tests.bench.__main__ import CLOSING, OPENING, PAGE, publish
from tests.bench.figures import REPORT_SCHEMA, Figure, figure_from, percentile, report, table, write
from tests.bench.machine import described, facts, noise
from tests.bench.marks import RATE, Sound, by_counter, delays, moments, sweep


def test_percentiles_are_those_of_numpy() -> None:
    samples = [3.0, 1.0, 4.0, 1.5, 9.0, 2.6]
    for share in (0.0, 0.05, 0.5, 0.95, 1.0):
        assert percentile(samples, share) == pytest.approx(np.percentile(samples, share * 100))
    assert percentile([7.0], 0.95) == 7.0


@pytest.mark.parametrize(("samples", "share"), [([], 0.5), ([1.0], 1.1), ([1.0], -0.1)])
def test_a_percentile_of_nothing_is_refused(samples: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile(samples, share)


def test_a_target_is_met_by_the_median() -> None:
    assert Figure("ring", "ms", (100.0, 120.0, 900.0), 150).met is True
    assert Figure("ring", "ms", (150.0,), 150).met is False
    assert Figure("ring", "ms", (150.0,)).met is None


def test_the_table_says_which_target_is_missed() -> None:
    figures = [Figure("ring", "ms", (44.65, 45.0), 150), Figure("ready", "s", (1.75,), 1.5), Figure("half", "", (1.0,))]
    head, _, ring, ready, half = table(figures).splitlines()
    assert head.split() == ["measure", "median", "p95", "N", "unit", "target", "met"]
    assert ring.split() == ["ring", "44.8", "45.0", "2", "ms", "<", "150", "yes"]
    assert ready.split() == ["ready", "1.75", "1.75", "1", "s", "<", "1.5", "NO"]
    assert half.split() == ["half", "1.00", "1.00", "1"]


def test_the_markdown_table_has_as_many_cells_in_each_row() -> None:
    rows = table([Figure("ring", "ms", (44.0,), 150)], markdown=True).splitlines()
    assert {row.count("|") for row in rows} == {8}


def test_a_report_fits_its_schema(tmp_path: Path) -> None:
    figure = Figure("idle", "%", (0.0, 1.23456), 3.0, "of one core")
    write(str(tmp_path / "one.json"), [figure], {"windowS": 10})
    machine = facts(0.05)
    assert machine["commit"] in described(machine)
    document = report(machine, {"weight": json.loads((tmp_path / "one.json").read_text()),
                                "call": {"figures": [], "error": "it ended with status 1"}})
    jsonschema.validate(document, REPORT_SCHEMA)
    told = document["benches"]["weight"]["figures"][0]
    assert (told["median"], told["max"], told["n"], told["met"]) == (0.6173, 1.235, 2, True)
    assert figure_from(told).median == pytest.approx(figure.median, rel=1e-3)
    del document["machine"]["commit"]
    with pytest.raises(jsonschema.ValidationError, match="commit"):
        jsonschema.validate(document, REPORT_SCHEMA)


def test_a_busy_machine_is_warned_of() -> None:
    told = {"busyBefore": 0.62, "loadBefore": [2.1, 1.0, 0.5], "scheduler": "SCHED_OTHER, nice 0"}
    assert noise(told | {"quiet": True}) == ""
    assert "62%" in noise(told | {"quiet": False})


def test_figures_take_the_place_of_the_last_ones(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"method\n{OPENING}\nold\n{CLOSING}\nend\n")
    publish("new", page)
    assert page.read_text() == f"method\n{OPENING}\nnew\n{CLOSING}\nend\n"
    page.write_text("method\n")
    with pytest.raises(ValueError, match="no place"):
        publish("new", page)
    assert OPENING in PAGE.read_text()
    assert CLOSING in PAGE.read_text()


def test_marks_are_found_whatever_happened_to_their_loudness() -> None:
    samples = np.random.default_rng(5).normal(0, 0.003, RATE * 3).astype(np.float32)
    for at, gain in ((0.5, 0.3), (1.507, -0.2), (2.514, 0.25)):  # the second one with its phase turned
        place = round(at * RATE)
        samples[place:place + len(sweep())] += gain * sweep()
    blocks = len(samples) // 480
    sound = Sound(samples, [100 + block / 100 for block in range(blocks)], [480] * blocks)
    assert moments(sound) == pytest.approx([100.5, 101.507, 102.514], abs=0.0005)
    assert moments(Sound(np.zeros(RATE, np.float32), [0.0], [RATE])) == []


def test_a_mark_that_did_not_arrive_is_left_out() -> None:
    assert delays([1.0, 2.0, 3.0], [1.08, 3.07]) == pytest.approx([0.08, 0.07])


def test_a_picture_is_matched_to_the_last_capture_of_its_counter() -> None:
    captured = [(10.0, 10.0, 5, 0), (12.0, 12.0, 5, 0), (12.1, 12.1, 6, 0)]
    assert by_counter(captured, [(12.02, 5), (12.15, 6), (12.2, 7)], 2.0) == pytest.approx([0.02, 0.05])
