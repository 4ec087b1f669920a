"""The one schema: verbs, answers, events, state documents, call and participant states, reasons.

No behaviour. The MQTT payload checks, HTTP routes, OpenAPI, CLI, AsyncAPI, the broker's ACL file and the reference
in ``docs/`` are generated from what is declared here (``appliance/faces``). A verb stands here when it is built.

Names follow Azure Communication Services for states and diagnostics, SIP (RFC 3261) for codes, CloudEvents 1.0
for events, W3C webrtc-stats for statistics.
"""

from __future__ import annotations

from appliance.vocabulary.calls import (
    END_REASONS,
    CallKind,
    CallState,
    CapabilityReason,
    Direction,
    MutedBy,
    ParticipantState,
    Reason,
    Role,
    calling,
)
from appliance.vocabulary.commands import (
    DEVICE_KINDS,
    DIALECTS,
    ID_PATTERN,
    MAX_PAYLOAD,
    ROOT,
    Answer,
    Arg,
    ArgType,
    Category,
    Command,
    Json,
    Origin,
    Result,
    Scope,
    Verb,
)
from appliance.vocabulary.diagnostics import (
    DIAGNOSTICS,
    Diagnostic,
    DiagnosticType,
)
from appliance.vocabulary.events import (
    DOCUMENTS,
    EVENT_PREFIX,
    EVENTS,
    SAMPLE_S,
    STATES,
    VOLATILE,
    Event,
    KeyMethod,
    KeyPress,
    Snapshot,
)
from appliance.vocabulary.verbs import (
    FITS,
    KEY_METHODS,
    LAYOUTS,
    QUALITIES,
    VERB,
    VERBS,
    verbs_for,
)

__all__ = [
    "DEVICE_KINDS", "DIAGNOSTICS", "DIALECTS", "DOCUMENTS", "END_REASONS", "EVENTS", "EVENT_PREFIX", "FITS",
    "ID_PATTERN", "KEY_METHODS", "LAYOUTS", "MAX_PAYLOAD", "QUALITIES", "ROOT", "SAMPLE_S", "STATES", "VERB",
    "VERBS", "VOLATILE", "Answer", "Arg", "ArgType", "CallKind", "CallState", "CapabilityReason", "Category",
    "Command", "Diagnostic", "DiagnosticType", "Direction", "Event", "Json", "KeyMethod", "KeyPress", "MutedBy",
    "Origin", "ParticipantState", "Reason", "Result", "Role", "Scope", "Snapshot", "Verb", "calling", "verbs_for",
]
