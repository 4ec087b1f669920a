"""Settings: typed, documented, checked whole.

``load_or_last_good`` is what a start and a reload call; ``changes`` says what a reload may apply while running;
``explain`` shows the settings in force without secrets.
"""

from __future__ import annotations

from appliance.places import config_path, data_path, socket_path
from appliance.settings.account import Changes, changes, explain
from appliance.settings.lastgood import EXIT_CONFIG, Loaded, copy_name, load_or_last_good
from appliance.settings.loading import default_device_id, load
from appliance.settings.schedule import Window
from appliance.settings.secret import Secret
from appliance.settings.sections import (
    AudioSettings,
    BoardSettings,
    BookSettings,
    CallSettings,
    CodeSettings,
    DeviceSettings,
    DirectSettings,
    DoorSettings,
    HttpSettings,
    JanusRoomSettings,
    JanusSettings,
    LogSettings,
    MeetingSettings,
    MqttSettings,
    MqttUserSettings,
    NetworkSettings,
    PeerSettings,
    ScreenSettings,
    Settings,
    SignerSettings,
    SipAccountSettings,
    SipSettings,
    TokenSettings,
    UpdateSettings,
    VideoSettings,
    WhipSettings,
)

__all__ = [
    "EXIT_CONFIG",
    "AudioSettings",
    "BoardSettings",
    "BookSettings",
    "CallSettings",
    "Changes",
    "CodeSettings",
    "DeviceSettings",
    "DirectSettings",
    "DoorSettings",
    "HttpSettings",
    "JanusRoomSettings",
    "JanusSettings",
    "Loaded",
    "LogSettings",
    "MeetingSettings",
    "MqttSettings",
    "MqttUserSettings",
    "NetworkSettings",
    "PeerSettings",
    "ScreenSettings",
    "Secret",
    "Settings",
    "SignerSettings",
    "SipAccountSettings",
    "SipSettings",
    "TokenSettings",
    "UpdateSettings",
    "VideoSettings",
    "WhipSettings",
    "Window",
    "changes",
    "config_path",
    "copy_name",
    "data_path",
    "default_device_id",
    "explain",
    "load",
    "load_or_last_good",
    "socket_path",
]
