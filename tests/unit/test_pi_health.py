"""What a board tells of itself, from files as the kernels of such boards write them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from hw.api import Health, Link
from hw.pi import health
from hw.pi.health import BoardHealth, Held, identity, look, throttled_bits


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert look(str(tmp_path), lambda: None) == Health(links=[])
    assert identity(str(tmp_path)) == {"model": "Computer"}
    assert throttled_bits(str(tmp_path / "vcio")) is None


def test_a_mailbox_that_is_none_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "vcio").touch()
    assert throttled_bits(str(tmp_path / "vcio")) is None


def test_the_processors_zone_goes_first(tmp_path: Path) -> None:
    zones = {f"sys/class/thermal/thermal_zone{number}/{name}": text for number, kind, milli in (
        (0, "acpitz", "27800"), (1, "iwlwifi_1", ""), (10, "cpu-thermal", "61234"))
        for name, text in (("type", kind), ("temp", milli))}
    assert look(str(_write(tmp_path, zones)), lambda: None).temperature_c == 61.234


@pytest.mark.parametrize(("bits", "alarm", "slow", "low"), [
    (0x00000, None, False, False), (0xF0000, None, False, False),  # what was, since the start
    (0x00001, None, False, True), (0x00005, None, False, True),  # slowed down for lack of supply
    (0x00004, None, True, False), (0x00002, None, True, False), (0x00008, "0", True, False),
    (0x00009, "0", True, True), (0x00000, "1", False, True), (None, "1", None, True), (None, "0", None, False),
    (None, None, None, None),
])
def test_heat_and_supply_of_a_raspberry_pi(
    tmp_path: Path, bits: int | None, alarm: str | None, slow: bool | None, low: bool | None
) -> None:
    if alarm is not None:
        _write(tmp_path, {"sys/class/hwmon/hwmon2/name": "rpi_volt\n", "sys/class/hwmon/hwmon2/in0_lcrit_alarm": alarm})
    seen = look(str(tmp_path), lambda: bits)
    assert (seen.throttled, seen.undervoltage) == (slow, low)


def test_heat_of_another_computer_by_its_coolers(tmp_path: Path) -> None:
    coolers = "sys/class/thermal/cooling_device"
    files = {f"{coolers}0/type": "pwm-fan", f"{coolers}0/cur_state": "3",
             f"{coolers}1/type": "cpufreq-cpu0", f"{coolers}1/cur_state": "0"}
    assert look(str(_write(tmp_path, files)), lambda: None).throttled is False
    assert look(str(_write(tmp_path, {f"{coolers}1/cur_state": "2"})), lambda: None).throttled is True


@pytest.mark.parametrize(("life", "end", "wear"), [
    ("0x01 0x03", "0x01", 0.3), ("0x0b 0x01", "0x01", 1.0), ("0x00 0x00", "0x01", None), ("0x02 0x02", "0x03", 1.0),
    ("", "", None), ("worn", "0x01", None),
])
def test_wear_of_built_in_flash(tmp_path: Path, life: str, end: str, wear: float | None) -> None:
    device = "sys/block/mmcblk0/device/"
    _write(tmp_path, {device + "life_time": life, device + "pre_eol_info": end})
    assert look(str(tmp_path), lambda: None).storage_wear == wear


def test_links_with_speed_and_signal(tmp_path: Path) -> None:
    wireless = """Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE
 face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22
 wlan0: 0000   62.  -48.  -256        0      0      0      0      0        0
"""
    net = "sys/class/net/"
    _write(tmp_path, {
        net + "lo/carrier": "1", net + "eth0/device/vendor": "", net + "eth0/carrier": "1", net + "eth0/speed": "1000",
        net + "wlan0/device/vendor": "", net + "wlan0/carrier": "1", net + "wlan0/speed": "-1",
        net + "eth1/device/vendor": "", net + "eth1/carrier": "0", net + "eth1/speed": "-1",
        "proc/net/wireless": wireless})
    assert look(str(tmp_path), lambda: None).links == [
        Link("eth0", True, 1000), Link("eth1", False), Link("wlan0", True, None, -48)]


def test_what_feeds_the_board(tmp_path: Path) -> None:
    power = tmp_path / "proc/device-tree/chosen/power"
    power.mkdir(parents=True)
    (power / "max_current").write_bytes((5000).to_bytes(4, "big"))
    assert look(str(tmp_path), lambda: None).supply == "USB-C, 5 V, 5 A"
    poe = "sys/class/power_supply/rpi-poe/"
    _write(tmp_path, {poe + "online": "1", poe + "current_max": "5000000"})
    assert look(str(tmp_path), lambda: None).supply == "PoE, class 4 (802.3at)"
    _write(tmp_path, {poe + "current_max": "2500000"})
    assert look(str(tmp_path), lambda: None).supply == "PoE, classes 0 to 3 (802.3af)"
    _write(tmp_path, {poe + "online": "0"})
    assert look(str(tmp_path), lambda: None).supply == "USB-C, 5 V, 5 A"


def test_model_and_serial(tmp_path: Path) -> None:
    _write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nSerial\t\t: 10000000abcdef01\n",
                      "sys/class/dmi/id/product_name": "NUC\n"})
    assert identity(str(tmp_path)) == {"model": "NUC", "serial": "10000000abcdef01"}
    _write(tmp_path, {"proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
                      "proc/device-tree/serial-number": "abc\0"})
    assert identity(str(tmp_path)) == {"model": "Raspberry Pi 5 Model B Rev 1.0", "serial": "abc"}


def test_what_flutters_at_its_limit_is_one_fact() -> None:
    held = Held()
    assert held(None, 0.0) is None
    assert held(False, 0.0) is False
    told = [held(number % 2 == 0, number * 0.5) for number in range(9)]
    assert told == [True] * 9
    assert held(False, 4.9) is True
    assert held(False, 5.0) is False


def test_the_latest_look_is_at_hand_and_a_look_that_hangs_holds_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_S", 0.01)
    looked, go_on = threading.Semaphore(0), threading.Event()
    looks = iter([Health(temperature_c=50.0, undervoltage=True), Health(temperature_c=51.0, undervoltage=False)])

    def look_now(before: Health | None) -> Health:
        looked.release()
        seen = next(looks, None)
        if seen is None:
            go_on.wait(10)
            return Health()
        return seen

    board = BoardHealth(look_now)
    for _ in range(3):
        assert looked.acquire(timeout=5)
    assert board.now() == Health(temperature_c=51.0, throttled=None, undervoltage=True)  # held for a moment
    go_on.set()
    board.close()
    board.close()


def test_what_changes_slowly_is_looked_at_seldom(tmp_path: Path) -> None:
    _write(tmp_path, {"sys/class/net/eth0/device/vendor": "", "sys/class/net/eth0/carrier": "1"})
    first = look(str(tmp_path), lambda: 0)
    _write(tmp_path, {"sys/class/net/eth0/carrier": "0", "sys/class/thermal/thermal_zone0/temp": "70000"})
    seen = look(str(tmp_path), lambda: 4, before=first)
    assert (seen.links, seen.temperature_c, seen.throttled) == (first.links, 70.0, True)
    assert look(str(tmp_path), lambda: 0).links == [Link("eth0", False)]
