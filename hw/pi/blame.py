"""What kind of fault an error of a device is told as."""

from __future__ import annotations

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFormatError,
    DeviceMissingError,
    DevicePulledError,
    FaultKind,
    HardwareError,
)

__all__ = ["fault_of"]


def fault_of(error: HardwareError) -> FaultKind:
    for kind, fault in (
        (DevicePulledError, FaultKind.PULLED), (DeviceMissingError, FaultKind.MISSING),
        (DeviceBusyError, FaultKind.BUSY), (DeviceDeniedError, FaultKind.DENIED),
        (DeviceFormatError, FaultKind.FORMAT),
    ):  # fmt: skip
        if isinstance(error, kind):
            return fault
    return FaultKind.FAILED
