"""The rooms of one appliance, put together: settings -> board -> media -> providers -> calls -> doors.

Start order is that of the list; everything is left in reverse. A background task that fails is a defect: the house is
left in order and the process ends with an error, for the service manager to start it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from appliance import __version__
from appliance.bulletin import Bulletin
from appliance.calls.auto_join import AutoJoin
from appliance.calls.book import AddressBook, entries_of
from appliance.calls.commands import CallCommands
from appliance.calls.controller import CallController
from appliance.calls.pictures import PictureCommands
from appliance.calls.recording import RecordCommands
from appliance.calls.terms import rules_of
from appliance.care.acoustics import AcousticsCare
from appliance.care.board import BoardCare
from appliance.care.call_lock import CallLock
from appliance.care.call_quality import CallQuality
from appliance.care.choice import DeviceChoice
from appliance.care.configuration import Configuration
from appliance.care.diagnostics import Diagnostics
from appliance.care.duty import Duty
from appliance.care.first_boot import NOTHING, FirstBoot
from appliance.care.logs import secrets_in
from appliance.care.precall import PreCall
from appliance.care.restarts import Restarts, boot_name
from appliance.care.sampling import Sampling, SamplingPorts
from appliance.care.summaries import Summaries
from appliance.care.systemd import Notifier, Watchdog
from appliance.care.update import Update
from appliance.care.update_commands import UpdateCommands
from appliance.care.update_service import RootService
from appliance.care.video_count import VideoCount
from appliance.care.watch import Watch, WatchPorts
from appliance.clock import RateLimit, SystemClock
from appliance.doors.digits import DigitDoor
from appliance.doors.http import HttpDoor, Ports
from appliance.doors.mqtt import MqttDoor
from appliance.doors.panel import PanelDoor, without_panel
from appliance.errors import Refused, StoreError
from appliance.faces import openapi
from appliance.intake import Handler, Intake
from appliance.link.local import LocalBroker, LocalBrokerError
from appliance.link.session import Session as MqttSession
from appliance.media.api import Tone
from appliance.media.dscp import Marks
from appliance.media.layout import Layout
from appliance.media.studio import Studio
from appliance.network import NetworkWatch
from appliance.places import UPDATE_SOCKET, call_lock_path
from appliance.providers.api import Peer
from appliance.settings import Loaded, MqttSettings, Settings
from appliance.store import Notes, Store
from appliance.vocabulary import CallState, Command, Json
from appliance.ways import Above, Ways
from hw.api import Board, BoardOptions, Fit, HardwareError

if TYPE_CHECKING:  # and where it is opened
    from appliance.doors.signed import SignedDoor

__all__ = ["House", "Start"]

log = logging.getLogger(__name__)

REFUSALS_PER_S: Final = 1.0  # security events of signalling
REFUSALS_BURST: Final = 10.0
WRONG_PINS: Final = "door.codes"  # what is kept of them
POISON_SHOWN_S: Final = 600.0  # a message set aside is trouble for as long; the log and the quarantine keep it
STEP_S: Final = 30.0  # of the start: on a slow board all of them together may outlast the unit's TimeoutStartSec
BOOK_S: Final = 10.0  # to read the address book: a card that hangs does not hold the start
SENDING_STALL_S: Final = 5.0  # of one frame in the hands of a send task, which the pacer spreads over half a second
EXCHANGE_STALL_S: Final = 2.0  # the exchange ticks every 10 ms, on a null clock where a device is missing


@dataclass(frozen=True, slots=True)
class Start:
    """How this run was asked for."""

    loaded: Loaded
    load: Callable[[], Loaded]  # reads the settings again; blocking
    path: Path | None
    open_board: Callable[[str, BoardOptions], Board]
    announce: Callable[[str], None] = print
    set_log_level: Callable[[str], None] = lambda _: None
    local_broker: bool = True
    safe: bool = False  # no media: everything else up, and says so
    hide: Callable[..., None] = lambda *_: None  # these texts from the log, and no longer those (``Logs.hide``)
    update_socket: Path = UPDATE_SOCKET
    first_boot: FirstBoot = NOTHING


class House:
    """One appliance. ``async with House(start) as house: await house.serve()``."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self.settings: Settings = start.loaded.settings
        self.stopping = asyncio.Event()
        self._started = time.monotonic()
        self._stack = contextlib.AsyncExitStack()
        self._broker: LocalBroker | None = None
        self._broker_fault = ""
        self.link: MqttSession | None = None
        self._background: list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]] = []

    async def __aenter__(self) -> House:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._notifier.stopping()
        await self._stack.aclose()

    async def serve(self) -> None:
        """Serve until ``stopping`` is set. Raises what a background task failed with."""
        tasks = [asyncio.create_task(work(), name=name) for name, work in self._background]
        stop = asyncio.create_task(self.stopping.wait(), name="house.stopping")
        reason = "failed"
        try:
            self._notifier.ready(self._status())
            done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stop}:
                log.error("%s ended; leaving, to be started again", task.get_name(), exc_info=task.exception())
                task.result()
            reason = "asked"
        finally:
            self.bulletin.post("device.stopping", reason=reason)
            await self.controller.stop()  # before the door: whoever is in a call is told through it
            await self.http.stop()
            for task in (*tasks, stop):
                task.cancel()
            await asyncio.gather(*tasks, stop, return_exceptions=True)

    async def reload(self) -> None:
        """SIGHUP."""
        self._notifier.reloading()
        await self.configuration.reload()
        self._notifier.ready(self._status())

    # --- rooms, from the ground up ----------------------------------------------------------------------------------

    async def _open(self) -> None:
        settings, start = self.settings, self._start
        self._notifier = Notifier()
        self._stack.callback(self._notifier.close)
        self.clock = SystemClock()
        # The slow ones side by side: a child process gets ready while this one goes on.
        board = asyncio.create_task(asyncio.to_thread(start.open_board, *self._board_options()), name="board.open")
        broker = asyncio.create_task(self._open_broker(), name="broker.open")
        self._stack.push_async_callback(self._close_broker, broker)
        self._stack.push_async_callback(self._close_board, board)
        await self._open_store()
        self._goes_on()
        self.board = await board
        self._facts()
        self.choice = DeviceChoice(self.board, self.store)
        await self.choice.restore()  # before any device is opened
        if self.board.display is not None:
            self.board.display.set_brightness(settings.board.brightness)
        self.studio = Studio(self.board, settings.video, settings.audio,
                             marks=Marks(settings.network.dscp_audio, settings.network.dscp_video))
        self._stack.push_async_callback(self.studio.close)
        self.network = NetworkWatch()
        self._background.append(("network", self.network.run))
        self.network.on_change(self.studio.network_changed)
        await self.studio.open()
        self._goes_on()
        self._open_link(await broker)
        self.duty = Duty(self.bulletin, self.diagnostics)
        self.ways = Ways(settings, self.studio, self.clock, self.network, self.notes, Above(
            idle=lambda: self.controller.idle, accept_from=self._accept_from, on_duty=self.duty.changed,
            refused=self._refused, flag=self.diagnostics.flag, hide=start.hide,
            renewed=lambda: self.auto_join.mended("401/token")), safe=start.safe)
        await self.ways.open(self.link)
        self._background += self.ways.background
        self._goes_on()
        await self._open_calls()
        await self._open_update()
        self._goes_on()
        await self._open_doors()

    def _goes_on(self) -> None:
        """The start does, however long it has taken so far; a step that hangs ends it."""
        self._notifier.extend(STEP_S)

    def _board_options(self) -> tuple[str, BoardOptions]:
        board = self.settings.board
        width, _, height = board.screen.partition("x")
        return "none" if self._start.safe else board.name, BoardOptions(
            microphone=board.microphone, camera=board.camera, speaker=board.speaker_wav,
            display=(int(width), int(height)), echo_delay_ms=board.echo_delay_ms,
            echo_loss_db=board.echo_loss_db or None, long_press_s=board.long_press_s, file=board.file)

    async def _open_store(self) -> None:
        self.store = Store(self.settings.data_dir)
        await self.store.open()
        self._stack.push_async_callback(self.store.close)
        self.notes = Notes(self.store)
        self._stack.push_async_callback(self.notes.close)
        self.bulletin = Bulletin(await boot_name(self.store))
        self.diagnostics = Diagnostics(self.bulletin)
        self._refusals = RateLimit(REFUSALS_PER_S, REFUSALS_BURST, self.clock.monotonic)
        self._stack.callback(self.diagnostics.close)
        self.store.on_trouble(self._store_trouble)
        restarts = Restarts(self.store, self.diagnostics)
        await restarts.begin()
        self._stack.push_async_callback(restarts.end)
        self._background.append(("care.restarts", restarts.run))
        self.configuration = Configuration(self._start.loaded, self._start.path, self.bulletin, self.diagnostics,
                                           self._start.load, self._apply,
                                           first_boot=self._start.first_boot.faults)

    def _facts(self) -> None:
        device = self.settings.device
        self.bulletin.merge("device", id=device.id, name=device.name, version=__version__, boot=self.bulletin.boot,
                            safeMode=self._start.safe, **self.board.facts())

    @staticmethod
    async def _close_board(opening: asyncio.Task[Board]) -> None:
        """Also one that was still opening when the start failed elsewhere."""
        with contextlib.suppress(HardwareError):
            await asyncio.to_thread((await opening).close)

    async def _open_broker(self) -> MqttSettings | None:
        """The settings of the broker to connect to; None without one. The embedded one is started here."""
        settings = self.settings.mqtt
        if not settings.enabled or settings.host:
            return settings if settings.enabled else None
        if not self._start.local_broker:
            return None
        self._broker = LocalBroker(self.settings.data_dir, self.settings.device.id, users=settings.users,
                                   on_ready=self._broker_ready)
        try:
            return await self._broker.start()
        except LocalBrokerError as error:  # calls by page and button work without one
            log.error("no commands by MQTT: %s", error)  # noqa: TRY400 - words for people, no traceback
            self._broker_fault = str(error)
            return None

    async def _close_broker(self, opening: asyncio.Task[MqttSettings | None]) -> None:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        if self._broker is not None:
            await self._broker.stop()

    def _open_link(self, settings: MqttSettings | None) -> None:
        if settings is None:
            self.diagnostics.flag("mqttDisconnected", bool(self._broker_fault), cause="local", why=self._broker_fault)
            return
        self.link = MqttSession(settings, self.settings.device.id, self.store, on_poison=self._poison,
                                on_taken_over=lambda: self._refused("takenOver", self.settings.device.id))
        self._stack.push_async_callback(self.link.stop)
        self.network.on_change(self.link.network_changed)

    async def _open_calls(self) -> None:
        settings = self.settings
        features = {} if self.board.camera is not None else {"turnVideoOn": "this board has no camera"}
        book = AddressBook(entries_of(settings.book), country=settings.device.country)
        path = settings.data_dir / "book.json"
        try:
            async with asyncio.timeout(BOOK_S):
                await asyncio.to_thread(book.load, path)
        except StoreError as error:
            log.error("%s", error)  # noqa: TRY400 - words for people, no traceback
        except TimeoutError:
            log.error("%s cannot be read: the data folder does not answer; the entries of the settings apply", path)  # noqa: TRY400
        me = Peer(settings.device.id, f"device:{settings.device.id}", settings.device.name, "device", verified=True)
        providers = self.ways.providers
        self.quality = CallQuality(self.bulletin, self.diagnostics, self._call_stats, self._replaced_stats,
                                   lambda: self.settings.call.network_quality)
        self.summaries = Summaries(self.quality, self.store.summary, self._record_so_far,
                                   self._keep_log)
        self.controller = CallController(
            me=me, settings=settings.call, providers=providers, studio=self.studio, book=book, book_path=path,
            bulletin=self.bulletin, records=self.store, conclusion=self.summaries, features=features,
            rules=rules_of(settings.janus.rooms))
        self._set_the_stage(settings)
        self._stack.push_async_callback(self.controller.stop)
        jitter = Random()  # noqa: S311 - keeps devices apart, and nothing secret
        self.auto_join = AutoJoin(self.controller, self.bulletin, settings.call.auto_join, jitter=jitter)
        if not self._start.safe:
            self._background.append(("calls.autoJoin", self.auto_join.run))
        self.care = BoardCare(self.board, self.choice, self.bulletin, self.diagnostics)
        self.acoustics = AcousticsCare(self.studio, self.store, self.diagnostics, idle=lambda: self.controller.idle)
        janus = self.ways.janus
        ways_to_try = {} if self._start.safe or janus is None else {janus.name: janus}
        self.precall = PreCall(self.bulletin, ways_to_try, idle=lambda: self.controller.idle)
        self.watch = Watch(self.bulletin, self.diagnostics, self.clock, settings.data_dir, WatchPorts(
            levels=self.studio.levels, broker=self._broker_connected,
            backlog=self._backlog, note_speaking=self.controller.note_speaking, media=self.studio.state,
            providers=lambda: {one.name: one.state() for one in providers}, health=self.board.health),
            started=self._started)
        self.sampling = Sampling(self.bulletin, SamplingPorts(
            stats=self.controller.stats, earlier=self.quality.earlier, quality=self._quality,
            health=self.board.health, lag=self.studio.lag, rates=self.studio.rates, publish=self._publish_sample))
        count = VideoCount(self.studio, self.board.health, self.controller.stage.limit)
        if self.studio.shows:
            self._background.append(("care.videoCount", count.run))
        watchdog = Watchdog(self._notifier)
        self._background += [("care.board", self.care.run), ("care.acoustics", self.acoustics.run),
                             ("care.watch", self.watch.run), ("care.quality", self.quality.run),
                             ("care.sampling", self.sampling.run),
                             ("care.watchdog", watchdog.run)]
        self._background.append(("care.watchdog.sending", lambda: watchdog.follow(
            "media sending", SENDING_STALL_S, lambda: self.studio.sending_tick)))
        if self.board.audio is not None:
            self._background.append(("care.watchdog.audio", lambda: watchdog.follow(
                "audio exchange", EXCHANGE_STALL_S, lambda: self.studio.exchange_tick)))

    async def _open_update(self) -> None:
        self.call_lock = CallLock(call_lock_path(self.settings.data_dir))
        self._stack.callback(self.call_lock.close)
        await self.call_lock.open()
        self.update = Update(RootService(self._start.update_socket), self.store, self.bulletin, self.diagnostics,
                             self.clock, self.call_lock, self.settings.update, settle=self._settle_events)
        await self.update.recall()
        for subscriber in (self.call_lock.on_document, self.update.on_document):
            self._stack.enter_context(self.bulletin.subscribed(on_document=subscriber))
        self._background.append(("care.update", self.update.run))

    async def _open_doors(self) -> None:
        settings = self.settings
        handlers: dict[str, Handler] = {
            **CallCommands(self.controller).handlers(),
            **PictureCommands(self.controller, self.studio, self._content_folder).handlers(),
            **RecordCommands(self.controller).handlers(),
            **self.care.handlers(), **self.acoustics.handlers(), **self.precall.handlers(),
            **self.sampling.handlers(), **self.summaries.handlers(), **self.configuration.handlers(),
            **UpdateCommands(self.update, device_id=settings.device.id,
                             origins=lambda: self.settings.update.origins).handlers(),
            "state.rebirth": self._rebirth, "token.set": self._set_token}
        self.intake = Intake(self.store, handlers, self.bulletin, self.clock)
        self._stack.push_async_callback(self.intake.stop)
        self.panel = self._panel_door(handlers)
        await self._signed_door()
        await self._digit_door()
        await self.controller.start()
        await self.intake.recover()
        self.http = HttpDoor(settings, self.intake, self.bulletin, ports=Ports(
            snapshot=self.studio.snapshot, preview=self.studio.preview,
            camera_tone=lambda: self.studio.play(Tone.CAMERA),
            stats=self.sampling.report, report=self.sampling.document,
            follow=self.sampling.following, summary=self.summaries.document,
            health=lambda: self.bulletin.document("health") or {"status": "ok"}, openapi=openapi.document,
            attach=None if self._start.safe else self.ways.direct.attach, simulation=self.board.simulation))
        await self.http.start()
        self._stack.push_async_callback(self.http.stop)
        self.mqtt: MqttDoor | None = None
        if self.link is not None:
            self.mqtt = MqttDoor(self.link, self.intake, self.bulletin, self.clock, device_id=settings.device.id)
            self.mqtt.start()
            self._background.append(("doors.mqtt", self.mqtt.watch))
            self.intake.before_final(self.mqtt.keep_events)
            self._stack.push_async_callback(self.mqtt.stop)
            # Last: what waited at the broker comes at once, and what nobody here is ready for would be lost.
            self.link.start()
        for subscriber in (self._show_status, self.duty.on_document):
            self._stack.enter_context(self.bulletin.subscribed(on_document=subscriber))
        self.bulletin.post("device.booted", version=__version__, boot=self.bulletin.boot)
        if refused := self._start.first_boot.refused:
            self._refused("firstBootFile", "card", "card", sections=", ".join(refused))
        await self.controller.report_interrupted_call()
        self._start.announce(self.http.address())

    async def _signed_door(self) -> None:
        if not self.settings.door.signers:
            return

        def make() -> SignedDoor:
            from appliance.doors.signed import SignedDoor  # its library is needed only where there are signers

            return SignedDoor(self.intake, self.bulletin, self.settings.door, device_id=self.settings.device.id,
                              refused=partial(self._refused, origin="data"))

        door = await asyncio.to_thread(make)
        self._stack.push_async_callback(door.stop)
        self._stack.enter_context(self.bulletin.subscribed(on_event=door.on_event))

    async def _digit_door(self) -> None:
        codes = self.settings.door.codes
        if not codes:
            return
        relays = () if self.board.panel is None else self.board.panel.relays
        for code in codes:
            if code.relay not in relays:
                log.warning("door.codes: there is no relay %r for %s; this board has: %s", code.relay, code.name,
                            ", ".join(relays) or "none")
        door = DigitDoor(self.intake, self.settings.door, told=lambda data: self.bulletin.post("door.code", **data),
                         refused=partial(self._refused, origin="digits"), tampered=self._guessed,
                         keep=partial(self.notes.write, WRONG_PINS))
        self._stack.push_async_callback(door.stop)
        door.recall(await self.notes.remember(WRONG_PINS, "{}"))
        self.controller.on_key = door.press

    def _guessed(self, seconds: float, rule: str) -> None:
        self.diagnostics.flag("tamper", True, cause=f"code/{rule}", lapses_s=seconds,
                              what=f"wrong PINs of {rule} (door.codes) were given in calls, too often")

    def _panel_door(self, handlers: dict[str, Handler]) -> PanelDoor | None:
        if self.board.panel is None:
            handlers |= without_panel()
            return None
        door = PanelDoor(
            self.board.panel, self.intake, self.bulletin, settings=self.settings.call, show=self.studio.show,
            blank=self.studio.blank, board=self.settings.board,
            on_hardware_mute=self.controller.hardware_mute, on_talk=self.studio.talk, flag=self.diagnostics.flag)
        handlers |= door.handlers()
        self._background.append(("doors.panel", door.run))
        return door

    # --- threads between the rooms ----------------------------------------------------------------------------------

    def _apply(self, settings: Settings) -> None:
        self.settings = settings
        self._start.set_log_level(settings.log.level)
        self._start.hide(secrets_in(settings))
        self.controller.reconfigure(settings.call, entries_of(settings.book))
        self.auto_join.configure(settings.call.auto_join)
        self._set_the_stage(settings)
        self.studio.acoustics.configure(settings.audio)
        self.update.configure(settings.update)
        if self.ways.token is not None and self.ways.token.configure(settings.janus.token):
            self.auto_join.mended("401/token")
        if self.panel is not None:
            self.panel.reconfigure(settings.call, settings.board)
        if self.board.display is not None:
            self.board.display.set_brightness(settings.board.brightness)

    def _content_folder(self) -> Path:
        named = self.settings.video.content_dir
        return Path(named) if named else self.settings.data_dir / "content"

    def _set_the_stage(self, settings: Settings) -> None:
        self.controller.stage.configure(Layout(settings.screen.layout), Fit(settings.screen.fit))

    def _store_trouble(self, trouble: StoreError | None) -> None:
        self.diagnostics.flag("storageReadOnly", trouble is not None, cause="store",
                              why=None if trouble is None else trouble.message)

    def _broker_ready(self) -> None:
        if self.link is not None:
            self.link.reconnect_now()

    def _accept_from(self, identity: str) -> bool:
        return identity in self.settings.direct.fleet or self.controller.is_known(identity)

    def _refused(self, why: str, sender: str, origin: str = "signal", **more: str) -> None:
        if self._refusals.take():  # each is written to the outbox: a stranger must not wear the flash
            self.bulletin.post("security.refused", why=why, origin=origin, sender=sender, **more)

    def _poison(self, topic: str, why: str) -> None:
        """A message that the broker does not take was set aside; the rest of the outbox flows."""
        log.error("a message for %s was set aside: %s", topic.rpartition("/")[2], why)
        self.diagnostics.flag("eventQueueBacklog", True, cause="poison", lapses_s=POISON_SHOWN_S, topic=topic,
                              why=why)

    def _broker_connected(self) -> bool | None:
        return None if self.link is None else self.link.connected

    async def _backlog(self) -> int:
        return (await self.store.backlog())[0]

    async def _call_stats(self) -> list[Json]:
        return await self.controller.stats()  # which is made after those that ask

    async def _replaced_stats(self) -> Sequence[Sequence[Json]]:
        return await self.controller.replaced()

    def _record_so_far(self, call_id: str | None) -> Json | None:
        return self.controller.record_so_far(call_id)

    def _quality(self) -> Json:
        return {} if self.quality.quality is None else self.quality.quality.payload()

    async def _settle_events(self) -> None:
        if self.mqtt is not None:
            await self.mqtt.keep_events()

    async def _publish_sample(self, sample: Json) -> None:
        if self.mqtt is not None:
            await self.mqtt.publish_quality(sample)

    async def _keep_log(self, kind: str, document: Json) -> None:
        if self.mqtt is not None:
            await self.mqtt.keep_log(kind, document)

    async def _set_token(self, command: Command) -> None:
        token = self.ways.token
        if token is None:
            raise Refused("no server of rooms is configured: set janus.url", code=501, sub_code="FeatureNotSupported",
                          retryable=False)
        self._start.hide([command.args["token"]])
        try:
            await token.put(command.args["token"], command.args.get("expiresIn"))
        finally:  # it holds, also where it cannot be kept
            self.auto_join.mended("401/token")

    async def _rebirth(self, _: Command) -> None:
        self.bulletin.republish()

    def _show_status(self, name: str, document: Json, _rev: int) -> None:
        if name == "call":
            self._notifier.status(self._status())
        elif name == "net":
            self.controller.note_level(document.get("networkQualityLevel"))

    def _status(self) -> str:
        state = self.bulletin.document("call").get("state", CallState.NONE.value)
        return f"call: {state}" + (" (safe mode, no media)" if self._start.safe else "")
