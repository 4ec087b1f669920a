"""What the camera's process asks of an open camera, whatever brings its pictures."""

from __future__ import annotations

from typing import Protocol

from hw.pi.camera.steer import Steering
from hw.pi.encoder.session import Driver
from hw.pi.shot import Shot
from hw.pi.v4l2 import Format

__all__ = ["Sensor"]


class Sensor(Protocol):
    """An open camera."""

    zooms: bool  # by itself

    @property
    def steering(self) -> Steering | None:
        """Of its own H.264, which it delivers where this is not None."""

    @property
    def note(self) -> str:
        """Why its own H.264 is not used; empty: it has none."""

    @property
    def file(self) -> int: ...
    @property
    def what(self) -> str: ...
    @property
    def layout(self) -> Format | None:
        """How its pictures lie in memory that an encoder may read; None: they have to be copied."""

    @property
    def driver(self) -> Driver:
        """Of a hardware encoder that reads them there."""

    def take(self) -> Shot | None: ...
    def units(self) -> list[tuple[bytes, int]]: ...
    def close(self) -> None: ...
