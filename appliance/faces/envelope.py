"""The envelope of a command: bytes of any door in, one checked Command out; the answer's bytes.

Wire form: ``{"id": "...", "ts": 1767225600.0, "ttl_s": 5, "args": {...}, "nonce": "..."}``; always needed is ``id``.
Strict: I-JSON (RFC 7493: no duplicate names, no lone surrogates, integers within 2^53), no unknown field, no coercion.
Pure: the monotonic clock is handed in.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

from appliance.errors import BadRequest, EdgecallError, NotPermitted, Refused
from appliance.vocabulary import (
    END_REASONS,
    MAX_PAYLOAD,
    VERB,
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
from hw.api import HardwareError

__all__ = ["decode", "encode", "parse", "refusal", "salvage_id"]

MAX_DEPTH: Final = 8
"""Levels of arrays and objects, the envelope itself being the first."""

MAX_ID: Final = 64
MAX_NONCE: Final = 128
MAX_QUIET_TTL_S: Final = 7 * 86_400.0
"""Longest ``ttl_s`` of a verb that does not act: as long as the journal remembers an id."""

SAFE_INTEGER: Final = 2**53 - 1
"""RFC 7493, 2.2: what every JSON reader keeps exactly."""

FIELDS: Final = ("id", "ts", "ttl_s", "args", "nonce")


def parse(
    verb: str, body: bytes | Mapping[str, Any], *, origin: Origin, sender: str, scope: Scope,
    mqtt_expiry_s: float | None = None, require_mqtt_expiry: bool = False, correlation: bytes | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Command:
    """Check ``body`` against ``verb``; the deadline is set on ``now``.

    ``mqtt_expiry_s``: what was left of MessageExpiryInterval on arrival. ``require_mqtt_expiry``: an acting verb
    without it, or without ``ts``, is refused (both together catch a stalled link). ``correlation``:
    MQTT 5 Correlation Data, must equal ``id``.

    Raises BadRequest or NotPermitted and nothing else; ``error.fields["command_id"]`` is the id where one was
    readable, so that the refusal can carry it.
    """
    arrived = now()
    command_id = ""
    try:
        document = _document(body)
        command_id = _readable_id(document)
        known = VERB.get(verb)
        if known is None:
            _bad("unknownVerb", f"There is no verb {_shown(verb)}.{_suggest(verb, VERB)}")
        _check_scope(known, scope, sender)
        _check_names(document, FIELDS, "field", "unknownField")
        checked_id = _id(document, correlation)
        ts = _timestamp(document.get("ts"))
        ttl_s = _ttl(known, document.get("ttl_s"))
        if require_mqtt_expiry and known.acts:
            _check_mqtt(known, ts, mqtt_expiry_s)
        args = _args(known, document.get("args", {}))
        nonce = _nonce(document.get("nonce"))
    except (BadRequest, NotPermitted) as error:
        error.fields.setdefault("command_id", command_id)
        raise
    return Command(
        id=checked_id, verb=known, args=args, origin=origin, sender=sender, scope=scope, ts=ts, ttl_s=ttl_s,
        deadline=_deadline(arrived, ttl_s, mqtt_expiry_s if known.acts else None), nonce=nonce,
    )


def refusal(command_id: str, error: Exception, rev: int) -> Answer:
    """The answer an error becomes, the same on every door.

    EdgecallErrors bring code and words. A HardwareError is ``410/deviceFault.media`` with its own words. Anything
    else is a defect: ``500/internal``, and the words stay in the log. ``error.fields["data"]`` (a dict) becomes the
    answer's data.
    """
    if isinstance(error, EdgecallError):
        data = error.fields.get("data")
        return Answer(command_id, _result(error), error.code, error.sub_code, error.category, error.message, rev,
                      data if isinstance(data, dict) else None)
    if isinstance(error, HardwareError):
        return Answer(command_id, Result.FAILED, 410, "deviceFault.media", Category.CLIENT, str(error), rev)
    reason = END_REASONS["500/internal"]
    return Answer(command_id, Result.FAILED, reason.code, reason.sub_code, reason.category, reason.message, rev)


def encode(answer: Answer) -> bytes:
    """The answer's bytes: the same answer gives the same bytes. Raises ValueError for data that is not JSON."""
    try:
        text = json.dumps(answer.payload(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"answer to {answer.id}: {error}") from error
    return text.encode("utf-8", "replace")


def decode(payload: bytes) -> Answer:
    """The inverse of ``encode``; for bytes that ``encode`` made."""
    body = json.loads(payload)
    return Answer(
        body["id"], Result(body["result"]), body["code"], body["subCode"], Category(body["category"]),
        body["message"], body["state_rev"], body.get("data"),
    )


def salvage_id(body: bytes) -> str:
    """The id of a body that cannot be a command, or "": an answer without an id helps nobody find the fault."""
    try:
        return _readable_id(_document(body))
    except BadRequest:
        return ""


# --- the document ---------------------------------------------------------------------------------------------------


def _document(body: bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    document: Any = body
    if isinstance(body, bytes | bytearray | memoryview):
        if len(body) > MAX_PAYLOAD:
            _bad("tooLarge", f"The command has {len(body)} bytes; at most {MAX_PAYLOAD} are taken.")
        document = _json(bytes(body))
    if not isinstance(document, Mapping):
        _bad("badEnvelope", 'A command is a JSON object: {"id": "...", "args": {...}}.')
    _check_value(document, 1)
    return document


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The command is not UTF-8: byte {error.start}.", sub_code="badJson") from error
    except RecursionError as error:
        raise BadRequest(f"The command is nested deeper than {MAX_DEPTH}.", sub_code="badJson") from error
    except ValueError as error:  # JSONDecodeError, and an integer of over 4300 digits
        raise BadRequest(f"The command is not JSON: {error}.", sub_code="badJson") from error


def _object(pairs: list[tuple[str, Any]]) -> Json:
    found: Json = {}
    for name, value in pairs:
        if name in found:
            _bad("duplicateKey", f"{_shown(name)} stands there twice.")
        found[name] = value
    return found


def _constant(text: str) -> NoReturn:
    _bad("badJson", f"{text} is not JSON.")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _bad("badJson", f"{text[:32]} is beyond what a number can hold.")
    return value


def _check_value(value: Any, depth: int) -> None:
    """Depth and I-JSON of a parsed document, or of the mapping a door made itself (where a cycle ends by depth)."""
    if isinstance(value, Mapping | list | tuple):
        if depth > MAX_DEPTH:
            _bad("badJson", f"The command is nested deeper than {MAX_DEPTH}.")
        for name in value if isinstance(value, Mapping) else ():
            if not isinstance(name, str):
                _bad("badJson", f"A name must be a string, not {type(name).__name__}.")
            _check_value(name, depth)
        for inner in value.values() if isinstance(value, Mapping) else value:
            _check_value(inner, depth + 1)
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadRequest("A string holds a lone surrogate.", sub_code="badJson") from error
    elif isinstance(value, int):
        if abs(value) > SAFE_INTEGER:
            _bad("badJson", f"An integer is beyond {SAFE_INTEGER} (RFC 7493).")
    elif isinstance(value, float):
        if not math.isfinite(value):
            _bad("badJson", "A number is not finite.")
    elif value is not None:
        _bad("badJson", f"{type(value).__name__} is not JSON.")


# --- the envelope ---------------------------------------------------------------------------------------------------


def _readable_id(document: Mapping[str, Any]) -> str:
    found = document.get("id")
    return found if isinstance(found, str) and 1 <= len(found) <= MAX_ID and found.isprintable() else ""


def _id(document: Mapping[str, Any], correlation: bytes | None) -> str:
    found = _readable_id(document)
    if not found:
        _bad("badId", f"'id' must be a string of 1 to {MAX_ID} printable characters.")
    if correlation is not None and correlation != found.encode():
        _bad("correlation", "Correlation Data must equal 'id'.")
    return found


def _check_scope(verb: Verb, scope: Scope, sender: str) -> None:
    who = sender or "the sender"
    if not scope.permits(verb.scope):
        raise NotPermitted(f"{verb.name} needs the scope {verb.scope.value}; {who} has {scope.value}.")


def _timestamp(value: Any) -> float | None:
    if value is None:
        return None
    if not _is_number(value) or value < 0:
        _bad("badTimestamp", "'ts' must be the sender's time in seconds since 1970.")
    return float(value)


def _ttl(verb: Verb, value: Any) -> float | None:
    if value is None:
        if verb.acts:
            _bad("noExpiry", f"{verb.name} acts on the world and needs 'ttl_s' (at most {verb.max_ttl_s:g} s).")
        return None
    if not _is_number(value) or value <= 0:
        _bad("badTtl", "'ttl_s' must be a number of seconds above 0.")
    limit = verb.max_ttl_s if verb.acts else MAX_QUIET_TTL_S
    if value > limit:
        _bad("ttlTooLong", f"'ttl_s' of {verb.name} is {value:g} s; at most {limit:g} s.")
    return float(value)


def _check_mqtt(verb: Verb, ts: float | None, expiry_s: float | None) -> None:
    if expiry_s is None:
        _bad("noExpiry", f"{verb.name} needs MessageExpiryInterval: it is missing or ran out on the way.")
    if expiry_s > verb.max_ttl_s:
        _bad("ttlTooLong", f"MessageExpiryInterval of {verb.name} is {expiry_s:g} s; at most {verb.max_ttl_s:g} s.")
    if ts is None:
        _bad("noTimestamp", f"{verb.name} acts on the world and needs 'ts', the sender's time in seconds since 1970.")


def _deadline(arrived: float, ttl_s: float | None, expiry_s: float | None) -> float | None:
    limits = [limit for limit in (ttl_s, expiry_s) if limit is not None]
    return arrived + min(limits) if limits else None


def _nonce(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NONCE:
        _bad("badNonce", f"'nonce' must be the string of the challenge, at most {MAX_NONCE} characters.")
    return value


# --- arguments ------------------------------------------------------------------------------------------------------


def _args(verb: Verb, given: Any) -> Json:
    if not isinstance(given, Mapping):
        _bad("badArg", "'args' must be an object.")
    _check_names(given, [arg.name for arg in verb.args], f"argument of {verb.name}", "unknownArg")
    for arg in verb.args:
        if arg.name in given:
            _check_arg(arg, given[arg.name])
        elif arg.required:
            _bad("missingArg", f"{verb.name} needs {arg.name!r}: {arg.help}.")
    return dict(given)


def _check_arg(arg: Arg, value: Any, within: str = "") -> None:
    """``within``: the names of the objects that it is a member of, each with a dot behind."""
    name = f"{within}{arg.name}"
    if not _TYPE_CHECKS[arg.type](value):
        _bad("badArg", f"{name!r} must be {_TYPE_WORDS[arg.type]}: {arg.help}.")
    if isinstance(value, str):
        if arg.choices and value not in arg.choices:
            _bad("badArg", f"{name!r} must be one of {', '.join(arg.choices)}.{_suggest(value, arg.choices)}")
        if arg.pattern is not None and re.fullmatch(arg.pattern, value) is None:
            _bad("badArg", f"{name!r} has the wrong form: {arg.help}.")
    if isinstance(value, Mapping) and arg.fields:
        _check_names(value, [field.name for field in arg.fields], f"member of {name!r}", "unknownArg")
        for field in arg.fields:
            if field.name in value:
                _check_arg(field, value[field.name], f"{name}.")
            elif field.required:
                _bad("missingArg", f"{name!r} needs {field.name!r}: {field.help}.")
    if isinstance(value, bool | Mapping):
        return
    measure, unit = (value, "") if isinstance(value, int | float) else (len(value), _UNITS[arg.type])
    if arg.minimum is not None and measure < arg.minimum:
        _bad("badArg", f"{name!r} must be at least {arg.minimum:.12g}{unit}.")
    if arg.maximum is not None and measure > arg.maximum:
        _bad("badArg", f"{name!r} must be at most {arg.maximum:.12g}{unit}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPE_CHECKS: Final[Mapping[ArgType, Callable[[Any], bool]]] = {
    ArgType.STRING: lambda value: isinstance(value, str),
    ArgType.INTEGER: lambda value: isinstance(value, int) and not isinstance(value, bool),
    ArgType.NUMBER: _is_number,
    ArgType.BOOLEAN: lambda value: isinstance(value, bool),
    ArgType.STRINGS: lambda value: isinstance(value, list | tuple) and all(isinstance(item, str) for item in value),
    ArgType.OBJECT: lambda value: isinstance(value, Mapping),
}
_TYPE_WORDS: Final[Mapping[ArgType, str]] = {
    ArgType.STRING: "a string", ArgType.INTEGER: "an integer", ArgType.NUMBER: "a number",
    ArgType.BOOLEAN: "true or false", ArgType.STRINGS: "an array of strings", ArgType.OBJECT: "an object",
}
_UNITS: Final[Mapping[ArgType, str]] = {ArgType.STRING: " characters", ArgType.STRINGS: " items"}


# --- words ----------------------------------------------------------------------------------------------------------


def _check_names(given: Mapping[str, Any], known: Iterable[str], what: str, sub_code: str) -> None:
    names = tuple(known)
    for name in given:
        if name not in names:
            _bad(sub_code, f"{_shown(name)} is no {what}.{_suggest(name, names)}")


def _suggest(given: str, known: Iterable[str]) -> str:
    """difflib is quadratic: only names of a length that could be meant are compared."""
    close = difflib.get_close_matches(given, tuple(known), n=1, cutoff=0.6) if len(given) <= MAX_ID else []
    return f" Did you mean {close[0]!r}?" if close else ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= MAX_ID else text[:MAX_ID] + "…")


def _result(error: EdgecallError) -> Result:
    if error.key == "408/ttlExpired":
        return Result.EXPIRED
    return Result.REJECTED if isinstance(error, BadRequest | NotPermitted | Refused) else Result.FAILED


def _bad(sub_code: str, message: str) -> NoReturn:
    raise BadRequest(message, sub_code=sub_code)
