"""Sockets of the HTTP door: what they are bound to, and words for everything that is in the way."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from appliance.doors.http.listen import PortBusyError, bind_tcp, bind_unix, holder_of
from appliance.errors import SettingsError
from tests.support.http_door import running_door


def test_a_port_that_is_taken_is_named_with_its_holder() -> None:
    with bind_tcp("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortBusyError, match=rf"Port {port} on 127\.0\.0\.1 is held by .*\(pid {os.getpid()}\)"):
            bind_tcp("127.0.0.1", port)
    with bind_tcp("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


def test_nobody_can_be_named_for_a_port_without_a_holder() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))  # bound, and nobody listens
        assert holder_of(probe.getsockname()[1]) == "another process"


def test_an_address_of_somebody_else_is_a_fault_of_the_settings() -> None:
    with pytest.raises(SettingsError) as refused:
        bind_tcp("192.0.2.1", 0)
    assert "http.listen 192.0.2.1:0 cannot be used" in refused.value.faults[0]
    with pytest.raises(SettingsError) as refused:
        bind_tcp("no such name", 0)
    assert "is no address" in refused.value.faults[0]


def test_all_addresses_of_version_six_are_those_of_version_four_too() -> None:
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    with bind_tcp("::", 0) as server, socket.create_connection(("127.0.0.1", server.getsockname()[1]), 5):
        pass


def test_the_command_lines_socket_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "run" / "edgecall.sock"
    with bind_unix(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with pytest.raises(PortBusyError, match="Another appliance already runs"):
            bind_unix(path)
    assert path.exists(), "left behind, as after a kill"
    with bind_unix(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(os.fspath(path))


def test_a_path_that_is_too_deep_or_taken_is_a_fault_of_the_settings(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        bind_unix(tmp_path / ("d" * 120) / "s")
    assert "too deep for a socket" in refused.value.faults[0]
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError) as refused:
        bind_unix(tmp_path / "file" / "s")
    assert "cannot be made" in refused.value.faults[0]


async def test_without_the_socket_of_the_command_line_the_other_doors_are_open(
    tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "s" / "in-the-way").mkdir(parents=True)
    async with running_door(tmp_path) as running:
        assert "no commands by the command line" in caplog.text
        async with running.http.get(f"{running.base}/v1/health") as response:
            assert response.status in (200, 503)
