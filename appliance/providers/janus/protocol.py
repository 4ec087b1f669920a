"""The words of Janus: what is asked, what is told, and what its errors mean. No I/O.

Source: the Janus API (https://janus.conf.meetecho.com/docs/rest.html) and its VideoRoom plug-in
(https://janus.conf.meetecho.com/docs/videoroom.html). What a server sends is taken apart here and nowhere else:
anything of another form than is expected is left out, and never raises.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from appliance.vocabulary import END_REASONS, Json, Reason

__all__ = [
    "AUDIO_BRIDGE",
    "NOT_IN_TEXT_ROOM",
    "TEXT_ROOM",
    "USERNAME_TAKEN",
    "VIDEO_ROOM",
    "Dialect",
    "Fault",
    "Guest",
    "Line",
    "Person",
    "Stream",
    "as_text",
    "attendees",
    "data_of",
    "description_of",
    "fault_of",
    "guests",
    "kinds_of",
    "lines_of",
    "listed",
    "me_of",
    "name_of",
    "new_id",
    "persons",
    "private_of",
    "room_id",
    "sdp_of",
    "sent_kinds",
    "token_end",
    "words_of",
]

CONTENT: Final = re.compile(r"content|screen|desktop|presentation|slides", re.IGNORECASE)
"""At the beginning of what a stream is described as: it is no camera. So it is of a name that ends with it in brackets,
as of one who shares from a feed of its own: ``Olga (screen)``."""
_SHARING: Final = re.compile(r"\s*\((content|screen|desktop|presentation|slides)\)$", re.IGNORECASE)
NAME_LIMIT: Final = 128  # characters of a name that are taken
PERSONS: Final = 1000  # of one message, and in a room
STREAMS: Final = 16  # of one person
LAST_ID: Final = 2**63 - 1  # a greater number makes the whole request no JSON to Janus
LAST_SECOND: Final = 253_402_300_799  # since 1970, of the year 9999: no calendar knows a later one


def room_id(name: str) -> int | str:
    """The id of a room as Janus wants it: a number, where the name is one as it is written; see ``as_text``. ``007`` is
    none, for it would be that of room 7; servers whose ids are text may have both."""
    number = name.isascii() and name.isdigit() and len(name) <= len(str(LAST_ID)) and int(name) <= LAST_ID
    return int(name) if number and str(int(name)) == name else name


# --- messages ---------------------------------------------------------------------------------------------------------


def data_of(message: Mapping[str, Any]) -> Json:
    """What the plug-in says."""
    plugin = message.get("plugindata")
    data = plugin.get("data") if isinstance(plugin, dict) else None
    return data if isinstance(data, dict) else {}


def new_id(message: Mapping[str, Any]) -> int | None:
    """Of the session or handle that was made."""
    data = message.get("data")
    made = data.get("id") if isinstance(data, dict) else None
    return made if isinstance(made, int) and not isinstance(made, bool) else None


def sdp_of(message: Mapping[str, Any], kind: str) -> str | None:
    """``kind``: offer or answer."""
    jsep = message.get("jsep")
    if not isinstance(jsep, dict) or jsep.get("type") != kind:
        return None
    sdp = jsep.get("sdp")
    return sdp if isinstance(sdp, str) else None


def token_end(token: str) -> float | None:
    """When a signed token ends, in seconds since the epoch; None for one that does not say so. Its form is
    ``SECONDS,REALM[,PLUGIN...]:SIGNATURE`` (https://janus.conf.meetecho.com/docs/auth.html)."""
    fields, colon, _ = token.partition(":")
    seconds, comma, _ = fields.partition(",")
    if not (colon and comma and seconds.isascii() and seconds.isdigit()) or len(seconds) > len(str(LAST_SECOND)):
        return None
    return float(seconds) if int(seconds) <= LAST_SECOND else None


# --- errors ---------------------------------------------------------------------------------------------------------


class Fault(Enum):
    """What an error means for who gets it."""

    REFUSED = "trying again is useless"
    FULL = "no place in the room now"
    STALE = "what we knew of the server is gone: begin anew"
    PASSING = "the server may do better later"


_SERVER: Final[Mapping[int, tuple[Fault, str]]] = {
    403: (Fault.REFUSED, "401/token"),  # the server wants a token, or another one
    405: (Fault.REFUSED, "401/token"),
    458: (Fault.STALE, "503/provider"),  # no such session
    459: (Fault.STALE, "503/provider"),  # no such handle
    460: (Fault.REFUSED, "501/noPlugin"),
}
"""Errors of the server itself; plug-ins use the same numbers for others."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one plug-in for rooms says in words of its own. ``word``: names what it tells; ``name``: for people;
    ``faults``: its errors; ``gone``: that for somebody who is not in the room; ``malformed``: that for a field of
    another type than is wanted."""

    plugin: str
    word: str
    name: str
    faults: Mapping[int, tuple[Fault, str]]
    gone: int
    malformed: int


VIDEO_ROOM: Final = Dialect("janus.plugin.videoroom", "videoroom", "VideoRoom", {
    426: (Fault.REFUSED, "404/noSuchRoom"),
    429: (Fault.REFUSED, "403/wrongPin"),  # something is missing: where words say so, the PIN
    432: (Fault.FULL, "403/roomFull"),
    433: (Fault.REFUSED, "403/notInvited"),
    436: (Fault.STALE, "503/provider"),  # the participant's id is taken
}, gone=428, malformed=430)

AUDIO_BRIDGE: Final = Dialect("janus.plugin.audiobridge", "audiobridge", "AudioBridge", {
    483: (Fault.REFUSED, "403/wrongPin"),  # something is missing, likewise
    485: (Fault.REFUSED, "404/noSuchRoom"),
    489: (Fault.REFUSED, "403/notInvited"),
    490: (Fault.STALE, "503/provider"),  # the participant's id is taken
    491: (Fault.STALE, "503/provider"),  # this handle is in a room already
}, gone=492, malformed=484)

TEXT_ROOM: Final = Dialect("janus.plugin.textroom", "textroom", "TextRoom", {
    413: (Fault.REFUSED, "403/wrongPin"),  # something is missing, likewise
    417: (Fault.REFUSED, "404/noSuchRoom"),
    419: (Fault.REFUSED, "403/notInvited"),
}, gone=423, malformed=414)
USERNAME_TAKEN: Final = 420
NOT_IN_TEXT_ROOM: Final = (417, 422)

_UNKNOWN: Final = (Fault.PASSING, "503/provider")


def description_of(data: Mapping[str, Any]) -> str:
    """What the room is called."""
    return _text(data.get("description"))


def me_of(data: Mapping[str, Any], dialect: Dialect = VIDEO_ROOM) -> int | str | None:
    """Our id in the room that was joined; None: the server has not said that it was."""
    return _id(data.get("id")) if data.get(dialect.word) == "joined" else None


def name_of(data: Mapping[str, Any]) -> str:
    """What somebody is called from now on."""
    return _text(data.get("display"))


def private_of(data: Mapping[str, Any]) -> int | None:
    """What ties our subscription to us, where the server says it."""
    private = data.get("private_id")
    return private if isinstance(private, int) and not isinstance(private, bool) else None


def as_text(request: Json, error: Mapping[str, Any], dialect: Dialect) -> Json | None:
    """The request again, with the room's id as text, where it was refused for being a number: a server with
    ``string_ids`` takes no other, and does not tell before. None where that is not why."""
    body = request.get("body")
    number = body.get("room") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(number, int) or error.get("error_code") != dialect.malformed:
        return None
    return {**request, "body": {**body, "room": str(number)}}


def words_of(error: Mapping[str, Any]) -> str:
    """What the server says of an error of its own, or of its plug-in."""
    return _text(error.get("reason", error.get("error"))) or "no reason given"


def fault_of(error: Mapping[str, Any], dialect: Dialect = VIDEO_ROOM) -> tuple[Fault, Reason]:
    """What an error means: of Janus (``code`` and ``reason``), or of its plug-in (``error_code`` and ``error``)."""
    code, table = error.get("code"), _SERVER
    if "error_code" in error:
        code, table = error["error_code"], dialect.faults
    words = words_of(error)
    fault, key = table.get(code, _UNKNOWN) if isinstance(code, int) else _UNKNOWN
    if key == "403/notInvited" and "pin" in words.lower():
        key = "403/wrongPin"
    elif key == "403/wrongPin" and "pin" not in words.lower():
        fault, key = _UNKNOWN
    elif code == dialect.malformed and "room" in words.lower():  # its id has a form that this server has none of
        fault, key = Fault.REFUSED, "404/noSuchRoom"
    if key == "501/noPlugin":
        return fault, replace(END_REASONS["503/provider"], code=501, sub_code="noPlugin",
                              message=f"The server has no {dialect.name} plug-in.")
    reason = END_REASONS[key]
    if key == "503/provider":
        reason = replace(reason, message=f"The room server reported an error: {words}")
    return fault, reason


# --- people and what they send ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stream:
    """What a person sends on one of its lines. ``codec`` in lower case, as in SDP."""

    mid: str
    kind: str  # audio, video or data
    codec: str
    muted: bool = False  # by a moderator
    simulcast: bool = False  # in several qualities
    content: bool = False  # it shows what is shared, by its description


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in the room. ``id`` is the room's, random per join; ``identity`` is what it says to be, if anything."""

    id: int | str
    name: str = ""
    identity: str = ""
    streams: tuple[Stream, ...] = ()
    talking: bool = False

    @property
    def feed(self) -> str:
        return str(self.id)

    def stream(self, kind: str) -> Stream | None:
        """The first of its kind; of pictures that of the camera."""
        shared = self.content
        return next((one for one in self.streams if one.kind == kind and one is not shared), None)

    @property
    def content(self) -> Stream | None:
        """What the person shares: the picture that is described so, of a feed that only shares its first, else the
        second picture."""
        pictures = [one for one in self.streams if one.kind == "video"]
        described = next((one for one in pictures if one.content), None)
        if described is not None or not pictures:
            return described
        if self.name != self.owner:
            return pictures[0]
        return pictures[1] if len(pictures) > 1 else None

    @property
    def owner(self) -> str:
        """The name of the one who shares, of a feed that does nothing else; else the person's own."""
        return _SHARING.sub("", self.name)

    @property
    def only_shares(self) -> bool:
        return self.content is not None and self.stream("video") is None and (
            self.name != self.owner or self.stream("audio") is None)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of our subscription and whose it is."""

    mid: str
    kind: str
    feed: str
    feed_mid: str


def persons(data: Mapping[str, Any]) -> Iterator[Person]:
    """Those of a message who send something: ``publishers``."""
    for entry in _dicts(data.get("publishers"), PERSONS):
        who = _id(entry.get("id"))
        if who is None or entry.get("dummy") is True:
            continue
        streams = tuple(stream for one in _dicts(entry.get("streams"), STREAMS) if (stream := _stream(one)) is not None)
        yield Person(who, _text(entry.get("display")), _identity(entry), streams, entry.get("talking") is True)


def attendees(data: Mapping[str, Any]) -> Iterator[Person]:
    """Those of a message who are there and send nothing: ``attendees``, or the one who is ``joining``."""
    for entry in (*_dicts(data.get("attendees"), PERSONS), *_dicts([data.get("joining")], 1)):
        who = _id(entry.get("id"))
        if who is not None:
            yield Person(who, _text(entry.get("display")), _identity(entry))


@dataclass(frozen=True, slots=True)
class Guest:
    """Somebody in a room that is mixed. ``ready``: the connection is there; ``talking``: None where it is not told;
    ``suspended``: by a moderator, and neither heard nor sent anything."""

    id: int | str
    name: str = ""
    ready: bool = False
    muted: bool = False
    talking: bool | None = None
    suspended: bool = False

    @property
    def feed(self) -> str:
        return str(self.id)

    @property
    def speaks(self) -> bool:
        """The server does not say that somebody who is muted has ceased to talk."""
        return self.talking is True and not self.muted


def guests(data: Mapping[str, Any]) -> Iterator[Guest]:
    """Those of a message of a room that is mixed: ``participants``. Whom a moderator has suspended nobody hears."""
    for entry in _dicts(data.get("participants"), PERSONS):
        who, talking = _id(entry.get("id")), entry.get("talking")
        if who is not None:
            suspended = entry.get("suspended") is True
            yield Guest(who, _text(entry.get("display")), entry.get("setup") is True,
                        suspended or entry.get("muted") is True, talking if isinstance(talking, bool) else None,
                        suspended)


def lines_of(data: Mapping[str, Any]) -> Sequence[Line]:
    """The lines of our subscription that carry somebody: ``streams`` of ``attached`` and ``updated``."""
    found = []
    for entry in _dicts(data.get("streams"), 256):
        feed, mid, kind = _id(entry.get("feed_id")), _text(entry.get("mid")), entry.get("type")
        if feed is not None and mid and kind in ("audio", "video") and entry.get("active") is not False:
            found.append(Line(mid, kind, str(feed), _text(entry.get("feed_mid"))))
    return found


def listed(data: Mapping[str, Any]) -> Sequence[int | str]:
    """The ids of ``listparticipants``."""
    return [who for entry in _dicts(data.get("participants"), PERSONS) if (who := _id(entry.get("id"))) is not None]


def kinds_of(sdp: str) -> Mapping[str, str]:
    """The kind of each media line of a description of ours, by its MID."""
    kinds: dict[str, str] = {}
    kind = ""
    for line in sdp.splitlines():
        if line.startswith("m="):
            kind = line[2:].partition(" ")[0]
        elif line.startswith("a=mid:"):
            kinds[line[6:]] = kind
    return kinds


def sent_kinds(sdp: str) -> Set[str]:
    """The kinds of media that a description of ours sends."""
    sections = re.split(r"^m=", sdp, flags=re.MULTILINE)[1:]
    return {one.partition(" ")[0] for one in sections
            if not re.search(r"^a=(recvonly|inactive)\r?$", one, re.MULTILINE)}


def _identity(entry: Json) -> str:
    """As the person says it; servers before 1.2 do not hand it on."""
    metadata = entry.get("metadata")
    return _text(metadata.get("identity")) if isinstance(metadata, dict) else ""


def _stream(entry: Json) -> Stream | None:
    kind, mid = entry.get("type"), _text(entry.get("mid"))
    if kind not in ("audio", "video", "data") or not mid or entry.get("disabled") is True:
        return None
    return Stream(mid, kind, _text(entry.get("codec")).lower(), entry.get("moderated") is True,
                  entry.get("simulcast") is True, CONTENT.match(_text(entry.get("description"))) is not None)


def _dicts(value: object, most: int) -> Iterator[Json]:
    if isinstance(value, list):
        yield from (entry for entry in value[:most] if isinstance(entry, dict))


def _id(value: object) -> int | str | None:
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        return None
    return value if isinstance(value, int) else _text(value) or None


def _text(value: object) -> str:
    return "".join(one for one in value[:NAME_LIMIT] if one.isprintable()) if isinstance(value, str) else ""
