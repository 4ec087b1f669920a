"""The command lines of the documentation are ones that the product takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from appliance.__main__ import arguments
from appliance.faces.commandline import joined, parser, sorted_out
from appliance.vocabulary import VERB
from hw import doctor

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md",
         *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "reference.md")]
"""The reference shows usage in place of command lines; it is made of the parser's own table."""
BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
EDGECALL = re.compile(r"(?:.* -- )?(?:sudo (?:-u \S+ )?)?(?:\S*/)?edgecall (.+)")


def commands(text: str) -> Iterator[tuple[list[str], bool]]:
    """The words after ``edgecall`` of each command line, and whether it must be whole: in a block. In the text, between
    backticks, a verb may stand for itself, and an option without its value: ``call.dtmf --method``."""
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if found := EDGECALL.fullmatch(line.strip()):
                yield _words(found[1]), True
    for span in re.findall(r"`([^`]+)`", BLOCK.sub("", text)):
        line = " ".join(span.split())
        found = EDGECALL.fullmatch(line)
        if found or line.partition(" ")[0] in VERB:
            yield _words(found[1] if found else line), False


def _words(line: str) -> list[str]:
    """Without what is the page's own: comments, ``[what may be left out]``, ``this|or that`` and ``…``."""
    line = re.sub(r"\s#\s.*|…|(?<=\w)(\|\w+)+", "", line)
    return shlex.split(re.sub(r"\[(--[^]]*)\]", r"\1", line))


_parser = cache(parser)


def parse(words: list[str]) -> None:
    """As ``edgecall`` does. Raises SystemExit for what it refuses, and for ``--help``."""
    where, rest = sorted_out(words)
    if rest[0] == "run":
        arguments([*where, *rest[1:]])
    elif rest == ["doctor", "--help"]:
        doctor.main(rest[1:])
    else:
        _parser().parse_args([*where, *joined(rest)])


def refusal(words: list[str], whole: bool, capsys: pytest.CaptureFixture[str]) -> str:
    """Why the command line is not taken; empty where it is."""
    if words[0] != "doctor":  # which begins at once
        try:
            parse(words)
        except SystemExit:
            said = capsys.readouterr().err.strip().rpartition("error: ")[2]
        else:
            return ""
        if whole or not re.search(r"expected one argument|are required", said):
            return said
    with pytest.raises(SystemExit):
        parse([words[0], "--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    return ", ".join(word for word in words[1:] if word.startswith("--") and word not in known)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_command_lines_are_taken(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = list(commands(path.read_text("utf-8")))
    assert [(words, why) for words, whole in found if (why := refusal(words, whole, capsys))] == []


def test_command_lines_are_found_and_judged(capsys: pytest.CaptureFixture[str]) -> None:
    text = """See `edgecall state` and `call.dtmf --method`, not `call.dtmf --means`, nor `call.hangup
--forEveryone`; `systemctl status edgecall` is another's, and so is `lobby`.
```sh
sudo -u edgecall /opt/edgecall/bin/edgecall room.join 7 \\
  --pin '4 7'   # not --pin '5
edgecall doctor --play --pray
.venv/bin/edgecall token.set --token TOKEN [--expiresIn 3600]
scripts/hil --run -- edgecall run --sure
edgecall call.dtmf
echo edgecall state
```
"""
    judged = {" ".join(words): refusal(words, whole, capsys) for words, whole in commands(text)}
    assert judged == {
        "room.join 7 --pin 4 7": "", "doctor --play --pray": "--pray",
        "token.set --token TOKEN --expiresIn 3600": "unrecognized arguments: --expiresIn 3600",
        "run --sure": "unrecognized arguments: --sure", "call.dtmf": "the following arguments are required: digits",
        "state": "", "call.dtmf --method": "", "call.dtmf --means": "--means",
        "call.hangup --forEveryone": "unrecognized arguments: --forEveryone"}
