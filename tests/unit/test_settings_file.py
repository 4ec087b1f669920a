"""The settings file: every fault is told at once, with words that help, and nothing wrong gets in."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import SettingsError
from appliance.media.servers import Server
from appliance.settings import Settings, changes, config_path, default_device_id, explain, formats, load
from appliance.settings.fields import Shape, fields_of
from appliance.settings.loading import Source, parse
from appliance.vocabulary import ID_PATTERN, VERB

ENVIRON = {"EDGECALL_DATA": "/nowhere/data", "HOME": "/nowhere"}


def settings_of(text: str, base: Path = Path("/nowhere"), **more: str) -> Settings:
    return parse(Source(base / "edgecall.toml", text), environ={**ENVIRON, **more})


def faults_of(text: str, base: Path = Path("/nowhere"), **more: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        settings_of(text, base, **more)
    return caught.value.faults


def the_fault(text: str) -> str:
    faults = faults_of(text)
    assert len(faults) == 1, faults
    return faults[0]


def test_no_file_gives_defaults_with_an_id_of_this_host() -> None:
    settings = load(environ={"HOME": "/nowhere", "XDG_DATA_HOME": "/nowhere/share"})
    assert settings == dataclasses.replace(
        Settings(), device=dataclasses.replace(Settings().device, id=default_device_id()),
        data_dir=Path("/nowhere/share/edgecall"))


@pytest.mark.parametrize(("host", "device"), [
    ("door", "edgecall-door"), ("Front_Door.example.org", "edgecall-front-door"), ("", "edgecall"), ("---", "edgecall"),
    ("x" * 80, "edgecall-" + "x" * 31), ("ü", "edgecall"),
])
def test_the_default_id_fits_the_pattern(host: str, device: str) -> None:
    assert default_device_id(host) == device


@given(st.text(max_size=80))
def test_any_host_name_gives_a_valid_id(host: str) -> None:
    import re

    assert re.match(ID_PATTERN, default_device_id(host))


def test_all_faults_are_told_at_once() -> None:
    faults = faults_of("""
        data_dir = "/srv"
        [device]
        id = "Front Door"
        nam = "x"
        [mqtt]
        keepalive_s = 1
        port = "1883"
        [cal]
        ring_s = 3
        [http]
        ring_s = 3
        [call]
        dnd = ["Mon-Fry 22:00-06:00"]
    """)
    assert [fault.partition(":")[0].partition(" =")[0] for fault in faults] == [
        "data_dir", "cal", "device.nam", "device.id", "mqtt.port", "mqtt.keepalive_s", "http.ring_s", "call.dnd"]
    text = "\n".join(faults)
    assert "use --data or EDGECALL_DATA" in text
    assert "cal: there is no such section. Did you mean 'call'?" in text
    assert "device.nam: there is no such setting. Did you mean 'name'?" in text
    assert "device.id = 'Front Door': must be 3 to 40 of a-z, 0-9 and '-'" in text
    assert "mqtt.keepalive_s = 1: must be 5 to 120 s" in text
    assert "mqtt.port = '1883': must be a whole number, without quotes" in text
    assert "http.ring_s: there is no such setting. It belongs into [call]" in text
    assert "'Fry' is no day; days are Mon, Tue, Wed, Thu, Fri, Sat, Sun" in text


@pytest.mark.parametrize(("text", "words"), [
    ("[device\n", "is not TOML"),
    ("device = 3", "must be a section: write [device]"),
    ("[http]\ntokens = 3", "must be a list of sections: write [[http.tokens]]"),
    ("[http]\ntokens = []", "must be a list of sections"),
    ("[call]\nring_s = true", "must be a whole number"),
    ("[update]\norigins = ['https://updates.example.org']", "must end with '/'"),
    ("[update]\norigins = ['https://updates.example.org/a/?b/']", "must end with '/'"),
    ("[update]\norigins = ['http://updates.example.org/']", "use https://"),
    ("[update]\norigins = ['http://localhost/']", "use https://"),
    ("[update]\norigins = ['https://boss@updates.example.org/']", "does not belong in an address"),
    ("[update]\norigins = ['https://updates.example.org/%2E%2e/']", "must not have '.' or '..'"),
    ("[update]\norigins = ['file:///srv/']", "must begin with https://"),
    ("[update]\nwindow = '2-5'", "write it as"),
    ("[update]\nca_file = '/etc/hostname'", "update.origins: names no server of https://"),
    ("[call]\nring_s = 30.0", "must be a whole number, without point or exponent"),
    ("[video]\nbitrate = 9_000_000", "must be 100000 to 8000000 bit/s"),
    ("[call]\nauto_answer_delay_s = nan", "must be 0 to 30 s"),
    ("[call]\nauto_answer_delay_s = inf", "must be 0 to 30 s"),
    ("[call]\nallow_unknown = 'yes'", "must be true or false"),
    ("[call]\nbutton_target = 'device:X'", "must be device:ID"),
    ("[call]\nbutton_target = ''", "must not be empty"),
    ("[call]\nbutton_target = 'lan:lobby'", "'lobby' is no name of [[direct.peers]]"),
    ("[[book]]\nname = 'Lobby'\nuris = ['lan:lobby']", "'lobby' is no name of [[direct.peers]], nor"),
    ("[call]\nbutton_target = 'whip:studio'", "'studio' is no name of [[whip]]"),
    ("[[book]]\nname = 'Studio'\nuris = ['whip:studio']", "book[1].uris: 'studio' is no name of [[whip]]"),
    ("[[whip]]\nname = 'studio'", "whip[1].publish: is missing, and so is play"),
    ("[[whip]]\npublish = 'https://a.example/whip'", "whip[1].name: is missing"),
    ("[[whip]]\nname = 'studio'\npublish = 'http://a.example/whip'", "could take the media over: use https://"),
    ("[[whip]]\nname = 'studio'\npublish = 'https://a.example/whip#x'", "must not have a fragment"),
    ("[[whip]]\nname = 'studio'\npublish = 'https://u:p@a.example/whip'", "does not belong in an address"),
    ("[[whip]]\nname = 'studio'\nplay = 'http://127.0.0.1/'\nca_file = '/etc/hostname'", "not encrypted"),
    ("[[whip]]\nname = 'studio'\nplay = 'https://a.example'\nother_publish = ['https://b.example']",
     "whip[1].publish: is missing; other_publish"),
    ("[[whip]]\nname = 'studio'\nplay = 'https://a.example'\nother_play = ['https://a.example']", "an endpoint twice"),
    ("[[whip]]\nname = 'studio'\nplay = 'https://a.example'\nchoose = 'nearest'", "has one server to choose from"),
    ("[[whip]]\nname = 'studio'\nplay = 'https://a.example'\ntoken = 'abc'", "a secret must not stand in this file"),
    ("[[whip]]\nname = 'one'\nplay = 'https://a.example'\n[[whip]]\nname = 'one'\nplay = 'https://a.example'",
     "whip[2].name: 'one' is there already"),
    ("[call]\ndnd = 'Mon 10:00-11:00'", "must be a list of texts"),
    ("[board]\nname = 'Sim'", "Did you mean 'sim'?"),
    ("[board]\nscreen = '1280*720'", "must be WIDTHxHEIGHT"),
    ("[board]\nscreen = '1281x720'", "even numbers"),
    ("[board]\nmicrophone = 'tone:5'", "a tone has 50 to 20000 Hz"),
    ("[board]\nspeaker_wav = 'here.wav'", "must be an absolute path"),
    ("[device]\ncountry = 'UK'", "Did you mean 'GB'?"),
    ("[device]\ncountry = 'de'", "Did you mean 'DE'?"),
    ('[device]\nname = "a\\u0007b"', "must not hold control characters"),
    ("[http]\nlisten = 'example.org'", "must be an IP address of this device"),
    ("[http]\nnames = ['https://door']", "must be a host name"),
    ("[http]\ncert_file = '/nowhere/x.crt'", "there is no such file"),
    ("[mqtt]\nhost = 'mqtt://broker'", "must be a host name or an IP address, without scheme and port"),
    ("[mqtt]\ntls = true", "mqtt.host: is missing"),
    ("[direct]\nstun = 'stun://stun.example.org'", "must be stun:HOST[:PORT]"),
    ("[direct]\nstun = ['stun:a.example', 'stuns:b.example']", "'stuns:b.example': must be stun:HOST[:PORT]"),
    ("[direct]\nturn = 'turn:a.example'", "direct.turn_username: is missing; a TURN server relays for nobody"),
    ("[janus]\nother_urls = ['wss://b.example']", "janus.url: is missing"),
    ("[janus]\nurl = 'wss://a.example'\nother_urls = ['wss://a.example']", "janus.other_urls: names a server twice"),
    ("[janus]\nurl = 'wss://a.example'\ntoken_url = 'http://a.example'",
     "the tokens would cross the network unencrypted: use https://"),
    ("[janus]\nurl = 'wss://a.example'\ntoken_url = 'https://a.example/#x'", "must not have a fragment"),
    ("[janus]\nurl = 'ws://127.0.0.1'\nca_file = '/etc/hostname'", "janus.url: is not encrypted"),
    ("[janus]\nurl = 'mqtts://a.example'", "janus.trusted_broker: must be true"),
    ("[janus]\nurl = 'mqtt://a.example'\ntrusted_broker = true", "cross the network unencrypted: use mqtts://"),
    ("[janus]\nurl = 'mqtts://a.example/x+y'\ntrusted_broker = true", "must not have '+', '%' or '$'"),
    ("[janus]\nurl = 'wss://a.example'\ntrusted_broker = true", "janus.trusted_broker: has no effect"),
    ("[janus]\nurl = 'wss://a.example'\nmqtt_username = 'door'", "janus.url: names no broker"),
    ("[janus]\nurl = 'mqtts://a.example'\ntrusted_broker = true\nmqtt_answers = 'to-janus'", "must be three topics"),
    ("[janus]\nurl = 'mqtts://a.example'\ntrusted_broker = true\nmqtt_status = 'a/#'", "topic without wildcards"),
    ("[mqtt]\nhost = 'a.example'\nusername = 'door'\n[janus]\nurl = 'mqtts://a.example'\ntrusted_broker = true\n"
     "mqtt_username = 'door'", "janus.mqtt_username: is that of [mqtt] at the same broker"),
    ("[janus]\nurl = 'wss://a.example'\nchoose = 'nearest'", "janus.choose: has one server to choose from"),
    ("[direct]\nturn = 'turn:relay one:3478'", "'relay one' is neither a host name nor an IP address"),
    ("[direct]\nstun = ['stun:2001:db8::1']", "an IPv6 address stands in brackets: stun:[2001:db8::1]:3478"),
    ("[direct]\nturn = 'turn:[10.0.0.1]'", "in brackets stands an IPv6 address without a zone"),
    ("[direct]\nturn = 'turn:[fe80::1%eth0]'", "without a zone"),
    ("[direct]\nturn = 'turn:a.example/relay'", "a path means nothing here; write turn:HOST[:PORT]"),
    ("[direct]\nturn = 'turn:a.example?'", "after '?' only transport=udp or transport=tcp"),
    ("[direct]\nturn = 'turns:a.example?transport=udp'", "and only tcp of turns:"),
    ("[direct]\nturn = 'turn:a.example:'", "must be turn:HOST[:PORT]"),
    ("[direct]\nturn = 'turn:a.example:65536'", "port must be 1 to 65535"),
    ("[direct]\nturn = 7", "must be a list of texts"),
    ("[network]\ndscp_audio = 64", "must be 0 to 63"),
    ("[direct]\nturn = 'turn:user:pw@turn.example.org'", "a user name or password does not belong in an address"),
    ("[direct]\nfleet = ['ok-1', 'NO']", "'NO': must be 3 to 40"),
    ("[device]\nid = 'front'\n[direct]\nfleet = ['front']", "is this device itself"),
    ("[[book]]\nname = 'Desk'", "book[1].uris: is missing"),
    ("[[book]]\nuris = ['operator:desk']", "book[1].name: is missing"),
    ("[[book]]\nname = 'Desk'\nuris = ['desk']", "must begin with device:"),
    ("[[book]]\nname = 'A'\nuris = ['tel:+49301']\n[[book]]\nname = 'a'\nuris = ['tel:110']", "is there already"),
    ("[[book]]\nname = 'A'\nmembers = ['B']", "'B' is no other entry"),
    ("[[book]]\nname = 'A'\nuris = ['tel:110']\nfallback = 'a'", "'a' is no other entry"),
])
def test_a_fault_says_what_is_wrong(text: str, words: str) -> None:
    assert words in the_fault(text)


def test_all_wrong_entries_of_a_list_are_named_at_once() -> None:
    text = "[direct]\nstun = ['stun:a.example', 'stun:', 'http:b', '']\nturn = ['turn:c/d', 'turn:e.example']"
    stun, turn = faults_of(text)
    assert "'stun:': must be" in stun
    assert "'http:b': must be" in stun
    assert "'': an entry must have" in stun
    assert "'stun:a.example':" not in stun
    assert "'turn:c/d': a path" in turn


SERVERS = st.tuples(
    st.sampled_from(["stun:", "turn:", "turns:", "", "stuns:", "turn://"]),
    st.sampled_from(["a.example", "10.0.0.1", "[2001:db8::1]", "[::ffff:10.0.0.1]", "2001:db8::1", "[x]", "[", "a b"])
    | st.text(alphabet="a1.:[]/?@#%-", max_size=12),
    st.sampled_from(["", ":", ":0", ":80", ":65536", ":123456", "/x", "?", "?transport=tcp", "?transport=udp", "#"]),
    st.sampled_from(["", "?transport=tcp"]),
).map("".join)


@given(SERVERS)
def test_a_server_that_the_check_admits_is_one_that_media_can_ask(url: str) -> None:
    for one in (formats.STUN, formats.TURN):
        try:
            one.check(url)
        except ValueError:
            continue
        Server.parse(url)


@pytest.fixture
def login(tmp_path: Path) -> str:
    secret = tmp_path / "turn"
    secret.write_text("secret")
    secret.chmod(0o600)
    return f"turn_username = 'door'\nturn_password_file = '{secret}'"


def test_an_authority_of_relays_needs_one_that_is_encrypted(login: str) -> None:
    fault = the_fault(f"[direct]\nturn = 'turn:a.example'\n{login}\nturn_ca_file = '/etc/hostname'")
    assert "direct.turn: names no turns: server" in fault


def test_one_server_may_stand_alone_as_a_text(login: str) -> None:
    servers = "stun = 'stun:a.example'\nturn = ['turn:b.example', 'turns:c.example']"
    direct = settings_of(f"[direct]\n{servers}\n{login}").direct
    assert (direct.stun, direct.turn) == (("stun:a.example",), ("turn:b.example", "turns:c.example"))
    assert settings_of("[direct]\nstun = ''").direct.stun == ()


def test_an_authority_may_be_for_the_server_of_tokens_alone() -> None:
    assert settings_of("[janus]\nurl = 'ws://127.0.0.1'\nca_file = '/etc/hostname'\ntoken_url = 'https://a.example'").janus.ca_file


def test_a_national_number_needs_its_country() -> None:
    book = "[[book]]\nname = 'Flat'\nuris = ['tel:030123456']\n"
    assert "'tel:030123456' is a national number" in faults_of(book)[0]
    settings_of("[device]\ncountry = 'DE'\n" + book, Path("/nowhere"))


def test_groups_and_fallbacks_that_lead_back_are_refused() -> None:
    faults = faults_of("""
        [[book]]
        name = "A"
        members = ["B"]
        [[book]]
        name = "B"
        members = ["A"]
    """)
    assert faults == ("book[1].members: leads back to this entry", "book[2].members: leads back to this entry")


@pytest.mark.parametrize("uri", [
    "device:lobby-2", "operator:*", "operator:desk", "tel:+49 30 123456", "tel:110", "sip:desk@pbx.example.org:5061",
    "sips:a@[2001:db8::1]:5061", "sip:pbx", "room:meeting 1".replace(" ", "-"), "audio:77",
])
def test_addresses_of_every_scheme_are_taken(uri: str) -> None:
    assert settings_of(f'[[book]]\nname = "A"\nuris = ["{uri}"]').book[0].uris == (uri,)


def test_updates_may_come_from_several_places_at_one_time_or_another() -> None:
    update = settings_of("[update]\norigins = ['https://a.example/', 'http://127.0.0.1:8000/x/']\n"
                         "window = '02:00-05:00'").update
    assert update.origins == ("https://a.example/", "http://127.0.0.1:8000/x/")
    assert update.window == ("02:00-05:00",)


@pytest.mark.parametrize("uri", ["room:lobby", "audio:77"])
def test_a_kiosk_is_in_a_room_of_either_kind(uri: str) -> None:
    assert settings_of(f'[call]\nauto_join = "{uri}"').call.auto_join == uri


def test_the_book_may_name_a_neighbour_that_only_calls_and_is_known_by_its_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123")
    token.chmod(0o600)
    text = f"""
        [[http.tokens]]
        name = "door-1"
        scope = "SCOPE"
        token_file = "{token}"
        [[book]]
        name = "Door"
        uris = ["lan:door-1"]
    """
    assert settings_of(text.replace("SCOPE", "device")).book[0].uris == ("lan:door-1",)
    assert "scope device" in the_fault(text.replace("SCOPE", "operator"))


def test_a_user_never_has_the_name_of_a_device(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a-secret-of-enough-length")
    secret.chmod(0o600)
    faults = faults_of("""
        [device]
        id = "front-door"
        [direct]
        fleet = ["lobby-2"]
        [[http.tokens]]
        name = "front-door"
        token_file = "./secret"
        [[mqtt.users]]
        name = "lobby-2"
        password_file = "./secret"
        [[mqtt.users]]
        name = "gate-1"
        password_file = "./secret"
        [[book]]
        name = "Gate"
        uris = ["device:gate-1"]
    """, tmp_path)
    assert [fault.partition(":")[0] for fault in faults] == [
        "http.tokens[1].name", "mqtt.users[1].name", "mqtt.users[2].name"]
    assert settings_of("""
        [direct]
        fleet = ["lobby-2"]
        [[http.tokens]]
        name = "lobby-2"
        scope = "device"
        token_file = "./secret"
    """, tmp_path).http.tokens[0].scope == "device"


def test_a_key_that_could_be_guessed_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("short")
    secret.chmod(0o600)
    text = "[janus]\nurl = 'wss://rooms.example.org'\ntoken_key_file = './secret'\n"
    (fault,) = faults_of(text, tmp_path)
    assert fault.startswith("janus.token_key_file: holds less than 32 characters")
    secret.write_text("0123456789abcdef" * 2)
    assert settings_of(text, tmp_path).janus.token_key


def test_a_secret_stands_in_place_of_the_password_of_turn(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("shared-by-both")
    secret.chmod(0o600)
    head = "[direct]\nturn_secret_file = './secret'\n"
    assert faults_of(head, tmp_path) == ("direct.turn: is missing; direct.turn_secret_file needs it",)
    server = head + "turn = 'turn:a.example'\n"
    assert settings_of(server, tmp_path).direct.turn_secret.reveal() == "shared-by-both"
    assert settings_of(server + "turn_username = 'door'\n", tmp_path).direct.turn_username == "door"
    both = faults_of(server + "turn_username = 'door'\nturn_password_file = './secret'\n", tmp_path)
    assert any("direct.turn_secret_file: stands in place of turn_password_file" in fault for fault in both)


def test_overrides_are_checked_like_the_file() -> None:
    source = Source(Path("/nowhere/x.toml"), "[board]\nname = 'auto'")
    assert parse(source, overrides={"board.name": "sim"}, environ=ENVIRON).board.name == "sim"
    with pytest.raises(SettingsError, match=r"board\.name = 'same': must be one of"):
        parse(source, overrides={"board.name": "same"}, environ=ENVIRON)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "edgecall.toml"
    for prepare, words in (
        (lambda: None, "there is no such file"),
        (lambda: path.write_bytes(b"a = 1\n\xff"), "is not UTF-8 text (line 2)"),
        (lambda: path.write_bytes(b"#" * (1024 * 1024 + 1)), "is larger than 1 MiB"),
        (lambda: path.write_text("a = " + "[" * 5000), "is n"),
        (lambda: (path.unlink(), path.mkdir()), "cannot be read"),
    ):
        prepare()
        with pytest.raises(SettingsError) as caught:
            load(path)
        assert words in str(caught.value)


def test_the_place_of_the_file_and_of_the_data(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert load(config_path(home)[0], environ=home).call.ring_s == 30  # the place by default may be empty
    file = tmp_path / ".config" / "edgecall" / "edgecall.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[device]\nname = 'Own'")
    assert load(environ=home).device.name == "Own"
    assert load(environ=home).data_dir == tmp_path / ".local/share/edgecall"
    assert load(environ={**home, "STATE_DIRECTORY": "/var/lib/edgecall"}).data_dir == Path("/var/lib/edgecall")
    assert load(environ={**home, "EDGECALL_DATA": "/srv/d", "STATE_DIRECTORY": "/x"}).data_dir == Path("/srv/d")
    with pytest.raises(SettingsError, match="there is no such file"):
        load(environ={**home, "EDGECALL_CONFIG": str(tmp_path / "none.toml")})


def test_changes_name_what_waits_for_a_restart() -> None:
    old = settings_of("[device]\nid = 'one'")
    new = settings_of("""
        [device]
        id = "one"
        name = "Two"
        [board]
        name = "auto"
        [mqtt]
        host = "broker.example.org"
        [http]
        listen = "::1"
        names = ["door"]
        [call]
        ring_s = 40
        [[book]]
        name = "A"
        uris = ["operator:*"]
    """)
    found = changes(old, new)
    assert found.restart == ("device.name", "board.name", "mqtt.host", "http.listen", "http.names")
    assert found.live == ("call.ring_s", "book")
    assert not changes(old, old)


def test_explained_settings_are_json_of_every_key() -> None:
    shown = json.loads(json.dumps(explain(Settings())))
    assert shown["call"]["ring_s"] == 30
    assert set(shown) == {one.name for one in fields_of(Settings)} | {"data_dir"}


def _all_fields(cls: type[object] = Settings, prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for one in fields_of(cls):
        found.append((prefix + one.name, one))
        if one.shape in {Shape.SECTION, Shape.SECTIONS}:
            found += _all_fields(one.element, f"{prefix}{one.name}.")
    return found


def test_every_field_is_declared_with_words_and_limits() -> None:
    declared = dict(_all_fields())
    for key, one in declared.items():
        assert one.shape is Shape.SECTION or one.help.endswith("."), key  # type: ignore[attr-defined]
        if one.shape in {Shape.INTEGER, Shape.NUMBER}:  # type: ignore[attr-defined]
            assert one.computed or one.minimum <= one.default <= one.maximum, key  # type: ignore[attr-defined]
            assert one.maximum != 64 or one.minimum, key  # type: ignore[attr-defined]
    sections = {key.partition(".")[0] for key in declared}
    fields = {field.name for field in dataclasses.fields(Settings)} - {"data_dir"}
    assert sections == fields


def test_book_entries_mirror_book_put() -> None:
    from appliance.settings import BookSettings

    snake = {"".join(f"_{c.lower()}" if c.isupper() else c for c in arg.name) for arg in VERB["book.put"].args}
    assert {one.name for one in fields_of(BookSettings)} == snake


VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["sim", "operator:*", "Mon 22:00-06:00", "device:abc", "/etc/passwd", "stun:a", "1280x720"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)
KEYS = st.sampled_from([key.rpartition(".")[2] for key, _ in _all_fields()]) | st.text(max_size=12)
SECTIONS = st.sampled_from([one.name for one in fields_of(Settings)]) | st.text(max_size=8)


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


@given(st.dictionaries(SECTIONS, st.dictionaries(KEYS, VALUES, max_size=4) | VALUES, max_size=4))
def test_any_table_loads_or_raises_settings_error(table: dict[str, object]) -> None:
    text = "\n".join(f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items())
    try:
        settings = settings_of(text)
    except SettingsError as error:
        assert error.faults
        assert all(fault.isprintable() and len(fault) < 1000 for fault in error.faults)
    else:
        json.dumps(explain(settings))


@given(st.text(max_size=60))
def test_any_text_loads_or_raises_settings_error(text: str) -> None:
    try:
        settings_of(text)
    except SettingsError as error:
        assert error.faults
