"""The lock behind the keys of a telephone: which rule of ``door.codes`` they are for, and whether they are right. Pure.

An entry is what is pressed without a pause of PAUSE_S. A code without a PIN acts as soon as it is complete; a PIN is
ended by ``#``, so that a wrong one is known as that, and counted. ``*`` begins anew. WRONG wrong PINs lock their rule:
for LOCK_S, then for twice as long each time, up to LOCKED_MOST_S, until the right one is given. While it is locked, and
in a call that may not, no PIN is compared: nobody learns there whether it was right. A restart forgets none of it: a
lock begins anew then, as no clock tells how long the device was off.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from appliance.settings import CodeSettings
from appliance.vocabulary import Direction, KeyPress

__all__ = ["LOCK_S", "PAUSE_S", "WRONG", "CodeLock", "Verdict", "Why"]

PAUSE_S: Final = 8.0  # between two keys; people look the next one up
KEYS: Final = 32  # of one entry: the longest code, the longest PIN, and what no rule has
WRONG: Final = 5
LOCK_S: Final = 60.0
LOCKED_MOST_S: Final = 3600.0

_Kept = tuple[int, float, float]
"""Of one rule: how often its PIN was wrong since it was locked, seconds of its next lock, and of the one that holds."""
_UNTOUCHED: Final[_Kept] = (0, LOCK_S, 0.0)


class Why(StrEnum):
    """Why the relay stays as it is."""

    WRONG_PIN = "wrongPin"
    LOCKED = "locked"  # wrong too often
    NOT_ENCRYPTED = "notEncrypted"
    NOT_VERIFIED = "notVerified"  # nobody vouches for who calls


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an entry. ``refused``: None where the relay is to close. ``locks_s``: locked from now on."""

    rule: CodeSettings
    refused: Why | None = None
    locks_s: float = 0.0


@dataclass(slots=True)
class _Guard:
    """One rule, and how often its PIN was wrong."""

    rule: CodeSettings
    wrong: int = 0
    lock_s: float = LOCK_S  # next time
    locked_s: float = 0.0  # this time
    locked_until: float = float("-inf")
    peers: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.peers = frozenset(peer.casefold() for peer in self.rule.peers)

    def concerns(self, key: KeyPress) -> bool:
        direction = "incoming" if key.direction is Direction.INCOMING else "outgoing"
        if self.rule.direction not in (direction, "both"):
            return False
        return "*" in self.peers or bool({key.name.casefold(), key.uri.casefold()} & self.peers)

    def bars(self, key: KeyPress, now: float) -> Why | None:
        """Why no entry of this call is looked at; ``*`` asks nobody who he is, the PIN does."""
        if key.direction is Direction.INCOMING and not key.verified and "*" not in self.peers:
            return Why.NOT_VERIFIED
        if not key.encrypted and not self.rule.allow_plain:
            return Why.NOT_ENCRYPTED
        return Why.LOCKED if now < self.locked_until else None

    def goes_on(self, entry: str) -> bool:
        """Whether it may still become what this rule is about."""
        return self.rule.code.startswith(entry) or (bool(self.rule.pin) and entry.startswith(self.rule.code))

    def opens(self, entry: str) -> bool:
        """Whether the PIN behind the code is right; in constant time for one length."""
        return hmac.compare_digest(entry[len(self.rule.code):].encode(), self.rule.pin.reveal().encode())

    def right(self) -> None:
        self.wrong, self.lock_s = 0, LOCK_S

    def mistaken(self, now: float) -> float:
        """Seconds for which it is locked from now on; 0 while it is not."""
        self.wrong += 1
        if self.wrong < WRONG:
            return 0.0
        seconds, self.wrong = self.lock_s, 0
        self.locked_s, self.locked_until = seconds, now + seconds
        self.lock_s = min(2 * seconds, LOCKED_MOST_S)
        return seconds

    def kept(self, now: float) -> _Kept:
        return self.wrong, self.lock_s, self.locked_s if now < self.locked_until else 0.0

    def recall(self, kept: _Kept, now: float) -> float:
        """Seconds for which it is locked from now on; 0 where it is not."""
        self.wrong, self.lock_s, self.locked_s = kept
        self.locked_until = now + self.locked_s
        return self.locked_s


class CodeLock:
    """One call at a time. Wrong PINs are counted over all calls, and over restarts by ``kept`` and ``recall``."""

    def __init__(self, rules: Sequence[CodeSettings]) -> None:
        self._guards = [_Guard(rule) for rule in rules]
        self._starred = any(rule.code.startswith("*") for rule in rules)
        self._call = ""
        self._entry = ""
        self._at = float("-inf")

    def kept(self, now: float) -> str:
        """What a restart must not forget: JSON, by the names of the rules whose PIN was wrong."""
        counts = {one.rule.name: one.kept(now) for one in self._guards}
        return json.dumps({name: kept for name, kept in counts.items() if kept != _UNTOUCHED})

    def recall(self, kept: str, now: float) -> Sequence[tuple[CodeSettings, float]]:
        """Take over what was ``kept``; returns the rules that are locked, and for how many seconds. Raises ValueError,
        and takes nothing."""
        counts = json.loads(kept)
        if not isinstance(counts, dict):
            raise ValueError("these are no counts of wrong PINs")  # noqa: TRY004 - as for any other text
        known = {name: _count_of(value) for name, value in counts.items()}
        locked = [(one.rule, one.recall(known.get(one.rule.name, _UNTOUCHED), now)) for one in self._guards]
        return [(rule, seconds) for rule, seconds in locked if seconds]

    def may_be_secret(self, key: KeyPress) -> bool:
        """Whether keys of this call may belong to a PIN, and are not to be told."""
        return any(guard.rule.pin for guard in self._guards if guard.concerns(key))

    def press(self, key: KeyPress, now: float) -> Verdict | None:
        """What comes of it; None while nothing does. ``now``: monotonic seconds."""
        guards = [guard for guard in self._guards if guard.concerns(key)]
        if key.call_id != self._call or now - self._at > PAUSE_S:
            self._entry = ""
        self._call, self._at = key.call_id, now
        if not guards:
            return None
        if key.digit == "*":
            self._entry = "*" if self._starred else ""
        elif len(self._entry) < KEYS:
            self._entry += key.digit
        if not any(guard.goes_on(self._entry) for guard in guards):
            self._entry = key.digit  # a slip of the finger, and then the right key
        for guard in guards:
            if guard.rule.without_pin and guard.rule.code == self._entry:
                self._entry = ""
                return Verdict(guard.rule, guard.bars(key, now))
        if key.digit != "#":
            return None
        entry, self._entry = self._entry[:-1], ""
        return self._judge(entry, [one for one in guards if one.rule.pin], key, now)

    @staticmethod
    def _judge(entry: str, guards: Sequence[_Guard], key: KeyPress, now: float) -> Verdict | None:
        """Whose PIN it is; a wrong one counts for each whose it might have been."""
        meant = [one for one in guards if entry.startswith(one.rule.code) and len(entry) > len(one.rule.code)]
        if not meant:
            return None
        able = [one for one in meant if one.bars(key, now) is None]
        if not able:
            return Verdict(meant[0].rule, meant[0].bars(key, now))
        right = [one for one in able if one.opens(entry)]
        if right:
            right[0].right()
            return Verdict(right[0].rule)
        return Verdict(able[0].rule, Why.WRONG_PIN, max(one.mistaken(now) for one in able))


def _count_of(value: object) -> _Kept:
    match value:
        case [int(wrong), int() | float() as lock_s, int() | float() as locked_s]:
            if 0 <= wrong < WRONG and LOCK_S <= lock_s <= LOCKED_MOST_S and 0 <= locked_s <= LOCKED_MOST_S:
                return wrong, lock_s, locked_s
    raise ValueError("this is no count of wrong PINs")
