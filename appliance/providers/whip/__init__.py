"""Publishing to a media server by WHIP (RFC 9725), and playing from one by WHEP (draft-ietf-wish-whep)."""
