"""The MQTT door: state and events out, commands in, answers back.

========================================  ===========================================================================
``edgecall/v1/<device>/cmd/<verb>``       commands; acknowledged to the broker after they are committed to the journal
``.../ack/<verb>``                        answers to commands that came by MQTT, through the outbox
``.../ack/_invalid``                      refusals of what names no verb of ours (nobody can be sent to subscribe there
                                          by a name he made up)
``.../state/<name>``                      retained, whole documents: ``v, ts, clock, boot, seq`` and the body
``.../state/quality``                     statistics, QoS 0, not retained
``.../log/<kind>``                        logs and summaries, QoS 1, kept until the broker has them
``.../event/<first word of the type>``    CloudEvents 1.0 in JSON, through the outbox
========================================  ===========================================================================

Refusals of what is no command are published once, not queued: the sender can send again and is refused again, and a
flood of garbage must not wear the flash. ``state/availability`` belongs to the link, whose will it is. Response Topic
is honoured below ``.../ack/`` of this device, else ignored: no sender makes us publish where he may not himself.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Final

from appliance.bulletin import Bulletin
from appliance.clock import Clock, RateLimit
from appliance.doors.floods import Floods, Limit
from appliance.errors import BadRequest, NotPermitted, StoreError
from appliance.faces.cloudevents import cloud_event
from appliance.faces.envelope import encode, parse, refusal, salvage_id
from appliance.intake import Intake
from appliance.link.api import Link, Message
from appliance.vocabulary import ROOT, VERB, Answer, Event, Json, Origin, Scope

__all__ = ["MqttDoor"]

log = logging.getLogger(__name__)

EVENTS_WAITING: Final = 1000  # between the bulletin and the outbox: only a store that hangs lets them wait at all
STATE_TRIES: Final = 3
STATE_RETRY_S: Final = 1.0
REFUSALS_PER_S: Final = 10.0
REFUSALS_BURST: Final = 20.0
SECURITY_PER_S: Final = 1.0
SECURITY_BURST: Final = 10.0
SENDER: Final = "mqtt"
"""MQTT does not tell who published; the broker's access list has decided that he may."""
STOP_S: Final = 2.0


class MqttDoor:
    """``start`` after the link's receivers may be registered, ``stop`` before the link's."""

    def __init__(self, link: Link, intake: Intake, bulletin: Bulletin, clock: Clock, *,
                 device_id: str) -> None:
        """``seq`` counts state messages within the bulletin's boot, so that receivers see a gap and a restart."""
        self._link = link
        self._intake = intake
        self._bulletin = bulletin
        self._clock = clock
        self._root = f"{ROOT}/{device_id}"
        self._device = device_id
        self._seq = 0
        self._dirty: dict[str, int] = {}  # name -> failed tries; in order of change
        self._events: deque[Event] = deque()
        self._dropped_events = 0
        self._state_ready = asyncio.Event()
        self._event_ready = asyncio.Event()
        self._draining = asyncio.Lock()
        self._refusals = RateLimit(REFUSALS_PER_S, REFUSALS_BURST, clock.monotonic)
        self._security = RateLimit(SECURITY_PER_S, SECURITY_BURST, clock.monotonic)
        self._floods = Floods(clock.monotonic, self._flooded)
        self._subscription = ExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._link.receive(f"{self._root}/cmd/#", self._command)
        self._link.on_connection(self._connection)
        # At once, and not in a task: what happens from here on is told, `device.booted` first of all.
        self._subscription.enter_context(
            self._bulletin.subscribed(on_document=self._changed, on_event=self._happened))
        self._mark(self._bulletin.snapshot().documents)
        self._tasks = [
            asyncio.create_task(self._publish_states(), name="mqtt states"),
            asyncio.create_task(self._queue_events(), name="mqtt events"),
        ]

    async def watch(self) -> None:
        """Until cancelled, or until publishing has ended by a fault, which is raised."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if not task.cancelled():
                task.result()

    async def stop(self) -> None:
        """Queue the events that wait, then end, within STOP_S. May be called twice."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        self._subscription.close()
        try:
            async with asyncio.timeout(STOP_S / 2):
                await self._drain_events()
        except (TimeoutError, StoreError) as error:
            log.warning("%d events are lost at the end: %s", len(self._events), error)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOP_S / 2)

    async def keep_events(self) -> None:
        """Returns when every event so far lies in the outbox. Raises StoreError."""
        await self._drain_events()

    async def publish_quality(self, document: Json) -> bool:
        """Statistics: QoS 0, not retained, gone when nobody listens."""
        return await self._link.publish(f"{self._root}/state/quality", self._document(document), qos=0)

    async def keep_log(self, kind: str, document: Json) -> None:
        """A log or summary: kept until the broker has it. Raises StoreError."""
        await self._link.enqueue(f"{self._root}/log/{kind}", self._document(document))

    # --- commands

    async def _command(self, message: Message) -> None:
        verb = message.topic.removeprefix(f"{self._root}/cmd/")
        reply = self._reply_topic(verb, message.response_topic)
        try:
            self._check_retained(message, verb)
            command = parse(
                verb, message.payload, origin=Origin.MQTT, sender=SENDER, scope=Scope.ADMIN,
                mqtt_expiry_s=message.expiry_s, require_mqtt_expiry=True, correlation=message.correlation,
                now=lambda: message.arrived)
        except (BadRequest, NotPermitted) as error:
            if error.sub_code == "correlation":
                self._report("correlation", verb)
            await self._refuse(reply, refusal(str(error.fields.get("command_id", "")), error, self._bulletin.rev))
            return
        answer = await self._intake.take(command, reply)
        if answer is not None:
            await self._refuse(reply, answer)

    def _check_retained(self, message: Message, verb: str) -> None:
        if message.retained:
            self._report("retained", verb)
            raise BadRequest("A command must not be retained: it would be carried out again at every connection.",
                             sub_code="retained", command_id=salvage_id(message.payload))

    def _reply_topic(self, verb: str, wanted: str | None) -> str:
        own = f"{self._root}/ack/"
        if wanted is not None and wanted.startswith(own) and not set("+#\0") & set(wanted):
            return wanted
        return own + (verb if verb in VERB else "_invalid")

    async def _refuse(self, topic: str, answer: Answer) -> None:
        if self._refusals.take():
            await self._link.publish(topic, encode(answer))
        else:
            log.debug("refusal not told (flood): %s", answer.message)

    def _report(self, why: str, verb: str) -> None:
        if self._security.take():
            self._bulletin.post("security.refused", why=why, verb=verb[:64], origin=Origin.MQTT.value, sender=SENDER)

    # --- state

    def _changed(self, name: str, _document: Json, _rev: int) -> None:
        self._mark([name])

    def _connection(self, connected: bool) -> None:
        if connected:  # whatever happened meanwhile: a late subscriber sees the truth
            self._mark(self._bulletin.snapshot().documents)

    def _mark(self, names: Iterable[str]) -> None:
        """Only the newest of each document is published: what changes fast waits for nobody and floods nobody."""
        for name in names:
            if name != "availability":
                self._dirty[name] = 0
        if self._dirty:
            self._state_ready.set()

    async def _publish_states(self) -> None:
        while True:
            await self._state_ready.wait()
            self._state_ready.clear()
            while self._dirty and self._link.connected:
                name, tries = next(iter(self._dirty.items()))
                del self._dirty[name]
                payload = self._document(self._bulletin.document(name))
                if await self._link.publish(f"{self._root}/state/{name}", payload, retain=True):
                    continue
                if name not in self._dirty and self._link.connected:
                    await self._again(name, tries + 1)

    async def _again(self, name: str, tries: int) -> None:
        """Lost connections are made good by ``_connection``; here the broker is there and does not take it."""
        if tries >= STATE_TRIES:
            log.error("state/%s cannot be published; it is tried again when it changes", name)
            return
        await asyncio.sleep(STATE_RETRY_S)
        self._dirty.setdefault(name, tries)

    def _document(self, body: Json) -> bytes:
        self._seq += 1
        head = {"v": 1, "ts": round(self._clock.wall(), 3),
                "clock": "synchronised" if self._clock.synchronised() else "unsynchronised",
                "boot": self._bulletin.boot, "seq": self._seq}
        return _json({**body, **head})

    # --- events

    def _flooded(self, kind: str, limit: Limit) -> None:
        log.error("events about %s come faster than %g a second; further ones are not kept until it is quieter", kind,
                  limit.per_s)
        self._bulletin.post("security.flood", kind=kind, perSecond=limit.per_s, burst=limit.burst)

    def _happened(self, event: Event) -> None:
        if not self._floods.takes(event.type):
            return
        if len(self._events) >= EVENTS_WAITING:
            self._events.popleft()
            self._dropped_events += 1
            if self._dropped_events == 1:
                log.error("events are thrown away: over %d wait for the store", EVENTS_WAITING)
        self._events.append(event)
        self._event_ready.set()

    async def _queue_events(self) -> None:
        while True:
            await self._event_ready.wait()
            self._event_ready.clear()
            try:
                await self._drain_events()
            except StoreError as error:
                log.warning("events wait for the store: %s", error.message)
                await asyncio.sleep(STATE_RETRY_S)
                self._event_ready.set()

    async def _drain_events(self) -> None:
        async with self._draining:
            while self._events:
                event = self._events[0]
                payload = _json(cloud_event(event, self._device, self._bulletin.boot))
                await self._link.enqueue(f"{self._root}/event/{event.type.partition('.')[0]}", payload)
                if self._events and self._events[0] is event:
                    self._events.popleft()


def _json(body: Json) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "replace")
