"""Sound and picture between the board and the peers: uplink, downlink, sessions, statistics."""
