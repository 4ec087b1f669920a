"""What is generated from the vocabulary and the settings is fresh, valid, and complete on every face."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from appliance.doors.http import Ports
from appliance.faces import asyncapi, commandline, openapi, reference
from appliance.faces.__main__ import generated, main, stale
from appliance.faces.jsonschema import document, pascal
from appliance.settings import Settings
from appliance.settings.fields import Shape, fields_of
from appliance.settings.loading import Source, parse
from appliance.vocabulary import DIAGNOSTICS, END_REASONS, EVENTS, ROOT, STATES, VERBS, VOLATILE
from tests.support.http_door import running_door

ROOT_FOLDER = Path(__file__).parents[2]


def test_generated_files_are_fresh() -> None:
    assert stale(ROOT_FOLDER) == [], "run python -m appliance.faces"


def test_a_stale_or_missing_file_is_found(tmp_path: Path) -> None:
    for name, content in generated().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert stale(tmp_path) == []
    (tmp_path / "docs/reference.md").write_text("old")
    (tmp_path / "config/edgecall.toml").unlink()
    assert stale(tmp_path) == ["config/edgecall.toml", "docs/reference.md"]


# --- OpenAPI --------------------------------------------------------------------------------------------------------


def test_the_command_writes_what_is_stale_and_only_tells_when_asked_to_check(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--root", str(tmp_path), "--check"]) == 0
    (tmp_path / "docs" / "schema.json").write_text("{}")
    capsys.readouterr()
    assert main(["--root", str(tmp_path), "--check"]) == 1
    assert capsys.readouterr().err == "docs/schema.json is stale: run python -m appliance.faces\n"
    assert (tmp_path / "docs" / "schema.json").read_text() == "{}"


def test_openapi_is_valid() -> None:
    validate(openapi.document())  # type: ignore[arg-type]


async def test_openapi_has_the_routes_of_the_door_and_no_others(tmp_path: Path) -> None:
    described = {(method.upper(), "/v1/cmd/{verb}" if path.startswith("/v1/cmd/") else path)
                 for path, methods in openapi.document()["paths"].items() for method in methods}
    async with running_door(tmp_path, Ports()) as running:
        served = {(route.method, route.resource.canonical) for route in running.door._runner.app.router.routes()}
    static = {("GET", "/console/{name}"), ("GET", "/favicon.ico")}
    assert {route for route in served if route[0] != "HEAD"} - static == described


# --- AsyncAPI: its structure, as no parser of it is at hand --------------------------------------------------------


def _resolve(whole: Any, pointer: str) -> Any:
    assert pointer.startswith("#/")
    found = whole
    for part in pointer[2:].split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in _references(value)]
    return [ref for value in node for ref in _references(value)] if isinstance(node, list) else []


def test_asyncapi_references_lead_somewhere() -> None:
    whole = asyncapi.document()
    references = _references(whole)
    assert len(references) > 100
    for pointer in references:
        _resolve(whole, pointer)


def test_asyncapi_operations_use_messages_of_their_channel() -> None:
    whole = asyncapi.document()
    for name, operation in whole["operations"].items():
        channel = operation["channel"]["$ref"]
        assert operation["action"] in {"send", "receive"}
        assert operation["bindings"]["mqtt"]["qos"] in {0, 1}
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"{channel}/messages/"), name
        if "reply" in operation:
            reply = operation["reply"]
            assert all(message["$ref"].startswith(reply["channel"]["$ref"]) for message in reply["messages"])
    for channel in whole["channels"].values():
        parts = [part[1:-1] for part in channel["address"].split("/") if part.startswith("{")]
        assert sorted(parts) == sorted(channel["parameters"])
    assert len({channel["address"] for channel in whole["channels"].values()}) == len(whole["channels"])


def test_commands_are_received_states_retained_and_nothing_else() -> None:
    operations = asyncapi.document()["operations"]
    retained = {name for name, operation in operations.items() if operation["bindings"]["mqtt"]["retain"]}
    assert retained == {f"tell{pascal(name)}State" for name in STATES if name != VOLATILE}
    received = {name for name, operation in operations.items() if operation["action"] == "receive"}
    assert received == {f"do{pascal(verb.name)}" for verb in VERBS} | {"hearSignal"}


# --- every verb on every face ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_a_verb_is_on_every_face(verb: Any) -> None:
    key = pascal(verb.name)
    assert f"/v1/cmd/{verb.name}" in openapi.document()["paths"]
    channels = asyncapi.document()["channels"]
    assert channels[f"cmd{key}"]["address"] == f"{ROOT}/{{device}}/cmd/{verb.name}"
    assert channels[f"ack{key}"]["address"] == f"{ROOT}/{{device}}/ack/{verb.name}"
    assert f"{key}Command" in document()["$defs"]
    assert f"#### {verb.name}\n" in reference.reference()
    sample = [verb.name]
    for arg in verb.args:
        if arg.required:
            plain = {"boolean": "on", "number": "1", "integer": "7"}.get(arg.type, "x")
            value = arg.choices[0] if arg.choices else plain
            sample += [value] if arg.positional else [commandline.option(arg), value]
    parsed = commandline.parser().parse_args(sample)
    given = commandline.given_args(verb, parsed)
    assert set(given) == {arg.name for arg in verb.args if arg.required}
    for shell in ("bash", "zsh", "fish"):
        assert verb.name in commandline.completion(shell)


def test_no_argument_of_a_verb_hides_an_option_of_the_command_line() -> None:
    own = {action.dest for action in commandline.parser()._actions} | {"command"}
    assert not {arg.name for verb in VERBS for arg in verb.args} & own
    options = {"--id", "--ttl", "--wait", "--help"}
    assert not {commandline.option(arg) for verb in VERBS for arg in verb.args if not arg.positional} & options


def test_the_reference_holds_every_word_of_the_vocabulary() -> None:
    text = reference.reference()
    for name in [*EVENTS, *STATES, *DIAGNOSTICS, *END_REASONS]:
        assert f"| `{name}` |" in text, name


def test_tables_of_the_reference_are_whole() -> None:
    for text in (reference.reference(), reference.configuration()):
        width = 0
        for line in text.splitlines():
            if not line.startswith("|"):
                width = 0
                continue
            cells = line.replace("\\|", "").count("|")
            assert width in {0, cells}, line
            width = cells


# --- settings -------------------------------------------------------------------------------------------------------


def _load(text: str) -> Settings:
    return parse(Source(Path("/nowhere/edgecall.toml"), text), environ={"HOME": "/nowhere"})


def test_the_default_file_is_the_defaults() -> None:
    text = reference.default_file()
    assert _load(text) == _load("")


def test_the_default_file_uncommented_holds_every_key_with_its_default() -> None:
    text = reference.default_file()
    table = tomllib.loads("\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")))
    for section in fields_of(Settings):
        found = table[section.name]
        for one in fields_of(section.element):
            if section.shape is Shape.SECTION and one.shape not in {Shape.SECTIONS, Shape.SECRET} and not one.computed:
                assert found[one.name] == (list(one.default) if isinstance(one.default, tuple) else one.default)
            elif section.shape is Shape.SECTION and one.shape is Shape.SECTIONS:
                assert set(found[one.name][0]) == {inner.key for inner in fields_of(one.element)} - {"fingerprint"} | (
                    {"fingerprint"} & set(found[one.name][0]))


def test_examples_of_the_default_file_are_valid() -> None:
    """Each 'e.g.' line alone, but for those that need a file or another key."""
    section = ""
    tried = 0
    for line in reference.default_file().splitlines():
        if line.startswith("["):
            section = line
        key, _, value = line.removeprefix("# e.g. ").partition(" = ")
        needs = key in ("turn", "turn_username", "other_urls", "mqtt_username", "token_url")
        if not line.startswith("# e.g. ") or key.endswith("_file") or needs:
            continue
        _load(f"{section}\n{key} = {value}")
        tried += 1
    assert tried > 15


def test_the_configuration_page_lists_every_key() -> None:
    text = reference.configuration()
    for section in fields_of(Settings):
        for one in fields_of(section.element):
            if one.shape is not Shape.SECTIONS:
                assert f"| `{one.key}`" in text


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(document())
    json.dumps(document())
