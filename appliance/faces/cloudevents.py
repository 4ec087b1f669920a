"""Events as CloudEvents 1.0 in JSON: the same bytes of meaning on MQTT and in the HTTP event stream."""

from __future__ import annotations

from datetime import UTC, datetime

from appliance.vocabulary import EVENT_PREFIX, ROOT, Event, Json

__all__ = ["cloud_event"]


def cloud_event(event: Event, device: str, boot: str) -> Json:
    """``source`` and ``id`` together are unique (CloudEvents 3.1); ``boot`` and ``seq`` are extension attributes."""
    return {
        "specversion": "1.0", "id": event.id, "source": f"{ROOT}/{device}", "type": EVENT_PREFIX + event.type,
        "time": datetime.fromtimestamp(event.time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json", "boot": boot, "seq": event.seq,
        "data": event.data,
    }
