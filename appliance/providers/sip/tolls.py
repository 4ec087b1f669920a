"""Guards against calls that cost money and that nobody wants: which numbers may be called, and how often in an hour.

They stand before every call, also one that the other side sends us on to. What is refused is told, for it may be the
first sign that somebody has got hold of the device.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

from appliance.errors import Refused
from appliance.providers.sip.uri import Uri
from appliance.settings import SipSettings
from appliance.vocabulary import END_REASONS

__all__ = ["TollGuard"]

HOUR_S: Final = 3600.0
TARGETS: Final = 256  # whose calls are remembered; who was called longest ago is forgotten first

_NUMBER: Final = re.compile(r"\+?[0-9*#]+")


class _Hour:
    """At most ``most`` within any hour."""

    def __init__(self, most: int) -> None:
        self._times: deque[float] = deque(maxlen=most)

    def full(self, now: float) -> bool:
        return len(self._times) == self._times.maxlen and now - self._times[0] < HOUR_S

    def note(self, now: float) -> None:
        self._times.append(now)


class TollGuard:
    """``number``: a telephone number as E.164, empty where it is none of the world; ``told``: why a call was refused,
    and to whom it was."""

    def __init__(
        self, settings: SipSettings, *, number: Callable[[str], str], told: Callable[[str, str], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._number = number
        self._told = told
        self._monotonic = monotonic
        self._all = _Hour(settings.calls_per_hour)
        self._targets: OrderedDict[str, _Hour] = OrderedDict()

    def admit(self, uri: Uri) -> None:
        """Count one more call to ``uri``. Raises Refused (403/numberBarred, 429/callLimit) and counts nothing."""
        who = self._who(uri)
        prefixes = self._settings.allowed_prefixes
        if prefixes and _NUMBER.fullmatch(who) and not who.startswith(prefixes):
            self._refuse("403/numberBarred", uri)
        now = self._monotonic()
        target = self._targets.get(who) or _Hour(self._settings.calls_per_target)
        if target.full(now):
            self._refuse("429/callLimit", uri, " It has called this number as often as it may call one.")
        if self._all.full(now):
            self._refuse("429/callLimit", uri)
        self._all.note(now)
        target.note(now)
        self._targets[who] = target
        self._targets.move_to_end(who)
        if len(self._targets) > TARGETS:
            self._targets.popitem(last=False)

    def _who(self, uri: Uri) -> str:
        """A number is the same however it is written: in ``tel:`` or a ``sip:`` address, with separators or not."""
        written = re.sub(r"[-.() ]", "", uri.identity)
        if (not uri.user and uri.scheme != "tel") or _NUMBER.fullmatch(written) is None:
            return str(uri.bare())
        return self._number(written) or written

    def _refuse(self, key: str, uri: Uri, more: str = "") -> None:
        known = END_REASONS[key]
        self._told(known.sub_code, str(uri.bare()))
        raise Refused(known.message + more, code=known.code, sub_code=known.sub_code, category=known.category,
                      retryable=False)
