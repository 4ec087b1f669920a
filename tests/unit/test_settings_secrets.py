"""Secrets come from files and credentials alone, and are never shown."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import os
import pickle
import traceback
from pathlib import Path

import pytest

from appliance.errors import SettingsError
from appliance.settings import HttpSettings, MqttSettings, Secret, Settings, TokenSettings, explain
from appliance.settings.loading import Source, parse

WORD = "correct-horse-battery"


def load(text: str, base: Path, **environ: str) -> Settings:
    return parse(Source(base / "edgecall.toml", text), environ={"HOME": "/nowhere", **environ})


def refused(text: str, base: Path, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(text, base, **environ)
    whole = "".join(traceback.format_exception(caught.value))
    assert WORD not in whole  # neither in the message nor in a chained cause
    return str(caught.value)


def private(path: Path, content: str = WORD + "\n") -> Path:
    path.write_text(content)
    path.chmod(0o600)
    return path


def test_a_secret_never_shows_itself(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(WORD)
    settings = Settings(mqtt=MqttSettings(username="x", password=secret),
                        http=HttpSettings(tokens=(TokenSettings("desk", "admin", secret),)))
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").warning("%s %r %.40s %s", secret, secret, secret, settings)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", f"{secret!r}", "%s" % secret,  # noqa: UP031 - every way to format
             "{:<30}".format(secret),  # noqa: UP032
             repr(settings), repr(dataclasses.asdict(settings)), caplog.text,
             json.dumps(explain(settings)), json.dumps(dataclasses.asdict(settings), default=str)]
    assert not [text for text in shown if WORD in text]
    assert secret.reveal() == WORD
    for leak in (lambda: json.dumps(secret), lambda: "".join([secret]), lambda: pickle.dumps(secret),
                 lambda: pickle.dumps(settings, protocol=0), lambda: "x" + secret):
        with pytest.raises(TypeError):
            leak()  # type: ignore[no-untyped-call]


def test_a_secret_compares_and_copies() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("ü") == Secret("ü")
    assert Secret("a") != "a"
    assert bool(Secret("a")) and not Secret() and str(Secret()) == ""
    assert copy.deepcopy(Secret("a")).reveal() == copy.copy(Secret("a")).reveal() == "a"
    assert hash(Secret("a")) == hash(Secret("a"))


def test_files_and_credentials_are_read(tmp_path: Path) -> None:
    private(tmp_path / "pw")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    private(credentials / "mqtt", "other-secret")
    text = '[mqtt]\nusername = "a"\npassword_file = "{}"'
    assert load(text.format(tmp_path / "pw"), tmp_path).mqtt.password.reveal() == WORD
    assert load(text.format("./pw"), tmp_path).mqtt.password.reveal() == WORD
    assert load(text.format("credential:mqtt"), tmp_path, CREDENTIALS_DIRECTORY=str(credentials)
                ).mqtt.password.reveal() == "other-secret"


def test_a_secret_in_clear_is_refused_with_what_to_do(tmp_path: Path) -> None:
    for text, key in (
        (f'[mqtt]\nusername = "a"\npassword = "{WORD}"', "password_file"),
        (f'[[http.tokens]]\nname = "desk"\ntoken = "{WORD}"', "token_file"),
        (f'[direct]\nturn_password = "{WORD}"', "turn_password_file"),
    ):
        words = refused(text, tmp_path)
        assert "a secret must not stand in this file" in words
        assert f"{key} = " in words
        assert "chmod 600" in words


@pytest.mark.parametrize("text", [
    f'[mqtt]\nusername = "a"\npassword_file = "{WORD}"',  # pasted in the wrong place
    f'[mqtt]\nusername = "a"\npassword_file = "/{WORD}"',
    f'[mqtt]\npaswd = "{WORD}"', f'[mqtt]\npin = "{WORD}"', f'pasword = "{WORD}"',
    f'[mqtt.password]\nx = "{WORD}"', f'[mqtt]\nusername = "a"\npassword_file = ["{WORD}"]',
])
def test_a_secret_in_the_wrong_place_is_not_told(text: str, tmp_path: Path) -> None:
    refused(text, tmp_path)


def test_files_that_are_no_safe_secret_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "pw"
    text = '[mqtt]\nusername = "a"\npassword_file = "./pw"'
    assert "cannot be read: No such file" in refused(text, tmp_path)
    private(path).chmod(0o644)
    assert f"every user of this machine can read {path}: run chmod 600 {path}" in refused(text, tmp_path)
    for content, words in (("", "is empty"), (" \n", "is empty"), (f"{WORD}\n{WORD}", "more than one line"),
                           ("x" * 4097, "more than 4096 bytes")):
        private(path, content)
        assert words in refused(text, tmp_path)
    path.write_bytes(WORD.encode() + b"\xff")
    assert "is not UTF-8 text" in refused(text, tmp_path)
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "is not a regular file" in refused(text, tmp_path)


@pytest.mark.parametrize("name", ["", "../pw", "a/b", ".", ".."])
def test_a_credential_name_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    text = f'[mqtt]\nusername = "a"\npassword_file = "credential:{name}"'
    assert "the name of a systemd credential" in refused(text, tmp_path, CREDENTIALS_DIRECTORY=str(tmp_path))


def test_without_systemd_a_credential_says_how_to_get_one(tmp_path: Path) -> None:
    words = refused('[mqtt]\nusername = "a"\npassword_file = "credential:mqtt"', tmp_path)
    assert "LoadCredential=mqtt:PATH" in words


def test_tokens_are_long_enough_and_different(tmp_path: Path) -> None:
    private(tmp_path / "short", "short")
    private(tmp_path / "long", WORD)
    words = refused("".join(f'[[http.tokens]]\nname = "{name}"\ntoken_file = "./{file}"\n' for name, file in (
        ("one", "short"), ("two", "long"), ("three", "long"))), tmp_path)
    assert "http.tokens[1].token_file: the token has fewer than 16 characters" in words
    assert "http.tokens[3].token_file: holds the same token as http.tokens[2].token_file" in words


def test_a_token_crosses_the_network_encrypted_only(tmp_path: Path) -> None:
    private(tmp_path / "t")
    text = '[[direct.peers]]\nname = "lobby"\nurl = "{}"\ntoken_file = "./t"'
    assert "unencrypted: use https://" in refused(text.format("http://lobby.local:8080"), tmp_path)
    assert "must begin with https:// or http://" in refused(text.format("wss://lobby.local"), tmp_path)
    assert "a user name or password does not belong" in refused(text.format("https://a:b@lobby.local"), tmp_path)
    for url in ("http://127.0.0.1:8080", "http://[::1]:8080", "https://lobby.local", "https://10.0.0.2:8080/door"):
        assert load(text.format(url), tmp_path).direct.peers[0].url == url
