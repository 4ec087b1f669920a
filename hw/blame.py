"""What kind of fault an error of a device is told as, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hw.api import (
    DeviceBusyError,
    DeviceDeniedError,
    DeviceFailedError,
    DeviceFormatError,
    DeviceMissingError,
    DevicePulledError,
    FaultKind,
    HardwareError,
)

__all__ = ["error_of", "fault_of"]

_ERRORS: Final[Mapping[FaultKind, type[HardwareError]]] = {
    FaultKind.PULLED: DevicePulledError,  # before that which it is a kind of
    FaultKind.MISSING: DeviceMissingError,
    FaultKind.BUSY: DeviceBusyError,
    FaultKind.DENIED: DeviceDeniedError,
    FaultKind.FORMAT: DeviceFormatError,
}


def fault_of(error: HardwareError) -> FaultKind:
    return next((fault for fault, kind in _ERRORS.items() if isinstance(error, kind)), FaultKind.FAILED)


def error_of(fault: FaultKind) -> type[HardwareError]:
    return _ERRORS.get(fault, DeviceFailedError)
