"""Where every door hands its commands in: admission, journal, execution, one final answer each (decisions A)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from appliance.vocabulary import Answer, Command, Json

__all__ = ["Handler", "Submit"]

Handler = Callable[[Command], Awaitable[Json | None]]
"""Carries out one verb; returns the answer's data. Raises EdgecallError or HardwareError."""

Handlers = Mapping[str, Handler]
"""Verb name to handler; composed by ``__main__`` from the rooms that carry verbs out."""


class Submit(Protocol):
    """What a door is handed."""

    async def submit(self, command: Command) -> Answer:
        """Admit, journal and start; returns the first answer: final for short verbs, ``accepted`` for long ones.

        When this returns, the command is committed to the journal: only now may MQTT acknowledge it.
        """

    async def final(self, command_id: str, deadline_s: float) -> Answer | None:
        """Wait for the final answer; None when it has not come in time."""

    def on_answer(self, tell: Callable[[Command, Answer], None]) -> None:
        """Told, on the loop, of every answer after the first one (the finals of long commands)."""
