"""``python -m tests.support.clock_is_set``: the appliance on a machine whose clock is synchronised.

A container's kernel says that it is not, and may not be told otherwise; what depends on it is proved with this.
"""

import sys

from appliance import house
from appliance.__main__ import main
from appliance.clock import SystemClock


class _Set(SystemClock):
    def synchronised(self) -> bool:
        return True


if __name__ == "__main__":
    house.SystemClock = _Set  # type: ignore[misc]
    sys.exit(main())
