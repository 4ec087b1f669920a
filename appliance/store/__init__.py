"""What must survive: command journal, outbox, call records, small values. SQLite on one thread of its own.

WAL with ``synchronous=FULL``: a row is on the medium when the awaited call returns. One thread named ``store`` owns
the connection; the loop awaits. What can go wrong with a data folder is answered here and told through ``on_trouble``:

* another process holds it: ``open`` raises, nothing falls back;
* damaged: moved aside as ``edgecall.db.damaged-N``, an empty one is begun;
* full: the ballast is given up and old rows go (on a full disk even DELETE fails: it writes to the WAL);
* read-only, gone, failing: everything goes on in memory and is written back when the folder works again.
"""

from appliance.store.notes import Notes
from appliance.store.service import Store
from appliance.store.tables import Entry, Gap, JournalState, OutboxLimits, Row

__all__ = ["Entry", "Gap", "JournalState", "Notes", "OutboxLimits", "Row", "Store"]
