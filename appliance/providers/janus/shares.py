"""Who of a room shares what: a second picture, or a feed that does nothing else, under its owner's name. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from appliance.providers.janus.protocol import Person, Stream

__all__ = ["Shares"]


class Shares:
    """Of ``persons`` as they are now; built in one pass and asked for each, so that large rooms hold up nothing.

    A feed that only shares belongs to whom its identity names, else its name; of several of one owner the first counts.
    """

    def __init__(self, persons: Iterable[Person]) -> None:
        everybody = list(persons)
        self._sharing = {one.feed: one for one in everybody if one.only_shares}
        others = [one for one in everybody if one.feed not in self._sharing]
        self._identities = {one.identity for one in others if one.identity}
        self._names = {one.name for one in others if one.name}
        self._unidentified_names = {one.name for one in others if one.name and not one.identity}
        self._by_identity: dict[str, Person] = {}
        self._by_owner: dict[str, Person] = {}  # whose identity is not asked for
        self._unidentified: dict[str, Person] = {}  # those of them that name none themselves
        for one in self._sharing.values():
            if one.identity:
                self._by_identity.setdefault(one.identity, one)
            else:
                self._unidentified.setdefault(one.owner, one)
            self._by_owner.setdefault(one.owner, one)

    def only(self, person: Person) -> bool:
        """Whether this one does nothing else."""
        return person.feed in self._sharing

    def of(self, person: Person) -> tuple[str, Stream] | None:
        """What this one shares, and the feed that it comes by."""
        if person.content is not None:
            return person.feed, person.content
        found = self._by_identity.get(person.identity) if person.identity else None
        if found is None and person.name:
            found = (self._unidentified if person.identity else self._by_owner).get(person.name)
        return None if found is None or found.content is None else (found.feed, found.content)

    def is_of_another(self, person: Person) -> bool:
        """Whether it is shown as what somebody else shares."""
        if person.feed not in self._sharing:
            return False
        if person.identity in self._identities:
            return True
        return person.owner in (self._unidentified_names if person.identity else self._names)
