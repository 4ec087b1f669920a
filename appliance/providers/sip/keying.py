"""What is pressed after a call was answered, as a text: digits, ``,`` for a pause of 2 s, and ``w`` to wait until an
announcement is over. Pure.

And the texts of services that let telephones into a meeting. They ask for its number, and some for more, each time with
``#`` behind; whoever joins so is a telephone there, with sound alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from appliance.settings import MeetingSettings

__all__ = ["PAUSE_S", "PROMPT_S", "SOUND_DB", "Digits", "Ears", "Pause", "Prompt", "Step", "Turn", "sequence_of",
           "steps_of", "turns_of"]

PAUSE_S: Final = 2.0
SOUND_DB: Final = -45.0  # dBFS; above it somebody speaks, or a tone is played
SPEECH_S: Final = 0.3  # of it make an announcement
QUIET_S: Final = 1.0  # without sound end it; between two sentences is less
PROMPT_S: Final = 20.0  # then it goes on all the same: some services say nothing, others play music


@dataclass(frozen=True, slots=True)
class Digits:
    keys: str


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


class Prompt(Enum):
    OVER = "wait until an announcement is over"


Step = Digits | Pause | Prompt


@dataclass(frozen=True, slots=True)
class Turn:
    """What is waited for, and the keys that are pressed then: none of the last turn."""

    waits: tuple[Pause | Prompt, ...]
    keys: str


def steps_of(text: str) -> tuple[Step, ...]:
    """``text`` has been checked by its door, or the settings."""
    steps: list[Step] = []
    for part in re.findall(r"[0-9*#A-D]+|,+|W", text.upper()):
        if part == "W":
            steps.append(Prompt.OVER)
        elif part[0] == ",":
            steps.append(Pause(PAUSE_S * len(part)))
        else:
            steps.append(Digits(part))
    return tuple(steps)


def turns_of(steps: Sequence[Step]) -> Sequence[Turn]:
    turns: list[Turn] = []
    waits: list[Pause | Prompt] = []
    for step in steps:
        if isinstance(step, Digits):
            turns.append(Turn(tuple(waits), step.keys))
            waits.clear()
        else:
            waits.append(step)
    return [*turns, Turn(tuple(waits), "")]


def sequence_of(meeting: MeetingSettings) -> str:
    """What lets a telephone into this meeting."""
    passcode = meeting.passcode.reveal()
    match meeting.profile:
        case "teams":  # the conference id, and nothing more
            return f"w{meeting.id}#"
        case "zoom":  # the meeting's id; no id of a participant; the passcode where there is one
            return f"w{meeting.id}#w#" + (f"w{passcode}#" if passcode else "")
        case "twilio":  # TwiML behind the number connects the call to its room by itself, or asks for an id first
            return f"w{meeting.id}#" if meeting.id else ""
        case _:
            return meeting.digits


class Ears:
    """Whether an announcement has been and is over, by the loudness of what comes; told once of each."""

    def __init__(self) -> None:
        self._spoke_s = 0.0
        self._quiet_s = 0.0

    def hear(self, level_db: float, seconds: float) -> bool:
        """``level_db`` dBFS for ``seconds``; returns whether it is over now."""
        if level_db > SOUND_DB:
            self._spoke_s += seconds
            self._quiet_s = 0.0
        else:
            self._quiet_s += seconds
        over = self._spoke_s >= SPEECH_S and self.hears_nothing
        if over:
            self._spoke_s = 0.0
        return over

    @property
    def hears_nothing(self) -> bool:
        """For long enough that nothing is being said."""
        return self._quiet_s >= QUIET_S
