"""Guards against calls that cost money and that nobody wants: which numbers may be called, and how often in an hour.

They stand before every call, also one that the other side sends us on to. What is refused is told, for it may be the
first sign that somebody has got hold of the device. A restart forgets no call: who can pull the plug could call as
often as he likes otherwise. As no clock tells how long the device was off, that time does not count.
"""

from __future__ import annotations

import json
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Final

from appliance.errors import Refused
from appliance.providers.sip.uri import Uri
from appliance.settings import SipSettings
from appliance.vocabulary import END_REASONS

__all__ = ["TollGuard"]

log = logging.getLogger(__name__)

HOUR_S: Final = 3600.0
TARGET: Final = 128  # characters of an address that tell it from others

_NUMBER: Final = re.compile(r"\+?[0-9*#]+")


class TollGuard:
    """``number``: a telephone number as E.164, empty where it is none of the world; ``told``: why a call was refused,
    and to whom it was; ``keep``: what the next start is to ``recall``."""

    def __init__(
        self, settings: SipSettings, *, number: Callable[[str], str], told: Callable[[str, str], None],
        monotonic: Callable[[], float], keep: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._number = number
        self._told = told
        self._monotonic = monotonic
        self._keep = keep
        self._calls: deque[tuple[float, str]] = deque(maxlen=settings.calls_per_hour)  # of the last hour: when, whom

    def recall(self, kept: str) -> None:
        """What was kept before a restart, as if that had taken no time."""
        now = self._monotonic()
        try:
            calls = [(now - _age_of(age), str(who)) for age, who in json.loads(kept)]
        except (ValueError, TypeError):
            log.warning("the calls of the last hour before the restart cannot be read, and are forgotten")
            return
        self._calls.extend(calls)

    def admit(self, uri: Uri) -> None:
        """Count one more call to ``uri``. Raises Refused (403/numberBarred, 429/callLimit) and counts nothing."""
        who = self._who(uri)
        prefixes = self._settings.allowed_prefixes
        if prefixes and _NUMBER.fullmatch(who) and not who.startswith(prefixes):
            self._refuse("403/numberBarred", uri)
        now = self._monotonic()
        while self._calls and now - self._calls[0][0] >= HOUR_S:
            self._calls.popleft()
        who = who[:TARGET]
        if sum(called == who for _, called in self._calls) >= self._settings.calls_per_target:
            self._refuse("429/callLimit", uri, " It has called this number as often as it may call one.")
        if len(self._calls) >= self._settings.calls_per_hour:
            self._refuse("429/callLimit", uri)
        self._calls.append((now, who))
        self._keep(json.dumps([(round(now - at, 1), called) for at, called in self._calls]))

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


def _age_of(seconds: object) -> float:
    if not isinstance(seconds, int | float) or not 0 <= seconds <= HOUR_S:
        raise ValueError("this is no age of a call")
    return seconds
