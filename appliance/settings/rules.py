"""What must hold between settings. A rule yields the key at fault, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from appliance.settings.sections import CodeSettings, Settings

__all__ = ["RULES"]

Found = Iterator[tuple[str, str]]

TOKEN_LENGTH: Final = 16
"""Characters of a token at least: 64 random bits in hexadecimal, too many to guess over the network."""


PIN_LENGTH: Final = range(4, 13)  # digits: fewer are guessed, more are not remembered
SHORTEST_KEY: Final = 32  # characters; 128 bits where they are hexadecimal
NAMED_APART: Final = ("book", "janus.rooms", "door.signers", "door.codes", "sip.accounts", "sip.meetings", "whip")
"""Lists whose names are never taken for a device's."""
PUBLIC: Final = ("112", "911", "999", "110", "000", "111", "119")
"""Emergency numbers of countries."""
SHORT_CODE: Final = 6  # digits: 110 and its kin are dialled as they are


def _names_are_nobody_elses(settings: Settings) -> Found:
    """A user is never taken for a device, nor one user for another."""
    own = settings.device.id
    for key, names in (
        ("http.tokens", [token.name for token in settings.http.tokens]),
        ("mqtt.users", [user.name for user in settings.mqtt.users]),
        ("direct.peers", [peer.name for peer in settings.direct.peers]),
        ("door.signers", [signer.name for signer in settings.door.signers]),
        ("door.codes", [code.name for code in settings.door.codes]),
        ("janus.rooms", [room.name for room in settings.janus.rooms]),
        ("sip.accounts", [account.name for account in settings.sip.accounts]),
        ("sip.meetings", [meeting.name for meeting in settings.sip.meetings]),
        ("whip", [server.name for server in settings.whip]),
        ("book", [entry.name.casefold() for entry in settings.book]),
    ):
        for n, name in enumerate(names, 1):
            if name and name in names[: n - 1]:
                yield f"{key}[{n}].name", f"'{name}' is there already"
            elif name == own and key not in NAMED_APART:
                yield f"{key}[{n}].name", f"'{name}' is the id of this device; choose another name"
    if own in settings.direct.fleet:
        yield "direct.fleet", f"'{own}' is this device itself"


def _users_are_no_devices(settings: Settings) -> Found:
    devices = set(settings.direct.fleet)
    for entry in settings.book:
        devices.update(uri.removeprefix("device:") for uri in entry.uris if uri.startswith("device:"))
    people = [
        *((f"http.tokens[{n}].name", token.name, token.scope) for n, token in enumerate(settings.http.tokens, 1)),
        *((f"mqtt.users[{n}].name", user.name, user.scope) for n, user in enumerate(settings.mqtt.users, 1)),
    ]
    for key, name, scope in people:
        if scope != "device" and name in devices:
            yield key, f"'{name}' is the id of a device; a user must have another name, or the scope device"


def _tokens_are_long_and_single(settings: Settings) -> Found:
    seen: dict[str, str] = {}
    for n, token in enumerate(settings.http.tokens, 1):
        text = token.token.reveal()
        key = f"http.tokens[{n}].token_file"
        if 0 < len(text) < TOKEN_LENGTH:
            yield key, f"the token has fewer than {TOKEN_LENGTH} characters; make one with: openssl rand -hex 32"
        elif text and text in seen:
            yield key, f"holds the same token as {seen[text]}; it is what tells them apart"
        seen.setdefault(text, key)


def _pairs(settings: Settings) -> Found:
    mqtt, http, direct, janus = settings.mqtt, settings.http, settings.direct, settings.janus
    for one, other, first, second in (
        ("mqtt.cert_file", "mqtt.key_file", mqtt.cert_file, mqtt.key_file),
        ("http.cert_file", "http.key_file", http.cert_file, http.key_file),
        ("janus.mqtt_cert_file", "janus.mqtt_key_file", janus.mqtt_cert_file, janus.mqtt_key_file),
        ("janus.token_cert_file", "janus.token_cert_key_file", janus.token_cert_file, janus.token_cert_key_file),
        ("direct.turn_username", "direct.turn_password_file", not direct.turn_secret and direct.turn_username,
         direct.turn_password),
    ):
        if first and not second:
            yield other, f"is missing; {one} needs it"
        if second and not first:
            yield one, f"is missing; {other} needs it"
    if mqtt.password and not mqtt.username:
        yield "mqtt.username", "is missing; mqtt.password_file needs it"
    if janus.mqtt_password and not janus.mqtt_username:
        yield "janus.mqtt_username", "is missing; janus.mqtt_password_file needs it"
    if direct.turn_secret and direct.turn_password:
        yield "direct.turn_secret_file", "stands in place of turn_password_file; name one of them"
    if direct.turn and not (direct.turn_username or direct.turn_secret):
        yield "direct.turn_username", "is missing; a TURN server relays for nobody without a login (RFC 8656)"
    if direct.turn_username and not direct.turn:
        yield "direct.turn", "is missing; direct.turn_username needs it"
    elif direct.turn_secret and not direct.turn:
        yield "direct.turn", "is missing; direct.turn_secret_file needs it"
    if direct.turn_ca_file and not any(url.startswith("turns:") for url in direct.turn):
        yield "direct.turn", "names no turns: server, which direct.turn_ca_file is for"


def _janus(settings: Settings) -> Found:
    janus = settings.janus
    if not janus.url and (
            janus.rooms or janus.token or janus.token_url or janus.api_secret or janus.ca_file or janus.other_urls):
        yield "janus.url", "is missing; nothing else of [janus] has an effect without it"
    if janus.ca_file and janus.url.startswith(("ws://", "mqtt://")) and not janus.token_url.startswith("https://"):
        yield "janus.url", "is not encrypted; janus.ca_file is for wss:// and mqtts://, and https:// of janus.token_url"
    yield from _janus_by_mqtt(settings)
    for n, room in enumerate(janus.rooms, 1):
        if room.valid_from and room.valid_until:
            begin, end = (datetime.fromisoformat(text) for text in (room.valid_from, room.valid_until))
            if begin >= end:
                yield f"janus.rooms[{n}].valid_until", "must be later than valid_from"
    if len({janus.url, *janus.other_urls}) <= len(janus.other_urls):
        yield "janus.other_urls", "names a server twice"
    if janus.token_key and len(janus.token_key.reveal()) < SHORTEST_KEY:
        yield "janus.token_key_file", f"holds less than {SHORTEST_KEY} characters: openssl rand -hex 32 makes a key"
    if janus.token_url and janus.token:
        yield "janus.token_file", "has no effect beside janus.token_url; name one of them"
    if janus.token_cert_file and not janus.token_url:
        yield "janus.token_url", "is missing; janus.token_cert_file needs it"
    if janus.choose == "nearest" and not janus.other_urls:
        yield "janus.choose", "has one server to choose from; name others in janus.other_urls"


def _janus_by_mqtt(settings: Settings) -> Found:
    janus, mqtt = settings.janus, settings.mqtt
    brokers = [urlsplit(url) for url in (janus.url, *janus.other_urls) if url.startswith(("mqtts://", "mqtt://"))]
    if brokers and not janus.trusted_broker:
        yield "janus.trusted_broker", ("must be true for rooms through a broker: who may read the topic of answers "
                                       "there can take every call in the rooms over; else use wss://")
    if janus.trusted_broker and janus.url and not brokers:
        yield "janus.trusted_broker", "has no effect without a url of mqtts://"
    if not brokers and (janus.mqtt_username or janus.mqtt_password or janus.mqtt_cert_file):
        yield "janus.url", "names no broker (mqtts://), which the login of janus.mqtt_... is for"
    if mqtt.username and mqtt.username == janus.mqtt_username and mqtt.host in {broker.hostname for broker in brokers}:
        yield "janus.mqtt_username", ("is that of [mqtt] at the same broker, which lets a name have one connection; "
                                      "give rooms a login of their own")
    topics = (janus.mqtt_requests, janus.mqtt_answers, janus.mqtt_status)
    if len(set(topics)) < len(topics):
        yield "janus.mqtt_requests", "mqtt_requests, mqtt_answers and mqtt_status must be three topics"


def _sip(settings: Settings) -> Found:
    for n, account in enumerate(settings.sip.accounts, 1):
        key = f"sip.accounts[{n}]"
        encrypted = account.transport in ("tls", "wss")
        if settings.sip.require_encryption and not encrypted:
            yield (f"{key}.transport", "must be tls or wss, else the keys of encrypted sound cross the network for all "
                   "to read; or set sip.require_encryption = false, and nothing is encrypted")
        if settings.sip.require_encryption and account.encryption == "none":
            yield f"{key}.encryption", "is none, which sip.require_encryption forbids; set one of them otherwise"
        for name, file in (("ca_file", account.ca_file), ("cert_file", account.cert_file)):
            if file and not encrypted:
                yield f"{key}.{name}", "has no effect without transport = \"tls\" or \"wss\""
        if account.cert_file and not account.key_file:
            yield f"{key}.key_file", "is missing; cert_file needs it"
        if account.key_file and not account.cert_file:
            yield f"{key}.cert_file", "is missing; key_file needs it"
        if account.port and account.transport in ("ws", "wss"):
            yield f"{key}.port", "has no effect over a WebSocket; calls come in by our own connection"
        if account.port and account.transport == "tls" and not account.cert_file:
            yield f"{key}.cert_file", "is missing; who connects to our port is shown it"
        if account.trusted_names and not (account.port and account.transport == "tls"):
            yield f"{key}.trusted_names", "has no effect without a port that others connect to over TLS"
        if not account.register and not account.trusted and not account.trusted_names:
            yield (f"{key}.trusted", "is missing; without a registration calls are taken only from networks that are "
                   "named there, the server's own for one")


def _meetings(settings: Settings) -> Found:
    meetings = settings.sip.meetings
    if meetings and not settings.sip.accounts:
        yield "sip.accounts", "is missing; [[sip.meetings]] are called through one"
    for n, one in enumerate(meetings, 1):
        key, passcode = f"sip.meetings[{n}]", one.passcode.reveal()
        if one.profile in ("teams", "zoom") and not one.id:
            yield f"{key}.id", f"is missing; {one.profile} asks for it"
        if bool(one.digits) is not (one.profile == "digits"):
            yield (f"{key}.digits", "has an effect only with profile = \"digits\"") if one.digits else (
                f"{key}.digits", "is missing; the profile digits presses nothing else")
        if passcode and one.profile != "zoom":
            yield f"{key}.passcode_file", f"is not asked for by the profile {one.profile}; see profile digits"
        elif passcode and not (passcode.isascii() and passcode.isdigit()):
            yield f"{key}.passcode_file", "must hold digits; see what the invitation has for telephones"
    names = {one.name for one in meetings}
    for key, target in _targets(settings):
        name = target.removeprefix("meeting:")
        if name != target and name not in names:
            yield key, f"'{name}' is no name of [[sip.meetings]]"


def _codes(settings: Settings) -> Found:
    for n, code in enumerate(settings.door.codes, 1):
        key, pin = f"door.codes[{n}]", code.pin.reveal()
        if not pin and not code.without_pin:
            yield (f"{key}.pin_file", "is missing; or say without_pin = true, and whoever is meant by peers closes the "
                   "relay by the code alone")
        elif pin and code.without_pin:
            yield f"{key}.without_pin", "contradicts pin_file; leave one of them out"
        elif pin and not (pin.isascii() and pin.isdigit() and len(pin) in PIN_LENGTH):
            yield f"{key}.pin_file", f"must hold {PIN_LENGTH[0]} to {PIN_LENGTH[-1]} digits and nothing else"
        if not pin and not code.code:
            yield f"{key}.code", "is missing; without a PIN it is all that is pressed"
        elif pin and code.code.endswith("#"):
            yield f"{key}.code", "ends with '#', which ends a PIN; leave it out"
        if not code.peers:
            yield f"{key}.peers", "names nobody; name who may"
        elif "*" in code.peers and not pin:
            yield f"{key}.peers", "is everybody, who then needs a PIN: name pin_file, or those who may"
        for peer in code.peers:
            number = peer.removeprefix("tel:")
            if number != peer and len(number) > SHORT_CODE and number[0] != "+":
                yield f"{key}.peers", f"'{peer}' is a national number: write it as tel:+49…, as callers are known by"
        for earlier, other in enumerate(settings.door.codes[: n - 1], 1):
            if _meet(code, other) and _hides(code, other):
                yield (f"{key}.code", f"and that of door.codes[{earlier}] cannot be told apart when they are pressed; "
                       "let none of them begin with the other")


def _meet(one: CodeSettings, other: CodeSettings) -> bool:
    """Whether both may hold in the same call."""
    directions = {one.direction, other.direction}
    peers = {peer.casefold() for peer in one.peers} & {peer.casefold() for peer in other.peers}
    return ("both" in directions or len(directions) == 1) and bool(peers or "*" in (*one.peers, *other.peers))


def _hides(one: CodeSettings, other: CodeSettings) -> bool:
    """Whether what is pressed for the one may be taken for the other. PINs after one code tell themselves apart."""
    if one.pin and other.pin:
        return one.code == other.code and one.pin == other.pin
    short, long = sorted((one.code, other.code), key=len)
    if not short:  # a PIN alone, which begins with a digit
        return not long.startswith(("*", "A", "B", "C", "D"))
    return long.startswith(short)


def _whip(settings: Settings) -> Found:
    for n, server in enumerate(settings.whip, 1):
        addresses = [url for url in (server.publish, server.play, *server.other_publish, *server.other_play) if url]
        if not server.publish and not server.play:
            yield f"whip[{n}].publish", "is missing, and so is play; one of them at least says what to call"
        for key, first, others in (("publish", server.publish, server.other_publish),
                                   ("play", server.play, server.other_play)):
            if others and not first:
                yield f"whip[{n}].{key}", f"is missing; other_{key} has those to try after it"
            if len({first, *others}) <= len(others):
                yield f"whip[{n}].other_{key}", "names an endpoint twice"
        if server.choose == "nearest" and not (server.other_publish or server.other_play):
            yield f"whip[{n}].choose", "has one server to choose from; name others in other_publish or other_play"
        if server.play_token and not server.play:
            yield f"whip[{n}].play", "is missing; play_token_file needs it"
        if server.ca_file and not any(url.startswith("https:") for url in addresses):
            yield f"whip[{n}].ca_file", "has no effect on an address that is not encrypted"
    names = {server.name for server in settings.whip}
    for key, target in _targets(settings):
        name = target.removeprefix("whip:")
        if name != target and name not in names:
            yield key, f"'{name}' is no name of [[whip]]"


def _targets(settings: Settings) -> Found:
    """What is called by settings: key and target."""
    yield "call.button_target", settings.call.button_target
    yield "call.long_press_target", settings.call.long_press_target
    yield "call.emergency_target", settings.call.emergency_target
    for n, entry in enumerate(settings.book, 1):
        for uri in entry.uris:
            yield f"book[{n}].uris", uri


def _broker(settings: Settings) -> Found:
    mqtt = settings.mqtt
    if (mqtt.ca_file or mqtt.cert_file) and not mqtt.tls:
        yield "mqtt.tls", "must be true, else ca_file and cert_file have no effect"
    if mqtt.tls and not mqtt.host:
        yield "mqtt.host", "is missing; the embedded broker listens on this machine alone and needs no TLS"
    if mqtt.users and mqtt.host:
        yield "mqtt.users", "are those of the embedded broker; with mqtt.host set, log-ins are kept by that broker"


def _book(settings: Settings) -> Found:
    names = {entry.name.casefold() for entry in settings.book}
    for n, entry in enumerate(settings.book, 1):
        others = names - {entry.name.casefold()}
        for uri in entry.uris:
            number = uri.removeprefix("tel:")
            if number != uri and len(number) > SHORT_CODE and number[0] != "+" and not settings.device.country:
                yield f"book[{n}].uris", f"'{uri}' is a national number: write it as tel:+49…, or set device.country"
        if not entry.uris and not entry.members:
            yield f"book[{n}].uris", "is missing; an entry needs uris, or members to be a ring group"
        for member in entry.members:
            if member.casefold() not in others:
                yield f"book[{n}].members", f"'{member}' is no other entry of the book in this file"
        if entry.fallback and entry.fallback.casefold() not in others:
            yield f"book[{n}].fallback", f"'{entry.fallback}' is no other entry of the book in this file"
    yield from _loops(settings)


def _loops(settings: Settings) -> Found:
    """Ring groups within ring groups, and fallbacks, must end somewhere."""
    entries = {entry.name.casefold(): entry for entry in settings.book}
    for n, entry in enumerate(settings.book, 1):
        for key, follow in (("members", True), ("fallback", False)):
            seen: set[str] = set()
            waiting = list(entry.members) if follow else [entry.fallback]
            while waiting:
                name = waiting.pop().casefold()
                found = entries.get(name)
                if found is None or name in seen:
                    continue
                seen.add(name)
                waiting.extend(found.members if follow else [found.fallback])
            if entry.name and entry.name.casefold() in seen:
                yield f"book[{n}].{key}", "leads back to this entry"


def _update(settings: Settings) -> Found:
    update = settings.update
    if update.ca_file and not any(url.startswith("https:") for url in update.origins):
        yield "update.origins", "names no server of https://, which update.ca_file is for"


def _emergency(settings: Settings) -> Found:
    """What a public emergency service expects (location, call-back) this device does not give."""
    number = settings.call.emergency_target.removeprefix("tel:")
    if number in PUBLIC:
        yield ("call.emergency_target", f"{number} is a public emergency number, which expects to be told where the "
               "caller is; name a help point that is always staffed")


def _lan_targets(settings: Settings) -> Found:
    """Whom we call must have an address. An entry of the book may also stand for one that only calls us, and is known
    by its token."""
    peers = {peer.name for peer in settings.direct.peers}
    callers = {token.name for token in settings.http.tokens if token.scope == "device"}
    for key, target in (("call.button_target", settings.call.button_target),
                        ("call.long_press_target", settings.call.long_press_target),
                        ("call.emergency_target", settings.call.emergency_target)):
        name = target.removeprefix("lan:")
        if name != target and name not in peers:
            yield key, f"'{name}' is no name of [[direct.peers]]"
    for n, entry in enumerate(settings.book, 1):
        for uri in entry.uris:
            name = uri.removeprefix("lan:")
            if name != uri and name not in peers | callers:
                yield (f"book[{n}].uris",
                       f"'{name}' is no name of [[direct.peers]], nor of an entry of [[http.tokens]] of scope device")


RULES: Final[tuple[Callable[[Settings], Found], ...]] = (
    _names_are_nobody_elses, _users_are_no_devices, _tokens_are_long_and_single, _pairs, _janus, _sip, _meetings,
    _codes, _whip, _broker, _book, _update, _emergency, _lan_targets,
)
