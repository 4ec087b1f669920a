"""Every diagnostic (names of Azure Communication Services where it has one), what it means and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["DIAGNOSTICS", "Diagnostic", "DiagnosticType"]


class DiagnosticType(Enum):
    FLAG = "DiagnosticFlag"
    QUALITY = "DiagnosticQuality"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A user-facing diagnostic: ACS web name where ACS has one, with words for people."""

    name: str
    type: DiagnosticType
    message: str
    advice: str


def _diagnostics(*rows: tuple[str, DiagnosticType, str, str]) -> Mapping[str, Diagnostic]:
    return {row[0]: Diagnostic(*row) for row in rows}


_F, _Q = DiagnosticType.FLAG, DiagnosticType.QUALITY

DIAGNOSTICS: Final[Mapping[str, Diagnostic]] = _diagnostics(
    ("noNetwork", _F, "There is no network.", "Check cable, switch or Wi-Fi."),
    ("networkRelaysNotReachable", _F, "A STUN or TURN server of the settings cannot be used.",
     "Check the server that the detail names, its login in [direct], and the firewall between. "
     "Calls in the same network need none."),
    ("networkReconnect", _Q, "Media of the call is lost and being re-established.", "Check the network."),
    ("networkReceiveQuality", _Q, "What is received suffers from the network.", "Check the network."),
    ("networkSendQuality", _Q, "What is sent suffers from the network.", "Check the network."),
    ("noSpeakerDevicesEnumerated", _F, "There is no loudspeaker.", "Plug one in."),
    ("noMicrophoneDevicesEnumerated", _F, "There is no microphone.", "Plug one in."),
    ("speakingWhileMicrophoneIsMuted", _F, "At the device somebody speaks while its microphone is muted.",
     "Unmute the device to be heard."),
    ("microphoneNotFunctioning", _F, "The microphone stopped delivering.", "Check its plug."),
    ("microphoneMuteUnexpectedly", _F, "The microphone is muted outside the appliance.", "Unmute it in the mixer."),
    ("microphoneNotMuteButSilent", _F, "The microphone is not muted but delivers silence.",
     "Check that it is not covered or broken."),
    ("microphonePermissionDenied", _F, "The microphone may not be opened.", "Add the user to the group audio."),
    ("microphoneBusy", _F, "Another program holds the microphone.", "End the program named in the detail."),
    ("microphoneUnplugged", _F, "The microphone in use, or selected, was unplugged; the next one takes over, if any.",
     "Plug it in again."),
    ("microphoneFormatUnsupported", _F, "The microphone offers no format that the appliance can use.",
     "Use one with 16, 24 or 32 bits and 8 to 48 kHz; the detail says what it offers."),
    ("microphoneClipping", _F, "The microphone is overdriven.", "Lower its gain."),
    ("microphoneNoiseHigh", _F, "The microphone hears much noise.", "Move it away from the source of the noise."),
    ("echoHigh", _F, "The far end hears itself: the room defeats the echo canceller.",
     "Turn the loudspeaker down, or move it and the microphone apart; meanwhile one side is heard at a time."),
    ("echoDelayChanged", _F, "The way from loudspeaker to microphone is not what it was.",
     "Check that nobody moved or covered them."),
    ("speakerPathBroken", _F, "The microphone does not hear the loudspeaker.",
     "Check volume, plugs and membranes of both."),
    ("noCameraDevicesEnumerated", _F, "There is no camera.", "Check its plug; the detail says what there is."),
    ("cameraFreeze", _F, "The camera stopped delivering pictures.", "Check its cable."),
    ("cameraStartFailed", _F, "The camera could not be started: another program holds it.",
     "End the program named in the detail."),
    ("cameraStartTimedOut", _F, "The camera did not deliver a picture in time.", "Check its cable."),
    ("cameraStoppedUnexpectedly", _F, "The camera failed, or stopped by itself.",
     "It is tried again by itself; check its cable, and what the detail says."),
    ("cameraUnplugged", _F, "The camera in use, or selected, was unplugged; the next one takes over, if any.",
     "Plug it in again."),
    ("cameraFormatUnsupported", _F, "The camera offers no format that the appliance can use.",
     "Take another; the detail says what this one offers."),
    ("cameraPermissionDenied", _F, "The camera may not be opened.", "Add the user to the group video."),
    ("cameraCovered", _F, "The camera sees only black.", "Uncover the lens."),
    ("cameraLowFrameRate", _F, "The camera is slower than configured.", "More light, or a smaller picture."),
    ("incomingVideoStalled", _F, "The picture of the other side stands still.",
     "Ask the other side to look after its camera; check the network."),
    ("contentNoSignal", _F, "What is shown to the others is black: the HDMI input receives nothing.",
     "Check the cable, and that the other end sends a picture."),
    ("encoderFallback", _F, "The hardware encoder failed or is missing; software encodes.",
     "Calls go on, with a smaller picture where need be, and it is tried again by itself. The detail tells whether it "
     "is missing, busy (end its holder), denied (group video), of no usable format, pulled, stalled or failed (look "
     "into dmesg, restart the board)."),
    ("speakerNotFunctioning", _F, "The loudspeaker stopped playing.", "Check its plug."),
    ("speakerMuted", _F, "The loudspeaker is muted outside the appliance.", "Unmute it in the mixer."),
    ("speakerVolumeIsZero", _F, "The volume is zero.", "Raise the volume."),
    ("speakerUnplugged", _F, "The loudspeaker in use, or selected, was unplugged; the next one takes over, if any.",
     "Plug it in again."),
    ("speakerPermissionDenied", _F, "The loudspeaker may not be opened.", "Add the user to the group audio."),
    ("speakerFormatUnsupported", _F, "The loudspeaker takes no format that the appliance can make.",
     "Use one with 16, 24 or 32 bits and 8 to 48 kHz; the detail says what it takes."),
    ("speakerBusy", _F, "Another program holds the loudspeaker.", "End the program named in the detail."),
    ("soundDropouts", _F, "Sound breaks up: a sound card ran over or empty more than ten times within a minute.",
     "Check what else keeps the processor busy, and whether the service may have real-time priority; a higher "
     "latency_ms in the board file helps, and so may another USB port."),
    ("noDisplayDevicesEnumerated", _F, "There is no screen.",
     "Plug one in and switch it on; the detail says where it is looked for."),
    ("displayDisconnected", _F, "The screen in use was unplugged.", "Plug it in again; check its cable."),
    ("displayBusy", _F, "Another program holds the screen.", "End the program named in the detail."),
    ("displayPermissionDenied", _F, "The screen may not be opened.",
     "Add the user to the groups video, render and input."),
    ("displayFormatUnsupported", _F, "The screen offers no size that the appliance can use.",
     "Try another cable or screen, or name a size with video= on the kernel's command line."),
    ("displayNotFunctioning", _F, "The screen cannot be drawn on.",
     "It is tried again by itself; check the graphics driver, and what the detail says."),
    ("noPanelDevicesEnumerated", _F, "Buttons, lamps or relays are not there.",
     "Check the add-on board, the keypad's plug, or the board file; the detail names the device."),
    ("panelDisconnected", _F, "Buttons, lamps or relays in use were unplugged.",
     "Plug the device in again that the detail names."),
    ("panelBusy", _F, "A line of the panel is held by somebody else.",
     "End the program or remove the overlay named in the detail, or wire another line."),
    ("panelPermissionDenied", _F, "The panel may not be opened.", "Add the user to the groups gpio and input."),
    ("panelNotFunctioning", _F, "Buttons, lamps or relays do not answer.", "See the detail."),
    ("buttonStuck", _F, "A button is held for over 30 s.", "Free the button."),
    ("tamper", _F, "The tamper contact reports that the case may be open, or somebody guesses PINs at the door.",
     "Look after the device; the detail says what it is."),
    ("doorOpenTooLong", _F, "The door stands open.", "Shut it, or look at its contact."),
    ("handsetOffHook", _F, "The handset lies beside its hook.", "Put it back."),
    ("powerUndervoltage", _F, "The supply voltage is too low.", "Use a stronger supply."),
    ("thermalThrottled", _F, "The board is too hot and slows down.", "Improve the cooling."),
    ("storageLow", _F, "Little storage is left.", "Free storage; see the detail."),
    ("storageWear", _F, "The built-in storage is almost worn out.", "Back up its data and replace it."),
    ("storageReadOnly", _F, "The data folder cannot be written.", "Check the card or disk."),
    ("clockNotSynchronised", _F, "The clock is not synchronised.", "Check the time server."),
    ("watchdogRestarted", _F, "The appliance was restarted after a crash or hang.", "Send the log."),
    ("mqttDisconnected", _F, "The broker is not reached.", "Check network, address and certificate of the broker."),
    ("eventQueueBacklog", _F, "Many messages wait for the broker.", "Check the connection to the broker."),
    ("sipRegistrationLost", _F, "The telephone network is not reached.",
     "Check network, name and password of the account that the detail names."),
    ("nobodyOnDuty", _F, "Nobody is on duty to answer.", "Open the operator page and go on duty."),
    ("tokenExpiring", _F, "The token for the rooms expires soon.",
     "Give a new one with token.set, or write it to janus.token_file and reload the settings; with janus.token_url, "
     "see why its server gives none."),
    ("tokenInvalid", _F, "The server of the rooms does not take the token, or it has expired.",
     "Give a new one with token.set, or write it to janus.token_file and reload the settings; with janus.token_url, "
     "see why its server gives none."),
    ("updateFailed", _F, "The last update came to nothing; the system before it runs.",
     "See in the detail why, and install another one; the system is as it was."),
    ("updatePending", _F, "An installed update has waited for a day to be started.",
     "See in the detail what it waits for; update.commit, or an update.install with force, starts it."),
    ("configRejected", _F, "The settings file has errors; the last good settings are in force.",
     "Correct the lines named in the detail."),
)
