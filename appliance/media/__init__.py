"""Sound and picture between the board and the peers: camera, microphone, downlink, sessions, statistics."""
