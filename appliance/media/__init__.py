"""Sound and picture between the board and the peers: camera, microphone, downlink, sessions, statistics."""

from appliance.media import mdns_seam

mdns_seam.install()  # before a module below imports aioice
