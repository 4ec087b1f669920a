"""The address book: who is called by which name, who may call, who is answered by itself.

Entries come from ``[[book]]`` in the settings and, above them, from ``book.json`` in the data folder (``book.put``
and ``book.remove``), written atomically so that a power cut leaves the old or the new book. A name that was removed
while it stands in the settings stays removed: ``book.json`` remembers that.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from appliance.durable import replace_file
from appliance.errors import BadRequest, Refused, StoreError
from appliance.providers.api import Peer, Target
from appliance.settings import BookSettings

__all__ = ["SCHEMES", "AddressBook", "Entry", "Round", "entries_of", "parse_uri", "save"]

log = logging.getLogger(__name__)

SCHEMES: Final = frozenset({"device", "operator", "lan", "tel", "sip", "sips", "room", "audio", "meeting", "whip"})
MAX_ENTRIES: Final = 1000  # an address book, not a directory; bounds memory and the file
SHORT_CODE: Final = 6  # digits
MEETING_S: Final = 120  # until a meeting is entered: announcements, digits, and all of it twice
MAX_DEPTH: Final = 4  # groups of groups, and fallback chains

Strategy = Literal["sequence", "parallel"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One name. ``members`` makes it a ring group; ``fallback`` is dialled when nobody of it answers."""

    name: str
    uris: tuple[str, ...] = ()
    ring_s: int | None = None
    auto_answer: bool = False
    allowed: bool = True
    members: tuple[str, ...] = ()
    strategy: Strategy = "sequence"
    fallback: str = ""

    def payload(self) -> dict[str, Any]:
        """The entry in the words of ``book.put``."""
        return {"name": self.name, "uris": list(self.uris), "ringSeconds": self.ring_s, "autoAnswer": self.auto_answer,
                "allowed": self.allowed, "members": list(self.members), "strategy": self.strategy,
                "fallback": self.fallback}


OPERATORS: Final = Entry("Operators", ("operator:*",))
"""Who opened the page with an address or token of ours may call and be called, unless the settings say otherwise."""


def entries_of(book: Sequence[BookSettings]) -> list[Entry]:
    """The entries of ``[[book]]``, and OPERATORS where none of them speaks of all operators."""
    entries = [Entry(one.name, one.uris, one.ring_seconds or None, one.auto_answer, one.allowed, one.members,
                     "parallel" if one.strategy == "parallel" else "sequence", one.fallback) for one in book]
    covered = any("operator:*" in entry.uris for entry in entries)
    return entries if covered else [OPERATORS, *entries]


@dataclass(frozen=True, slots=True)
class Round:
    """Targets that ring at the same time, for how long."""

    targets: tuple[Target, ...]
    ring_s: int


def parse_uri(text: str, country: str = "") -> Target:
    """A target from ``scheme:address``, or a phone number (E.164, or national with ``country``, ISO 3166 alpha-2).

    Raises BadRequest naming what is wrong.
    """
    scheme, colon, address = text.partition(":")
    if not colon:
        return Target("tel", _e164(text, country))
    scheme = scheme.lower()
    if scheme not in SCHEMES:
        raise BadRequest(f"{text!r}: unknown scheme {scheme!r}; known: {', '.join(sorted(SCHEMES))}", sub_code="target")
    if not address or len(address) > 250 or any(c.isspace() or not c.isprintable() for c in address):
        raise BadRequest(f"{text!r}: the address after {scheme}: is empty, too long or has blanks", sub_code="target")
    return Target(scheme, _e164(address, country) if scheme == "tel" else address)


def _e164(number: str, country: str) -> str:
    if number.isascii() and number.isdigit() and 3 <= len(number) <= SHORT_CODE:
        return number  # 110 and its kin: dialled as they are, in no country's form
    import phonenumbers

    try:
        parsed = phonenumbers.parse(number, country.upper() or None)
    except phonenumbers.NumberParseException as error:
        raise BadRequest(
            f"{number!r} is neither a name in the address book nor a phone number "
            "(international form +49301234567, or set device.country for national ones)",
            code=404, sub_code="notFound") from error
    if not phonenumbers.is_possible_number(parsed):
        raise BadRequest(f"{number!r} is not a possible phone number", sub_code="target")
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


class AddressBook:
    """The book in memory. ``save`` writes it; the caller keeps that off the loop."""

    def __init__(self, settings_entries: Iterable[Entry] = (), *, country: str = "") -> None:
        self._base = {entry.name: entry for entry in settings_entries}
        self._own: dict[str, Entry | None] = {}  # None: removed though the settings have it
        self._country = country
        self._entries: list[Entry] = []
        self._by_name: dict[str, Entry] = {}
        self._by_uri: dict[str, Entry] = {}
        self._by_scheme: dict[str, Entry] = {}  # of ``operator:*`` and its kin
        self._arrange()

    def rebase(self, settings_entries: Iterable[Entry]) -> None:
        """Take the entries of reloaded settings; what ``book.put`` and ``book.remove`` did stays above them."""
        self._base = {entry.name: entry for entry in settings_entries}
        self._arrange()

    def _arrange(self) -> None:
        """Parse every address once: callers are looked up at each message of a call."""
        merged: dict[str, Entry | None] = {**self._base, **self._own}
        self._entries = sorted((one for one in merged.values() if one is not None), key=lambda one: one.name.lower())
        self._by_name, self._by_uri, self._by_scheme = {}, {}, {}
        for entry in self._entries:
            self._by_name.setdefault(entry.name.casefold(), entry)
            for uri in entry.uris:
                try:
                    target = parse_uri(uri, self._country)
                except BadRequest as error:  # a national number after device.country was taken away
                    log.warning("address book: %r cannot be called at %s: %s", entry.name, uri, error.message)
                    continue
                self._by_uri.setdefault(target.uri, entry)
                if target.address == "*":
                    self._by_scheme.setdefault(target.scheme, entry)

    # --- look up ----------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All entries by name."""
        return list(self._entries)

    def get(self, name: str) -> Entry | None:
        """By name; case does not matter."""
        return self._by_name.get(name.casefold())

    def caller(self, peer: Peer) -> Entry | None:
        """The entry a caller belongs to: one of its URIs is the caller's, else one that covers it (``operator:*``)."""
        return self._by_uri.get(peer.uri) or self._by_scheme.get(peer.uri.partition(":")[0].lower())

    def named(self, peer: Peer) -> Peer:
        """The peer under the name the book has for just its address.

        ``operator:*`` is such an address while everybody rings; who answers has one of his own, and is not covered.
        """
        entry = self._by_uri.get(peer.uri)
        return peer if entry is None else replace(peer, display_name=entry.name)

    def plan(self, names: Sequence[str], strategy: Strategy | None, ring_s: int) -> list[Round]:
        """The rounds to dial for names or URIs: groups opened, fallbacks appended, each target once.

        Raises BadRequest (404/notFound) for what is neither a name nor a URI, and for a chain that never ends.
        """
        rounds: list[Round] = []
        seen: set[str] = set()
        if strategy == "parallel" and len(names) > 1:
            opened = [self._open(name, ring_s, seen, 0) for name in names]
            rounds = _merge(opened)
        else:
            for name in names:
                rounds += self._open(name, ring_s, seen, 0)
        if not rounds:
            raise BadRequest("there is nothing to dial: every target was named twice", sub_code="target")
        return rounds

    def _open(self, name: str, ring_s: int, seen: set[str], depth: int) -> list[Round]:
        if depth > MAX_DEPTH:
            raise Refused(f"the ring group or fallback chain at {name!r} is more than {MAX_DEPTH} deep",
                          code=482, sub_code="loop", retryable=False)
        entry = self.get(name)
        if entry is None:
            target = parse_uri(name, self._country)
            if target.uri in seen:
                return []
            seen.add(target.uri)
            return [Round((target,), max(ring_s, MEETING_S) if target.scheme == "meeting" else ring_s)]
        seconds = entry.ring_s or ring_s
        opened = [self._open(member, seconds, seen, depth + 1) for member in (*entry.uris, *entry.members)]
        # The URIs of one person are tried best first; a group rings as it says.
        rounds = _merge(opened) if entry.members and entry.strategy == "parallel" else [r for o in opened for r in o]
        if entry.fallback:
            rounds += self._open(entry.fallback, ring_s, seen, depth + 1)
        return rounds

    # --- change -----------------------------------------------------------------------------------------------------

    def put(self, entry: Entry) -> None:
        """Add or replace. Raises BadRequest for a wrong URI, a name that reads as a URI, or a full book."""
        if ":" in entry.name:
            raise BadRequest(f"the name {entry.name!r} must not contain a colon: it would read as an address",
                             sub_code="name")
        if not entry.uris and not entry.members:
            raise BadRequest(f"{entry.name!r} needs at least one URI or member", sub_code="target")
        for uri in entry.uris:
            parse_uri(uri, self._country)
        if self.get(entry.name) is None and len(self._entries) >= MAX_ENTRIES:
            raise Refused(f"the address book is full ({MAX_ENTRIES} entries); remove one first",
                          code=507, sub_code="bookFull", retryable=False)
        self._forget(entry.name)
        self._own[entry.name] = entry
        self._arrange()

    def remove(self, name: str) -> None:
        """Raises BadRequest (404/notFound) when there is no such name."""
        entry = self.get(name)
        if entry is None:
            raise BadRequest(f"there is no {name!r} in the address book", code=404, sub_code="notFound")
        self._forget(entry.name)
        if entry.name in self._base:
            self._own[entry.name] = None
        self._arrange()

    def _forget(self, name: str) -> None:
        wanted = name.casefold()
        for known in [known for known in self._own if known.casefold() == wanted]:
            del self._own[known]
        for known in [known for known in self._base if known.casefold() == wanted and known != name]:
            self._own[known] = None

    # --- keep -------------------------------------------------------------------------------------------------------

    def load(self, path: Path) -> None:
        """Read ``book.json``; a missing file is an empty one. Raises StoreError. Blocking."""
        try:
            document = json.loads(path.read_text("utf-8"))
            own = {name: _entry(name, kept) for name, kept in document["entries"].items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"the address book {path} cannot be read ({error}); it is left as it is, and the entries "
                             "of the settings are used. Repair or delete the file.") from error
        self._own = own
        self._arrange()

    def dump(self) -> str:
        """What ``save`` writes; taken on the loop, so that the writing thread sees one state."""
        entries = {name: asdict(entry) if entry else None for name, entry in self._own.items()}
        return json.dumps({"version": 1, "entries": entries}, indent=1)


def save(path: Path, text: str) -> None:
    """Write what ``dump`` gave. Raises StoreError. Blocking."""
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise StoreError(f"the address book {path} cannot be written: {error.strerror}. "
                         "Check space and rights of the data folder.") from error


def _entry(name: str, kept: Mapping[str, Any] | None) -> Entry | None:
    """What a later version keeps beside is passed over: going back to this one must not cost the book."""
    if kept is None:
        return None
    known = {one.name: kept[one.name] for one in fields(Entry) if one.name in kept}
    return replace(Entry(**{**known, "name": name}), uris=tuple(kept["uris"]), members=tuple(kept["members"]))


def _merge(opened: Sequence[Sequence[Round]]) -> list[Round]:
    """Rounds side by side: the first of each together, then the second of each …"""
    merged: list[Round] = []
    for step in range(max((len(rounds) for rounds in opened), default=0)):
        at_once = [rounds[step] for rounds in opened if step < len(rounds)]
        targets = tuple(target for one in at_once for target in one.targets)
        merged.append(Round(targets, max(one.ring_s for one in at_once)))
    return merged
