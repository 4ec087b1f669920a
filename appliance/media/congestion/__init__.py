"""Send-side congestion control: what the path carries, from what the peer says has arrived. Pure: time is handed in.

``transport_cc`` is the feedback on the wire; ``estimator`` turns it into a rate (after Google Congestion Control,
draft-ietf-rmcat-gcc-02, with loss bound and probing).
"""
