"""Sound by ALSA: microphone and loudspeaker of one card or two as one clocked device (``hw.api.Audio``)."""
