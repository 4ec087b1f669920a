"""Settings while the appliance runs: what a good file changes, and that a bad one changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from appliance.bulletin import Bulletin
from appliance.care.configuration import Configuration
from appliance.care.diagnostics import Diagnostics
from appliance.care.first_boot import FirstBoot, first_boot
from appliance.errors import BadRequest, SettingsError
from appliance.settings import Loaded, Settings, load_or_last_good
from appliance.vocabulary import VERB, Command, Event, Json, Origin


class Scene:
    """A settings file and what runs by it."""

    def __init__(self, folder: Path, load: Callable[[], Loaded] | None = None) -> None:
        self.file = folder / "edgecall.toml"
        self._data = folder / "data"
        self._data.mkdir(mode=0o700, exist_ok=True)
        self.bulletin = Bulletin("boot-1")
        self.diagnostics = Diagnostics(self.bulletin)
        self.applied: list[Settings] = []
        self.events: list[Event] = []
        self._load = load or self._read

    def _read(self) -> Loaded:
        return load_or_last_good(self.file, self._data, environ={})

    async def start(self, text: str = "") -> Scene:
        self.write(text)
        loaded = await asyncio.to_thread(self._read)
        self.configuration = Configuration(loaded, self.file, self.bulletin, self.diagnostics, self._load,
                                           self.applied.append)
        return self

    def write(self, text: str) -> None:
        self.file.write_text("[device]\nid = 'door-1'\n" + text)

    async def give(self, verb: str) -> Json | None:
        return await self.configuration.handlers()[verb](Command("c1", VERB[verb], {}, Origin.CLI))

    @property
    def document(self) -> Json:
        return self.bulletin.document("config")


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = Scene(tmp_path)
    with made.bulletin.subscribed(on_event=made.events.append):
        yield made
    made.diagnostics.close()


async def test_what_may_change_is_applied_and_what_may_not_waits_for_a_restart(scene: Scene) -> None:
    await scene.start()
    assert scene.document == {"path": str(scene.file), "version": 1, "errors": [], "needRestart": []}
    scene.write("name = 'New'\n[call]\nring_s = 20\n")
    assert await scene.give("config.reload") == {"version": 2, "needRestart": ["device.name"]}
    assert scene.applied[0].call.ring_s == 20
    assert scene.events[-1].type == "config.changed"
    assert scene.events[-1].data == {"applied": ["call.ring_s"], "needRestart": ["device.name"]}
    scene.write("name = 'New'\n[call]\nring_s = 25\n")
    await scene.configuration.reload()
    assert scene.document["needRestart"] == ["device.name"], "it still waits"
    assert scene.document["version"] == 3


async def test_the_same_file_again_is_no_new_version(scene: Scene) -> None:
    await scene.start()
    assert await scene.configuration.reload() == ()
    assert (scene.document["version"], scene.applied) == (1, [])


async def test_a_bad_file_keeps_what_is_in_force_and_says_everything_wrong_with_it(scene: Scene) -> None:
    await scene.start("[call]\nring_s = 20\n")
    scene.write("[call]\nring_s = 1\nbuttontarget = 'x'\n")
    faults = await scene.configuration.reload()
    assert len(faults) == 2
    assert scene.applied == []
    assert scene.configuration.settings.call.ring_s == 20
    assert scene.document | {"version": 1, "errors": list(faults)} == scene.document
    assert scene.diagnostics.raised("configRejected")
    assert scene.bulletin.document("diag")["configRejected"]["detail"] == {"errors": list(faults)}
    assert scene.events[-1].data == {"applied": [], "errors": list(faults)}
    with pytest.raises(BadRequest, match=r"button_target.*call\.ring_s"):
        await scene.give("config.reload")
    scene.write("[call]\nring_s = 30\n")
    assert await scene.configuration.reload() == ()
    assert not scene.diagnostics.raised("configRejected")
    assert scene.document["errors"] == []
    assert scene.applied[-1].call.ring_s == 30


async def test_a_start_with_a_bad_file_runs_by_the_last_good_one_and_says_so(scene: Scene) -> None:
    await scene.start("[call]\nring_s = 20\n")
    await scene.start("[call]\nring_s = 'long'\n")
    assert scene.configuration.settings.call.ring_s == 20
    assert scene.diagnostics.raised("configRejected")
    assert "ring_s" in scene.document["errors"][0]


async def test_a_file_that_cannot_be_read_at_all_keeps_what_is_in_force(tmp_path: Path) -> None:
    def gone() -> Loaded:
        raise SettingsError("edgecall.toml", ["edgecall.toml cannot be read: it is a folder"])

    scene = await Scene(tmp_path, gone).start("[call]\nring_s = 20\n")
    assert await scene.configuration.reload() == ("edgecall.toml cannot be read: it is a folder",)
    assert scene.configuration.settings.call.ring_s == 20
    assert scene.diagnostics.raised("configRejected")
    scene.diagnostics.close()


async def test_the_settings_in_force_are_shown_without_secrets(scene: Scene) -> None:
    secret = scene.file.with_name("secret")
    secret.write_text("operator-token-0123456789")
    secret.chmod(0o600)
    await scene.start(f"[[http.tokens]]\nname = 'desk'\ntoken_file = '{secret}'\n")
    found = await scene.give("config.get")
    assert found is not None
    assert "door-1" in str(found)
    assert "operator-token" not in str(found)


async def test_what_an_image_found_wrong_is_told_with_the_settings_until_the_next_start(scene: Scene) -> None:
    scene.write("")
    Configuration(await asyncio.to_thread(scene._read), scene.file, scene.bulletin, scene.diagnostics, scene._read,
                  scene.applied.append, first_boot=("mqtt.hosst: there is no such setting",))
    assert scene.document["errors"] == ["first boot file: mqtt.hosst: there is no such setting"]
    assert scene.diagnostics.raised("configRejected")
    assert scene.events[-1].data["errors"] == scene.document["errors"]


@pytest.mark.parametrize(("content", "found"), [
    ('{"faults": ["a: b"], "refused": ["mqtt"]}', FirstBoot(("a: b",), ("mqtt",))),
    ('{"faults": [], "refused": []}', FirstBoot()),
    ('{"faults": "a", "refused": []}', FirstBoot()),
    ("[" * 100_000, FirstBoot()),
    ("[]", FirstBoot()),
    (None, FirstBoot()),
])
def test_notices_of_an_image(tmp_path: Path, content: str | None, found: FirstBoot) -> None:
    path = tmp_path / "notices.json"
    if content is not None:
        path.write_text(content)
    assert first_boot({"EDGECALL_NOTICES": str(path)}) == found
    assert first_boot({}) == FirstBoot()
