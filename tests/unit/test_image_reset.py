"""The held button, and the ports that are open."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edgecall_image.firewall import Ports, open_ports, rules
from edgecall_image.reset import Button, find_button, is_held

BOARDS = Path(__file__).parents[2] / "config" / "boards"


class Hand:
    """A button that goes up and down at these seconds, down at first; its own clock."""

    def __init__(self, *edges: float, down: bool = True) -> None:
        self.now, self._edges, self._down = 0.0, list(edges), down

    def monotonic(self) -> float:
        return self.now

    def is_down(self) -> bool:
        return self._down

    def wait_edge(self, seconds: float) -> bool:
        if not self._edges or self._edges[0] > self.now + seconds:
            self.now += seconds
            return False
        self.now = self._edges.pop(0)
        self._down = not self._down
        return True

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("hand", "asked"), [
    (Hand(12.0), True),
    (Hand(9.9), False),
    (Hand(), False),  # stuck
    (Hand(21.0), False),
    (Hand(5.0, 5.1, 12.0), False),
    (Hand(down=False), False),
    (Hand(3.0, down=False), False),
])
def test_a_reset_is_asked_for_by_ten_seconds_and_letting_go(hand: Hand, asked: bool) -> None:
    assert is_held(hand, hand.monotonic) is asked
    assert hand.now <= 20.0


def test_no_button_costs_no_time() -> None:
    hand = Hand(down=False)
    is_held(hand, hand.monotonic)
    assert hand.now == 0.0


@pytest.mark.parametrize(("model", "chip"), [
    ("Raspberry Pi 4 Model B Rev 1.5", "pinctrl-bcm2711"), ("Raspberry Pi 5 Model B Rev 1.0", "pinctrl-rp1"),
    ("Raspberry Pi Zero 2 W Rev 1.0", "pinctrl-bcm2835"), ("Raspberry Pi Compute Module 4 Rev 1.1", "pinctrl-bcm2711"),
])
def test_the_button_is_that_of_the_board_file(model: str, chip: str) -> None:
    found = find_button("call", model, [BOARDS])
    assert found is not None
    assert (found.chip, found.line) == (chip, 17)
    assert found.flags & 1 << 1  # active low
    assert found.flags & 1 << 8  # pulled up
    assert find_button("none", model, [BOARDS]) is None
    assert find_button("call", "A PC", [BOARDS]) is None


@pytest.mark.parametrize(("text", "flags"), [
    ("4", 1 << 1 | 1 << 8), ("4 high", 1 << 9), ("4 normally-closed", 1 << 8),
    ("4 high normally-closed", 1 << 1 | 1 << 9), ("4 no-pull", 1 << 1 | 1 << 10), ("4 low", 1 << 1 | 1 << 8),
])
def test_the_words_of_a_line(tmp_path: Path, text: str, flags: int) -> None:
    (tmp_path / "own.toml").write_text(f'models = ["Own"]\n[panel]\nchip = "c"\nbuttons = {{ call = "{text}" }}\n')
    edges_and_input = 1 << 2 | 1 << 4 | 1 << 5
    assert find_button("call", "Own board", [tmp_path]) == Button("c", 4, flags | edges_and_input)


def test_a_board_file_that_is_none_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("models = 5\n")
    (tmp_path / "b.toml").write_text("[")
    assert find_button("call", "Raspberry Pi 4 Model B", [tmp_path, BOARDS]) is not None


@pytest.mark.parametrize(("settings", "tcp", "udp"), [
    ({}, [], []),
    ({"http": {"listen": "127.0.0.1", "port": 80}}, [], []),
    ({"http": {"listen": "localhost"}}, [], []),
    ({"http": {"listen": "::1"}}, [], []),
    ({"http": {"listen": "0.0.0.0"}}, [8080], []),
    ({"http": {"listen": "::", "port": 443}}, [443], []),
    ({"http": {"listen": "0.0.0.0", "port": "x"}}, [], []),
    ({"http": {"listen": "0.0.0.0", "port": [1]}}, [], []),
    ({"http": 5, "sip": {"accounts": 5}}, [], []),
    ({"sip": {"accounts": [{"port": 5061}, {"port": 5060, "transport": "udp"}, {"port": 0}, {}, 7]}}, [5061], [5060]),
])
def test_ports_are_open_that_the_settings_listen_on(settings: dict[str, object], tcp: Sequence[int],
                                                    udp: Sequence[int]) -> None:
    assert open_ports(settings) == Ports(frozenset(tcp), frozenset(udp))


def test_rules_empty_the_sets_before_they_fill_them() -> None:
    assert rules(Ports(frozenset({8080, 443}), frozenset())).splitlines() == [
        "flush set inet edgecall tcp_open", "add element inet edgecall tcp_open { 443, 8080 }",
        "flush set inet edgecall udp_open"]
