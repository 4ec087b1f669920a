"""Settings: typed, documented, checked whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Settings"]


class Secret(str):
    """A text that shows itself as ``***`` in logs, state and errors; ``reveal()`` gives it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'" if self else "''"

    __str__ = __repr__

    def reveal(self) -> str:
        return str.__str__(self)


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    id: str = "edgecall"
    name: str = "Edgecall"
    country: str = ""  # ISO 3166 alpha-2, for national phone numbers


@dataclass(frozen=True, slots=True)
class BoardSettings:
    name: str = "sim"  # sim | auto | pi
    microphone: str = "speech"
    camera: str = "pattern"
    speaker_wav: str = ""
    echo_delay_ms: float = 0.0
    echo_loss_db: float = 0.0  # 0: no echo path
    screen: str = "1280x720"
    long_press_s: float = 1.0


@dataclass(frozen=True, slots=True)
class MqttSettings:
    enabled: bool = True
    host: str = ""  # empty: the local broker that scripts/run starts
    port: int = 1883
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password: Secret = Secret("")
    keepalive_s: int = 15


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """One token: who presents it, with which scope. The token itself stands in a file or credential."""

    name: str = ""
    scope: str = "operator"  # operator | device | admin
    token: Secret = Secret("")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    listen: str = "127.0.0.1"
    port: int = 8080
    names: tuple[str, ...] = ()
    cert_file: str = ""
    key_file: str = ""
    tokens: tuple[TokenSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class CallSettings:
    button_target: str = "operator:*"
    long_press_target: str = ""
    ring_s: int = 30
    setup_s: int = 85
    reconnect_s: int = 120
    auto_answer_delay_s: float = 1.0
    allow_unknown: bool = False  # may callers without an address book entry ring here
    dnd: tuple[str, ...] = ()  # e.g. "Mon-Fri 22:00-06:00"


@dataclass(frozen=True, slots=True)
class PeerSettings:
    """Another appliance on the LAN: ``lan:<name>`` is reached at ``url`` with ``token``."""

    name: str = ""
    url: str = ""
    token: Secret = Secret("")
    fingerprint: str = ""  # SHA-256 of its certificate when it is self-signed


@dataclass(frozen=True, slots=True)
class DirectSettings:
    fleet: tuple[str, ...] = ()  # device ids whose signalling is accepted beside the address book
    stun: str = ""
    turn: str = ""
    turn_username: str = ""
    turn_password: Secret = Secret("")
    peers: tuple[PeerSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class VideoSettings:
    width: int = 1280
    height: int = 720
    fps: int = 30
    bitrate: int = 1_500_000


@dataclass(frozen=True, slots=True)
class LogSettings:
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Settings:
    device: DeviceSettings = field(default_factory=DeviceSettings)
    board: BoardSettings = field(default_factory=BoardSettings)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    http: HttpSettings = field(default_factory=HttpSettings)
    call: CallSettings = field(default_factory=CallSettings)
    direct: DirectSettings = field(default_factory=DirectSettings)
    video: VideoSettings = field(default_factory=VideoSettings)
    log: LogSettings = field(default_factory=LogSettings)
    data_dir: Path = Path("~/.local/share/edgecall")
