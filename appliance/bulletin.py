"""What everybody may know: the latest state documents and the stream of events. Lives on the loop."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from appliance.vocabulary import EVENTS, STATES, VOLATILE, Event, Json, Snapshot

__all__ = ["Bulletin"]

_T = TypeVar("_T")


class Bulletin:
    """Holds one Snapshot; tells subscribers of changed documents and of events, on the loop.

    A subscriber is called at once and must not block; an exception it raises is a defect of that subscriber.
    """

    def __init__(self, boot: str) -> None:
        self.boot = boot
        self._rev = 0
        self._seq = 0
        self._documents: dict[str, Json] = {}
        self._on_document: list[Callable[[str, Json, int], None]] = []
        self._on_event: list[Callable[[Event], None]] = []
        self._on_sample: list[Callable[[Json], None]] = []

    @property
    def rev(self) -> int:
        """Revision of the state; rises with every change (``state_rev`` of answers)."""
        return self._rev

    def snapshot(self) -> Snapshot:
        return Snapshot(self._rev, dict(self._documents))

    def document(self, name: str) -> Json:
        return self._documents.get(name, {})

    def set(self, name: str, document: Json) -> bool:
        """Replace one document; returns whether it changed. Documents are replaced, never mutated."""
        if name not in STATES or name == VOLATILE:
            raise KeyError(f"no state document {name!r}; known: {', '.join(STATES)}")
        if self._documents.get(name) == document:
            return False
        self._rev += 1
        self._documents[name] = document
        for tell in tuple(self._on_document):
            tell(name, document, self._rev)
        return True

    def merge(self, name: str, /, **fields: Any) -> bool:
        """Replace fields of one document that several rooms write to; returns whether it changed."""
        return self.set(name, {**self.document(name), **fields})

    def post(self, event_type: str, /, **data: Any) -> Event:
        """Tell of an event of the vocabulary; returns it with its id."""
        return self._post(event_type, uuid.uuid4(), data)

    def post_again(self, event_type: str, what: str, /, **data: Any) -> Event:
        """Tell of what a crash may make us tell twice: its id is made of ``what``, so that whoever hears it twice knows
        (CloudEvents 1.0, 3.1)."""
        return self._post(event_type, uuid.uuid5(uuid.NAMESPACE_OID, f"{event_type} {what}"), data)

    def _post(self, event_type: str, name: uuid.UUID, data: Json) -> Event:
        if event_type not in EVENTS:
            raise KeyError(f"no event {event_type!r}")
        self._seq += 1
        event = Event(event_type, data, time.time(), str(name), self._seq)
        for tell in tuple(self._on_event):
            tell(event)
        return event

    def sample(self, document: Json) -> None:
        """Tell subscribers a document that is not kept: ``quality``."""
        for tell in tuple(self._on_sample):
            tell(document)

    def republish(self) -> None:
        """Tell subscribers every document again (``state.rebirth``)."""
        for name, document in self._documents.items():
            for tell in tuple(self._on_document):
                tell(name, document, self._rev)

    @contextmanager
    def subscribed(
        self, *, on_document: Callable[[str, Json, int], None] | None = None,
        on_event: Callable[[Event], None] | None = None, on_sample: Callable[[Json], None] | None = None,
    ) -> Iterator[None]:
        """Subscribe for the duration of the block."""
        with (_listening(self._on_document, on_document), _listening(self._on_event, on_event),
              _listening(self._on_sample, on_sample)):
            yield


@contextmanager
def _listening(listeners: list[_T], listener: _T | None) -> Iterator[None]:
    if listener is None:
        yield
        return
    listeners.append(listener)
    try:
        yield
    finally:
        listeners.remove(listener)
