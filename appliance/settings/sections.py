"""The settings themselves: what there is, what it means, its default and its limits.

The reference (``docs/configuration.md``) and the commented default file (``config/edgecall.toml``) are generated
from here. Sections are frozen: a reload makes a new ``Settings``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from appliance.settings import formats
from appliance.settings.fields import setting
from appliance.settings.secret import Secret
from appliance.vocabulary import FITS, LAYOUTS

__all__ = [
    "AudioSettings",
    "BoardSettings",
    "BookSettings",
    "CallSettings",
    "CodeSettings",
    "DeviceSettings",
    "DirectSettings",
    "DoorSettings",
    "HttpSettings",
    "JanusRoomSettings",
    "JanusSettings",
    "LogSettings",
    "MeetingSettings",
    "MqttSettings",
    "MqttUserSettings",
    "NetworkSettings",
    "PeerSettings",
    "ScreenSettings",
    "Settings",
    "SignerSettings",
    "SipAccountSettings",
    "SipSettings",
    "TokenSettings",
    "UpdateSettings",
    "VideoSettings",
]

SCOPES = ("operator", "device", "admin")


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Who this device is."""

    id: str = setting("edgecall", "Identity on the broker and to other devices; unique in the fleet.",
                      format=formats.ID, restart=True, computed="edgecall-HOSTNAME", example='"front-door"')
    name: str = setting("Edgecall", "Name shown to people.", minimum=1, maximum=64, restart=True,
                        example='"Front door"')
    country: str = setting("", "Country whose national telephone numbers are meant.",
                           format=formats.COUNTRY, example='"DE"', restart=True)


@dataclass(frozen=True, slots=True)
class BoardSettings:
    """The hardware. The sources of microphone and camera are those of the simulated board."""

    name: str = setting("sim", "sim: simulated; pi: the devices of a board file; auto: what this computer has, best "
                        "effort.", choices=("sim", "pi", "auto"), restart=True)
    file: str = setting("", "Board file of pi; empty: chosen by the model.", format=formats.BOARD_FILE,
                        restart=True, example='"pi-4b"')
    microphone: str = setting("speech", "What the simulated microphone hears.",
                              format=formats.MICROPHONE, restart=True, example='"tone:440"')
    camera: str = setting("pattern", "What the simulated camera sees.",
                          format=formats.CAMERA, restart=True, example='"clip:/srv/door.h264"')
    speaker_wav: str = setting("", "WAV file that records what the simulated loudspeaker plays.",
                               format=formats.PATH, restart=True, example='"/tmp/played.wav"')
    echo_delay_ms: float = setting(0.0, "Delay of the simulated path from loudspeaker to microphone.",
                                   unit="ms", minimum=0, maximum=500, restart=True)
    echo_loss_db: float = setting(0.0, "Loss of that path; 0 means there is none.",
                                  unit="dB", minimum=0, maximum=90, restart=True)
    screen: str = setting("1280x720", "Size of the simulated screen.", format=formats.SCREEN, restart=True)
    brightness: int = setting(100, "Brightness of the screen, where it has a backlight.", unit="%", minimum=1,
                              maximum=100)
    screen_off_s: int = setting(0, "So long after the last call or press the screen goes dark; 0: never.", unit="s",
                                minimum=0, maximum=86_400)
    door_open_s: int = setting(0, "A door whose contact (input door) is open for longer is told; 0: never.", unit="s",
                               minimum=0, maximum=86_400)
    long_press_s: float = setting(1.0, "From here on a press of the button is a long one.",
                                  unit="s", minimum=0.3, maximum=10, restart=True)


@dataclass(frozen=True, slots=True)
class MqttUserSettings:
    """Who, beside admin and operator, may log in to the embedded broker and command this device."""

    name: str = setting("", "Name it logs in with; never a device's id.",
                        format=formats.ID, required=True, restart=True, example='"desk"')
    scope: str = setting("operator", "What it may: admin includes device, device includes operator.",
                         choices=SCOPES, restart=True)
    password: Secret = setting(Secret(), "Its password.", required=True, restart=True,  # noqa: RUF009
                               example='"/etc/edgecall/desk.password"')


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """The broker that commands come from and state goes to (MQTT 5)."""

    enabled: bool = setting(True, "Connect to a broker at all.", restart=True)
    host: str = setting("", "The broker; empty: the embedded one, on this machine alone.",
                        format=formats.HOST, restart=True, example='"broker.example.org"')
    port: int = setting(1883, "TCP port; 8883 is usual with TLS.", minimum=1, maximum=65535, restart=True)
    tls: bool = setting(False, "Encrypt, and check the broker's certificate and name.", restart=True)
    ca_file: str = setting("", "Authority of the broker's certificate; empty: those of the system.",
                           format=formats.FILE, restart=True, example='"/etc/edgecall/ca.crt"')
    cert_file: str = setting("", "Certificate of this device; its common name is the device's id.",
                             format=formats.FILE, restart=True, example='"/etc/edgecall/device.crt"')
    key_file: str = setting("", "Private key of that certificate.",
                            format=formats.FILE, restart=True, example='"/etc/edgecall/device.key"')
    username: str = setting("", "Login name, where the broker asks for one.",
                            maximum=128, restart=True, example='"front-door"')
    password: Secret = setting(Secret(), "Password of that login.", restart=True,  # noqa: RUF009
                               example='"credential:mqtt-password"')
    keepalive_s: int = setting(15, "A dead connection is noticed after about twice this time.",
                               unit="s", minimum=5, maximum=120, restart=True)
    users: tuple[MqttUserSettings, ...] = setting((), "Who may log in to the embedded broker.", restart=True)


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Who may use the HTTP and WebSocket door from another machine: one token each."""

    name: str = setting("", "Who presents it; for another appliance its id.",
                        format=formats.ID, required=True, example='"desk"')
    scope: str = setting("operator", "What it may. device: another appliance, which may call here and nothing else; "
                         "admin includes operator.", choices=SCOPES)
    token: Secret = setting(Secret(), "The token, at least 16 characters.", required=True,  # noqa: RUF009
                            example='"/etc/edgecall/desk.token"')


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Web page, REST, events and peers. Beyond this machine only with TLS and a token or a one-time address."""

    listen: str = setting("127.0.0.1", "Address to listen on.", format=formats.LISTEN, restart=True,
                          example='"0.0.0.0"')
    port: int = setting(8080, "TCP port; 0 takes a free one.", minimum=0, maximum=65535, restart=True)
    names: tuple[str, ...] = setting((), "Further host names under which browsers may reach the page.",
                                     format=formats.HOST, maximum=16, example='["door.example.org"]', restart=True)
    cert_file: str = setting("", "Certificate; empty: a self-signed one, whose fingerprint is printed.",
                             format=formats.FILE, restart=True, example='"/etc/edgecall/http.crt"')
    key_file: str = setting("", "Private key of that certificate.",
                            format=formats.FILE, restart=True, example='"/etc/edgecall/http.key"')
    tokens: tuple[TokenSettings, ...] = setting((), "Who may come from another machine.", restart=True)


@dataclass(frozen=True, slots=True)
class CallSettings:
    """How calls are made and taken."""

    button_target: str = setting("operator:*", "Called by a short press of the call button.",
                                 format=formats.TARGET, maximum=256, example='"device:lobby-2"')
    long_press_target: str = setting("", "Called by a long press; empty: the same.",
                                     format=formats.TARGET, maximum=256, example='"tel:+4930123456"')
    emergency_target: str = setting("", "The help point: it is called whatever else goes on or is forbidden. Never a "
                                    "public emergency number.", format=formats.TARGET, maximum=256,
                                    example='"Help point"')
    auto_join: str = setting("", "Room that is joined at the start, and again whenever it is lost; left by hand it is "
                             "let be.", format=formats.ROOM, maximum=136, example='"room:lobby"')
    ring_s: int = setting(30, "How long a target rings.", unit="s", minimum=5, maximum=120)
    setup_s: int = setting(85, "A call that is not set up by then is given up.", unit="s", minimum=10, maximum=300)
    reconnect_s: int = setting(120, "A call whose media are lost is kept this long.",
                               unit="s", minimum=5, maximum=600)
    auto_answer_delay_s: float = setting(1.0, "Between the warning tone and an automatic answer.",
                                         unit="s", minimum=0, maximum=30)
    network_quality: int = setting(
        1, "What net.networkQualityLevelChanged tells: 0 it is not sent, 1 the level, 2 and levels per kind and "
        "direction, 3 and what those are made of.", minimum=0, maximum=3)
    allow_unknown: bool = setting(False, "Let callers ring who are not in the address book.")
    dnd: tuple[str, ...] = setting((), "When incoming calls are refused with 480/doNotDisturb.",
                                   format=formats.TIMES, maximum=32,
                                   example='["Mon-Fri 22:00-06:00", "Sat,Sun 20:00-09:00"]')


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """Another appliance on the LAN, called as ``lan:NAME`` with no broker between."""

    name: str = setting("", "Its name here.", format=formats.ID, required=True, example='"lobby"')
    url: str = setting("", "Where it listens.", format=formats.PEER_URL, required=True,
                       example='"https://lobby.local:8080"')
    token: Secret = setting(Secret(), "The token it knows us by.", required=True,  # noqa: RUF009
                            example='"/etc/edgecall/lobby.token"')
    fingerprint: str = setting("", "Of its certificate, where that is self-signed.", format=formats.FINGERPRINT)


@dataclass(frozen=True, slots=True)
class DirectSettings:
    """Calls without a room server: page to appliance and appliance to appliance."""

    fleet: tuple[str, ...] = setting((), "Devices that may signal to us beside those of the address book.",
                                     format=formats.ID, maximum=1000, example='["lobby-2", "gate-1"]')
    stun: tuple[str, ...] = setting((), "STUN servers, best first; none by default, public ones learn who calls whom.",
                                    format=formats.STUN, maximum=8, alone=True, restart=True,
                                    example='["stun:stun.example.org:3478"]')
    turn: tuple[str, ...] = setting((), "TURN servers, for peers behind firewalls, best first; the next one is tried "
                                    "when one does not answer.", format=formats.TURN, maximum=8, alone=True,
                                    restart=True, example='["turn:turn.example.org", "turns:turn.example.org:443"]')
    turn_ca_file: str = setting("", "Authority of the certificates of turns: servers; empty: those of the system.",
                                format=formats.FILE, restart=True, example='"/etc/edgecall/turn-ca.crt"')
    turn_username: str = setting("", "Login name at the TURN servers.", maximum=256, example='"door"', restart=True)
    turn_password: Secret = setting(Secret(), "Password of that login.",  # noqa: RUF009
                                    example='"credential:turn-password"', restart=True)
    turn_secret: Secret = setting(Secret(), "Secret shared with the TURN servers, in place of a password: "  # noqa: RUF009
                                  "a login for a day is made of it for each connection.",
                                  example='"credential:turn-secret"', restart=True)
    peers: tuple[PeerSettings, ...] = setting((), "Appliances on the LAN.", restart=True)


@dataclass(frozen=True, slots=True)
class JanusRoomSettings:
    """A room by a name of its own, joined as ``room:NAME``. Others are joined by their id, those of kind audio as
    ``audio:ID``."""

    name: str = setting("", "Its name here.", format=formats.ID, required=True, example='"lobby"')
    id: str = setting("", "Its id at the server.", minimum=1, maximum=128, required=True, example='"1234"')
    kind: str = setting("video", "Of which plug-in of the server it is. video: VideoRoom; audio: AudioBridge, which "
                        "mixes sound for large calls and carries nothing else.", choices=("video", "audio"))
    text_id: str = setting("", "Id of the TextRoom at the server that its data messages go through, opened by the same "
                           "PIN and token; empty: there is none.", maximum=128, example='"1234"')
    pin: Secret = setting(Secret(), "Its PIN, where it has one.",  # noqa: RUF009
                          example='"/etc/edgecall/lobby.pin"')
    token: Secret = setting(Secret(), "Its own token, where that of the server does not open it.",  # noqa: RUF009
                            example='"/etc/edgecall/lobby.token"')
    secret: Secret = setting(Secret(), "Its secret, where this device may moderate it.",  # noqa: RUF009
                             example='"/etc/edgecall/lobby.secret"')
    role: str = setting("attendee", "What this device may do there: a consumer only hears and sees, a presenter may "
                        "also end the call for everyone.", choices=("presenter", "attendee", "consumer"))
    valid_from: str = setting("", "Not joined before; empty: no limit.", format=formats.MOMENT,
                              example='"2026-12-01T08:00:00+01:00"')
    valid_until: str = setting("", "Not joined from then on, and left then; empty: no limit.", format=formats.MOMENT,
                               example='"2026-12-24T18:00:00+01:00"')


@dataclass(frozen=True, slots=True)
class JanusSettings:
    """Rooms of a Janus server (1.x, plug-ins VideoRoom, AudioBridge and TextRoom), over its WebSocket transport, or
    through a broker over its MQTT transport."""

    url: str = setting("", "Where its WebSocket transport listens, or the broker of its MQTT transport; empty: no "
                       "rooms.",
                       format=formats.JANUS_URL, restart=True, example='"wss://rooms.example.org:8989"')
    other_urls: tuple[str, ...] = setting((), "Other servers that have the same rooms, in the order to try them.",
                                          format=formats.JANUS_URL, maximum=7, restart=True,
                                          example='["wss://rooms2.example.org:8989"]')
    choose: str = setting("order", "Which of them is used. order: the first that is reached; nearest: the one with the "
                          "shortest round trip; pinned: that of url alone.",
                          choices=("order", "nearest", "pinned"), restart=True)
    ca_file: str = setting("", "Authority of its certificate; empty: those of the system.", format=formats.FILE,
                           restart=True, example='"/etc/edgecall/janus-ca.crt"')
    token: Secret = setting(Secret(), "Token, where the server or its rooms ask for one.",  # noqa: RUF009
                            example='"credential:janus-token"')
    token_url: str = setting("", "Server of tokens, asked for one before the last one ends: the client credentials "
                             "grant of OAuth 2.0 (RFC 6749, RFC 8705).", format=formats.TOKEN_URL, restart=True,
                             example='"https://tokens.example.org/rooms"')
    token_cert_file: str = setting("", "Certificate of this device, by which that server knows it.",
                                   format=formats.FILE, restart=True, example='"/etc/edgecall/device.crt"')
    token_cert_key_file: str = setting("", "Private key of that certificate.", format=formats.FILE, restart=True,
                                       example='"/etc/edgecall/device.key"')
    token_key: Secret = setting(Secret(), "Key with which the token that token.set gives is kept encrypted; without "  # noqa: RUF009
                                "it, it is kept for its owner alone.", restart=True,
                                example='"credential:token-key"')
    api_secret: Secret = setting(Secret(), "API secret, where the server asks for one.",  # noqa: RUF009
                                 restart=True, example='"credential:janus-secret"')
    trusted_broker: bool = setting(False, "For mqtts://. Who may read at the broker what the server answers can take "
                                   "over every call in its rooms; true says that nobody may who should not.",
                                   restart=True)
    mqtt_requests: str = setting("to-janus", "Topic of requests: subscribe_topic of the server.", format=formats.TOPIC,
                                 restart=True)
    mqtt_answers: str = setting("from-janus", "Topic of answers and events: publish_topic of the server.",
                                format=formats.TOPIC, restart=True)
    mqtt_status: str = setting("status", "Topic of the server's status.", format=formats.TOPIC, restart=True)
    mqtt_username: str = setting("", "Login name at that broker, another one than in [mqtt]: many brokers let a name "
                                 "have one connection.", maximum=128, restart=True, example='"front-door-rooms"')
    mqtt_password: Secret = setting(Secret(), "Password of that login.", restart=True,  # noqa: RUF009
                                    example='"credential:janus-mqtt-password"')
    mqtt_cert_file: str = setting("", "Certificate for that broker.", format=formats.FILE, restart=True,
                                  example='"/etc/edgecall/rooms.crt"')
    mqtt_key_file: str = setting("", "Private key of that certificate.", format=formats.FILE, restart=True,
                                 example='"/etc/edgecall/rooms.key"')
    rooms: tuple[JanusRoomSettings, ...] = setting((), "Rooms by name.", restart=True)


@dataclass(frozen=True, slots=True)
class SignerSettings:
    """Somebody whose signed data messages in a call close a relay."""

    name: str = setting("", "The kid of the signature.", format=formats.ID, required=True, restart=True,
                        example='"caretaker"')
    key_file: str = setting("", "The public key.", format=formats.PUBLIC_KEY, required=True, restart=True,
                            example='"/etc/edgecall/caretaker.pub"')
    relays: tuple[str, ...] = setting((), "Relays it may close; none: any.", maximum=16, restart=True,
                                      example='["door"]')


@dataclass(frozen=True, slots=True)
class CodeSettings:
    """Keys that the other side presses in a telephone call to close a relay: the code, then the PIN and ``#``."""

    name: str = setting("", "Its name in events and answers.", format=formats.ID, required=True, restart=True,
                        example='"caretaker"')
    relay: str = setting("", "The relay.", minimum=1, maximum=32, required=True, restart=True, example='"door"')
    seconds: float = setting(3.0, "How long it stays closed.", unit="s", minimum=0.2, maximum=30, restart=True)
    direction: str = setting("", "In calls that we make, that we take, or both.",
                             choices=("outgoing", "incoming", "both"), required=True, restart=True,
                             example='"outgoing"')
    peers: tuple[str, ...] = setting((), "Who may: names of the address book, or URIs. * is everybody who is let in, "
                                     "and needs a PIN.", format=formats.TARGET, maximum=64, required=True, restart=True,
                                     example='["Reception", "tel:+4930123456"]')
    code: str = setting("", "What is pressed first; with a PIN it may be left out.", format=formats.CODE,
                        restart=True, example='"*1"')
    pin: Secret = setting(Secret(), "PIN, 4 to 12 digits. # ends it.", restart=True,  # noqa: RUF009
                          example='"/etc/edgecall/caretaker.pin"')
    without_pin: bool = setting(False, "The code alone closes the relay, as soon as it is complete.", restart=True)
    allow_plain: bool = setting(False, "Also in calls whose signalling or sound is not encrypted, where whoever is in "
                                "between can press keys.", restart=True)


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """Closing a relay from within a call: by keys of a telephone, or by signed data messages."""

    seconds: float = setting(3.0, "How long a signed message keeps the relay closed.", unit="s", minimum=0.2,
                             maximum=30, restart=True)
    signers: tuple[SignerSettings, ...] = setting((), "Who signs; nobody by default.", restart=True)
    codes: tuple[CodeSettings, ...] = setting((), "Keys that close a relay; none by default.", maximum=32,
                                              restart=True)


@dataclass(frozen=True, slots=True)
class SipAccountSettings:
    """An account at a PBX or provider of telephony, or a trunk. Of several the first one that is up is called through;
    ``sip:`` addresses of its own domain go through it first."""

    name: str = setting("", "Its name here.", format=formats.ID, required=True, restart=True, example='"pbx"')
    address: str = setting("", "Our address there.", format=formats.SIP_ADDRESS, required=True, restart=True,
                           example='"sip:1001@pbx.example.org"')
    display_name: str = setting("", "Name that is shown to who is called; empty: that of the device.", maximum=64,
                                restart=True, example='"Front door"')
    withhold_number: bool = setting(False, "Do not show our address to who is called; the network is still told it.",
                                    restart=True)
    servers: tuple[str, ...] = setting((), "Registrar or outbound proxy, best first; the next one is used when one "
                                       "does not answer. None: the host of the address. Without a port by its SRV "
                                       "records, where it has any.", format=formats.SIP_SERVER, maximum=8, alone=True,
                                       restart=True, example='"sbc.example.org:5061"')
    transport: str = setting("tls", "How the server is reached; wss and ws: by WebSocket, encrypted and not.",
                             choices=("tls", "tcp", "udp", "wss", "ws"), restart=True)
    path: str = setting("/ws", "Path of the server's WebSocket.", format=formats.URL_PATH, restart=True)
    ca_file: str = setting("", "Authority of its certificate; empty: those of the system.", format=formats.FILE,
                           restart=True, example='"/etc/edgecall/sip-ca.crt"')
    encryption: str = setting("auto", "How calls of ours offer to encrypt sound. sdes: keys in the signalling; dtls: a "
                              "handshake beside the sound, which browsers want; none: not at all; auto: sdes where "
                              "signalling is encrypted. Calls to us choose for themselves.",
                              choices=("auto", "sdes", "dtls", "none"), restart=True)
    username: str = setting("", "Name to log in with; empty: the user of the address.", maximum=128, restart=True,
                            example='"1001"')
    password: Secret = setting(Secret(), "Password, where one is asked for.", restart=True,  # noqa: RUF009
                               example='"credential:sip-password"')
    register: bool = setting(True, "Register, so that calls come in; false for a trunk that knows our address.",
                             restart=True)
    keep_alive: bool = setting(True, "Ask a server that does not register us every 15 s whether it is there (OPTIONS); "
                               "false for one that never answers that.", restart=True)
    expires_s: int = setting(600, "How long a registration is asked for; it is renewed in time.", unit="s", minimum=60,
                             maximum=86_400, restart=True)
    port: int = setting(0, "Port of ours that calls come in by; 0: any over UDP, and over TCP and TLS only the "
                        "connection that we make ourselves. A trunk that does not register us must know it.", minimum=0,
                        maximum=65535, restart=True)
    cert_file: str = setting("", "Certificate of ours for TLS, where connections come in or the server asks for one.",
                             format=formats.FILE, restart=True, example='"/etc/edgecall/sip.crt"')
    key_file: str = setting("", "Private key of that certificate.", format=formats.FILE, restart=True,
                            example='"/etc/edgecall/sip.key"')
    trusted: tuple[str, ...] = setting((), "Networks from which calls are taken, beside those that were sent to the "
                                       "address we have registered.", format=formats.NETWORK, maximum=32,
                                       restart=True, example='["192.0.2.0/24"]')
    trusted_names: tuple[str, ...] = setting((), "Names in certificates of those from whom calls are taken over TLS.",
                                             format=formats.HOST, maximum=32, restart=True,
                                             example='["sbc.example.org"]')
    video: bool = setting(True, "Its calls may carry pictures (H.264); false where the provider takes offense at the "
                          "offer.", restart=True)
    trust_caller_id: bool = setting(False, "Believe who it says is calling, for the address book and automatic answer. "
                                    "Over TLS the asserted identity is believed in any case.", restart=True)


@dataclass(frozen=True, slots=True)
class MeetingSettings:
    """A meeting that is entered by telephone, called or joined as ``meeting:NAME``: sound alone."""

    name: str = setting("", "Its name here.", format=formats.ID, required=True, restart=True, example='"board"')
    number: str = setting("", "Where telephones call, a number or an address.", format=formats.TELEPHONE,
                          required=True, restart=True, example='"tel:+4969123456"')
    profile: str = setting("teams", "What is pressed there. teams, zoom: id and passcode as these services ask for "
                           "them; twilio: nothing, or the id where the number's TwiML asks for one; digits: what "
                           "stands there.", choices=("teams", "zoom", "twilio", "digits"), restart=True)
    id: str = setting("", "Number of the meeting at its service.", format=formats.DIGITS, restart=True,
                      example='"123456789"')
    passcode: Secret = setting(Secret(), "Its passcode for telephones, digits.", restart=True,  # noqa: RUF009
                               example='"/etc/edgecall/board.passcode"')
    digits: str = setting("", "What is pressed after the answer: digits, ',' waits 2 s, 'w' until an announcement is "
                          "over.", format=formats.KEYING, restart=True, example='"w123456789#,,1"')


@dataclass(frozen=True, slots=True)
class SipSettings:
    """Calls over the telephone network."""

    require_encryption: bool = setting(True, "Nothing but encrypted sound (SRTP), and keys only over TLS.",
                                       restart=True)
    allowed_prefixes: tuple[str, ...] = setting(
        (), "Numbers that may be called, by how they begin, extensions too; none: all.",
        format=formats.PREFIX, maximum=64, restart=True, example='["+49", "+43", "110"]')
    calls_per_hour: int = setting(60, "Calls that are made within any hour, at most.", minimum=1, maximum=3600,
                                  restart=True)
    calls_per_target: int = setting(30, "Calls to one number or address within any hour, at most.", minimum=1,
                                    maximum=3600, restart=True)
    accounts: tuple[SipAccountSettings, ...] = setting((), "Accounts, best first.", maximum=8, restart=True)
    meetings: tuple[MeetingSettings, ...] = setting((), "Meetings with a telephone number.", maximum=64, restart=True)


@dataclass(frozen=True, slots=True)
class WhipSettings:
    """A media server, called as ``whip:NAME``: published to by WHIP, played from by WHEP, or both in one call."""

    name: str = setting("", "Its name here.", format=formats.ID, required=True, restart=True, example='"studio"')
    publish: str = setting("", "WHIP endpoint that camera and microphone are published to.", format=formats.WHIP_URL,
                           restart=True, example='"https://media.example.org/whip/door"')
    play: str = setting("", "WHEP endpoint whose picture and sound are played here.", format=formats.WHIP_URL,
                        restart=True, example='"https://media.example.org/whep/desk"')
    token: Secret = setting(Secret(), "Bearer token, where the server asks for one.", restart=True,  # noqa: RUF009
                            example='"/etc/edgecall/studio.token"')
    play_token: Secret = setting(Secret(), "Token for playing, where it is another one.", restart=True,  # noqa: RUF009
                                 example='"/etc/edgecall/studio-play.token"')
    ca_file: str = setting("", "Authority of its certificate; empty: those of the system.", format=formats.FILE,
                           restart=True, example='"/etc/edgecall/media-ca.crt"')
    other_publish: tuple[str, ...] = setting(
        (), "Other endpoints to publish to, in the order to try them; they get the same token.",
        format=formats.WHIP_URL, maximum=7, restart=True, example='["https://media2.example.org/whip/door"]')
    other_play: tuple[str, ...] = setting(
        (), "Other endpoints to play from, in the order to try them; they get the same token.", format=formats.WHIP_URL,
        maximum=7, restart=True, example='["https://media2.example.org/whep/desk"]')
    choose: str = setting("order", "Which of them is used. order: the first that is reached; nearest: the one with the "
                          "shortest round trip; pinned: those of publish and play alone.",
                          choices=("order", "nearest", "pinned"), restart=True)


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How the network is used. Marks are DSCP code points (RFC 2474), for networks that give calls precedence."""

    dscp_audio: int = setting(46, "Mark of a connection that sends sound alone; 46 is EF, 0 is none.",
                              minimum=0, maximum=63, restart=True)
    dscp_video: int = setting(34, "Mark of one that sends pictures; sound beside them has the same. 34 is AF41.",
                              minimum=0, maximum=63, restart=True)


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """The picture sent; the camera delivers the nearest it can."""

    width: int = setting(1280, "Width.", unit="pixels", minimum=160, maximum=1920, restart=True)
    height: int = setting(720, "Height.", unit="pixels", minimum=120, maximum=1080, restart=True)
    fps: int = setting(30, "Pictures a second.", unit="1/s", minimum=1, maximum=60, restart=True)
    bitrate: int = setting(1_500_000, "Upper bound; the network may make it less.",
                           unit="bit/s", minimum=100_000, maximum=8_000_000, restart=True)
    content_dir: str = setting("", "Folder of the pictures and videos that content.start may show; empty: content, in "
                               "the data folder.", format=formats.PATH, example='"/srv/notices"')


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """What of the others stands on the screen; the verb video.layout changes it for a call, or until the next start."""

    layout: str = setting("grid", "Where whose picture stands; what is not shown is not received.", choices=LAYOUTS)
    fit: str = setting("fit", "Pictures of another shape than their place: fit has bars beside, crop cuts off, stretch "
                       "distorts.", choices=FITS)


@dataclass(frozen=True, slots=True)
class AudioSettings:
    """What is done to the microphone's sound; the verb audio.filters changes it until the next start."""

    echo: str = setting("auto", "auto: cancel the loudspeaker's echo where the microphone can hear it, and do "
                        "nothing of this section elsewhere; cancel: always; none: never, for a speakerphone that "
                        "cancels its own.",
                        choices=("auto", "cancel", "none"))
    noise_suppression: str = setting("low", "Take steady noise away: by 12 dB (low) or 21 dB (high).",
                                     choices=("off", "low", "high"))
    automatic_gain: bool = setting(False, "Raise quiet voices by up to 24 dB.")
    high_pass: bool = setting(True, "Take rumble below 100 Hz away; cancelling does so by itself.")
    half_duplex: str = setting("auto", "One side at a time. auto: when the room defeats the canceller; "
                               "pushToTalk: the microphone is open only while the talk key is held.",
                               choices=("off", "auto", "on", "pushToTalk"))


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is written to the journal."""

    level: str = setting("info", "From this level on.", choices=("debug", "info", "warning", "error"))


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """Updates of a device that was flashed with an image. Whatever stands here, their signature is checked against the
    image's own keys."""

    origins: tuple[str, ...] = setting((), "Where updates may come from; none: there are none.",
                                       format=formats.ORIGIN, maximum=8,
                                       example='["https://updates.example.org/"]')
    window: tuple[str, ...] = setting((), "When the device may restart into an update, local time; none: whenever "
                                      "nobody calls.", format=formats.TIMES, maximum=32, alone=True,
                                      example='["02:00-05:00"]')
    ca_file: str = setting("", "Authority of the certificates of these servers; empty: those of the system.",
                           format=formats.FILE, example='"/etc/edgecall/updates-ca.crt"')
    call_bitrate: int = setting(500_000, "How fast an update is fetched while somebody calls.", unit="bit/s",
                                minimum=64_000, maximum=1_000_000_000)


@dataclass(frozen=True, slots=True)
class BookSettings:
    """An entry of the address book, as ``book.put`` takes it; an entry put there under the same name goes first."""

    name: str = setting("", "Name for people.", minimum=1, maximum=64, required=True, example='"Reception"')
    uris: tuple[str, ...] = setting((), "Where it is reached, best first.", format=formats.URI, maximum=8,
                                    example='["operator:desk", "device:lobby-2"]')
    ring_seconds: int = setting(0, "How long it rings.", unit="s", minimum=5, maximum=120, computed="call.ring_s")
    auto_answer: bool = setting(False, "Calls from here are answered by themselves, with a tone.")
    allowed: bool = setting(True, "May call us.")
    members: tuple[str, ...] = setting((), "Makes it a ring group of these names.", maximum=16,
                                       example='["Reception", "Caretaker"]')
    strategy: str = setting("sequence", "How a ring group rings.", choices=("sequence", "parallel"))
    fallback: str = setting("", "Name dialled when nobody answers.", maximum=64, example='"Caretaker"')


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything. ``data_dir`` is no setting: it is chosen by ``--data``, EDGECALL_DATA, or its place by default."""

    device: DeviceSettings = field(default_factory=DeviceSettings)
    board: BoardSettings = field(default_factory=BoardSettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    call: CallSettings = field(default_factory=CallSettings)
    direct: DirectSettings = field(default_factory=DirectSettings)
    janus: JanusSettings = field(default_factory=JanusSettings)
    door: DoorSettings = field(default_factory=DoorSettings)
    sip: SipSettings = field(default_factory=SipSettings)
    whip: tuple[WhipSettings, ...] = setting((), "Media servers.", restart=True)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    video: VideoSettings = field(default_factory=VideoSettings)
    screen: ScreenSettings = field(default_factory=ScreenSettings)
    audio: AudioSettings = field(default_factory=AudioSettings)
    update: UpdateSettings = field(default_factory=UpdateSettings)
    log: LogSettings = field(default_factory=LogSettings)
    book: tuple[BookSettings, ...] = setting((), "Entries of the address book.")
    data_dir: Path = Path("~/.local/share/edgecall")
