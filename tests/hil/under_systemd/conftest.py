"""Only inside of a guest: ``tests/hil/test_systemd.py`` boots it."""

import os

if os.environ.get("EDGECALL_HIL_INSIDE") is None:
    collect_ignore_glob = ["test_*.py"]
