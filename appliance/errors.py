"""One tree of errors: words for the person who must act.

    EdgecallError             key, message, fields, retryable
    ├── BadRequest            the sender did wrong (4xx): wrong verb, argument, envelope
    ├── NotPermitted          the sender may not (401, 403)
    ├── Refused               right and permitted, but not now (state, device, policy)
    ├── SignalingError        a peer sent what cannot be used (SDP, JSON, order)
    ├── SettingsError         the settings file has faults; lists all of them
    └── StoreError            the data folder cannot be read or written

Hardware errors are ``hw.api.HardwareError``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.vocabulary import Category

__all__ = [
    "BadRequest",
    "EdgecallError",
    "NotPermitted",
    "Refused",
    "SettingsError",
    "SignalingError",
    "StoreError",
]


class EdgecallError(Exception):
    """Root. ``code`` and ``sub_code`` are what an answer carries; ``fields`` fill a translated message."""

    code = 500
    sub_code = "internal"
    category = Category.CLIENT
    retryable = False

    def __init__(
        self, message: str, *, code: int | None = None, sub_code: str | None = None,
        category: Category | None = None, **fields: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        if sub_code is not None:
            self.sub_code = sub_code
        if category is not None:
            self.category = category
        self.fields = fields

    @property
    def key(self) -> str:
        return f"{self.code}/{self.sub_code}"


class BadRequest(EdgecallError):
    """Wrong input: nothing was done, and trying the same again is useless."""

    code = 400
    sub_code = "badRequest"
    category = Category.EXPECTED


class NotPermitted(EdgecallError):
    """The sender is unknown (401) or its scope is too small (403)."""

    code = 403
    sub_code = "scope"
    category = Category.EXPECTED


class Refused(EdgecallError):
    """A right command that cannot be carried out now; the message says what to do."""

    code = 409
    sub_code = "state"
    category = Category.EXPECTED
    retryable = True


class SignalingError(EdgecallError):
    """The other side sent something that cannot be used; our state is unchanged."""

    code = 400
    sub_code = "signaling"
    category = Category.SERVER


class SettingsError(EdgecallError):
    """Faults of the settings file, all at once, each with its line or key."""

    code = 400
    sub_code = "settings"
    category = Category.EXPECTED

    def __init__(self, path: str, faults: Sequence[str]) -> None:
        super().__init__(f"{path}: " + "; ".join(faults))
        self.path = path
        self.faults = tuple(faults)


class StoreError(EdgecallError):
    """The data folder failed; the message names the path and what to do."""

    sub_code = "store"
    retryable = True
