"""The command-line face: how a verb and its arguments are typed, exit codes, completion scripts.

Only the standard library and the vocabulary are imported, so that ``edgecall`` starts at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final

from appliance.vocabulary import DIALECTS, DOCUMENTS, SAMPLE_S, VERB, VERBS, Arg, ArgType, Json, Result, Verb

__all__ = [
    "OWN_COMMANDS", "ExitCode", "completion", "exit_code", "given_args", "joined", "option", "parser", "placeholder",
    "sorted_out",
]

LONG_WAIT_S: Final = 120.0
"""How long a verb with a later answer is waited for: longer than anything rings."""


class ExitCode(IntEnum):
    """Exit codes of ``edgecall``; ``run`` ends with those of the daemon (78: the settings have faults)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    NOT_RUNNING = 4
    EXPIRED = 5
    UNFINISHED = 6
    SETTINGS = 78
    INTERRUPTED = 130

    @property
    def says(self) -> str:
        return _EXIT_WORDS[self]


_EXIT_WORDS: Final[dict[ExitCode, str]] = {
    ExitCode.DONE: "Done; or accepted, where --wait 0 was given.",
    ExitCode.FAILED: "The appliance tried and failed, or its health is failed.",
    ExitCode.USAGE: "Wrong usage: unknown verb or argument, or refused with 400.",
    ExitCode.REFUSED: "Right, but refused: not permitted, not now, not with this board.",
    ExitCode.NOT_RUNNING: "The appliance is not running or cannot be reached, or left while it was being asked.",
    ExitCode.EXPIRED: "Too late: the command was not carried out.",
    ExitCode.UNFINISHED: "Accepted, but not finished within --wait; it goes on.",
    ExitCode.SETTINGS: "check, run: the settings file has faults; check: or the board file.",
    ExitCode.INTERRUPTED: "Interrupted by Ctrl-C.",
}

OWN_COMMANDS: Final[dict[str, str]] = {
    "run": "run the appliance (edgecall run --help)",
    "doctor": "open the devices of this machine, and say what is missing and why (edgecall doctor --help)",
    "state": "show all state documents, or one",
    "events": "show events as they come, one JSON object a line",
    "health": "show whether the appliance works",
    "address": "print a fresh one-time address of the page",
    "stats": "show the statistics of the call and of the device, once or as they come",
    "verbs": "list what the appliance can be told to do",
    "check": "check a settings file, and the board file that it names, without starting anything",
    "completion": "print a completion script for bash, zsh or fish",
}
"""Commands beside the verbs."""


def exit_code(answer: Json, *, waited: bool) -> ExitCode:
    """The exit code for an answer; ``waited``: its final form was waited for."""
    result, code = answer.get("result"), answer.get("code")
    if result == Result.DONE:
        return ExitCode.DONE
    if result == Result.ACCEPTED:
        return ExitCode.UNFINISHED if waited else ExitCode.DONE
    if result == Result.EXPIRED:
        return ExitCode.EXPIRED
    if result == Result.REJECTED:
        return ExitCode.USAGE if code == 400 else ExitCode.REFUSED
    return ExitCode.FAILED


# --- words in, arguments out ----------------------------------------------------------------------------------------


_WHERE: Final[dict[str, tuple[str, str]]] = {
    "--data": ("FOLDER", "data folder of the appliance (EDGECALL_DATA)"),
    "--socket": ("PATH", "its Unix socket"),
    "--url": ("URL", "address of another appliance, such as https://door.local:8080"),
    "--token-file": ("PATH", "file with the token for --url"),
    "--ca-file": ("PATH", "certificate, or its authority, for --url https://"),
}
"""Options that say which appliance is meant; they may stand before or after the command."""


def sorted_out(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options that say which appliance, wherever they stand, and the rest; nothing is moved from behind ``--``."""
    end = words.index("--") if "--" in words else len(words)
    where: list[str] = []
    rest: list[str] = []
    at = 0
    while at < end:
        size = 2 if words[at] in _WHERE and at + 1 < end else 1
        (where if words[at].partition("=")[0] in _WHERE else rest).extend(words[at:at + size])
        at += size
    return where, [*rest, *words[end:]]


def joined(words: Sequence[str]) -> list[str]:
    """``call dial …`` as ``call.dial …``: a verb may be typed with a blank for its first dot."""
    found = list(words)
    for at in range(len(found) - 1):
        both = f"{found[at]}.{found[at + 1]}"
        if both in VERB:
            return [*found[:at], both, *found[at + 2:]]
        if found[at] in VERB or found[at] in OWN_COMMANDS:
            break
    return found


def option(arg: Arg) -> str:
    """``ringSeconds`` as ``--ring-seconds``."""
    return "--" + "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in arg.name)


def placeholder(arg: Arg) -> str:
    """What stands after an option in usage lines."""
    return "N" if arg.type in {ArgType.INTEGER, ArgType.NUMBER} else "JSON" if arg.type is ArgType.OBJECT else "TEXT"


def parser(prog: str = "edgecall") -> argparse.ArgumentParser:
    """The parser of the whole command line; ``command`` is a verb or a key of OWN_COMMANDS."""
    top = argparse.ArgumentParser(
        prog=prog, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        description="Command the appliance on this machine, over its Unix socket, or another one with --url.",
        epilog="exit codes:\n" + "\n".join(f"  {code.value:3}  {code.says}" for code in ExitCode),
    )
    where = top.add_argument_group("which appliance")
    for name, (metavar, words) in _WHERE.items():
        where.add_argument(name, dest=f"own_{name[2:].replace('-', '_')}", metavar=metavar, help=words)
    top.add_argument("--version", dest="own_version", action="store_true", help="show the version and end")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for verb in VERBS:
        _add_verb(commands, verb)
    for name, words in OWN_COMMANDS.items():
        _add_own(commands.add_parser(name, help=words, description=words, add_help=name not in {"run", "doctor"}), name)
    return top


def _add_verb(commands: Any, verb: Verb) -> None:
    words = f"{verb.summary} Scope: {verb.scope.value}."
    if verb.acts:
        words += f" Lapses after --ttl, at most {verb.max_ttl_s:g} s."
    one = commands.add_parser(verb.name, help=verb.summary.replace("%", "%%"), description=words, allow_abbrev=False)
    for arg in verb.args:
        one.add_argument(*_names(arg), **_typing(arg))
    about = one.add_argument_group("about the command")
    about.add_argument("--id", dest="command_id", metavar="ID", help="its id; the same id again does nothing new")
    about.add_argument("--ttl", dest="command_ttl", type=float, metavar="SECONDS", help="it lapses after this time")
    about.add_argument("--wait", dest="command_wait", type=float, metavar="SECONDS",
                       default=LONG_WAIT_S if verb.long else 0.0,
                       help="wait for the final answer (default %(default)g)")


def _names(arg: Arg) -> tuple[str, ...]:
    return (arg.name,) if arg.positional else (option(arg),)


def _typing(arg: Arg) -> dict[str, Any]:
    """Keywords for argparse. Limits are the daemon's to check: one place, one set of words."""
    words = _help(arg).replace("%", "%%")
    keywords: dict[str, Any] = {"help": words, "default": None}
    if arg.positional:
        if not arg.required:
            keywords["nargs"] = "?"
    else:
        keywords["dest"] = arg.name
        keywords["required"] = arg.required
        if not arg.choices and arg.type is not ArgType.BOOLEAN:
            keywords["metavar"] = placeholder(arg)
    if arg.choices:
        keywords["choices"] = arg.choices
    if arg.type is ArgType.INTEGER:
        keywords["type"] = _integer
    elif arg.type is ArgType.NUMBER:
        keywords["type"] = _number
    elif arg.type is ArgType.STRINGS:
        keywords.update(action="extend", nargs="+")
    elif arg.type is ArgType.BOOLEAN and arg.positional:
        keywords.update(type=_switch, metavar=f"{arg.name}:on|off")
    elif arg.type is ArgType.BOOLEAN:
        keywords["action"] = argparse.BooleanOptionalAction
    elif arg.type is ArgType.OBJECT:
        keywords["type"] = _object
    return keywords


def _help(arg: Arg) -> str:
    """What an argument means, with its range or its members."""
    if arg.fields:
        return ". ".join([arg.help, *(f"{one.name}: {_help(one)}" for one in arg.fields)])
    if arg.minimum is not None and arg.maximum is not None and arg.type in {ArgType.INTEGER, ArgType.NUMBER}:
        return f"{arg.help} ({arg.minimum:.12g} to {arg.maximum:.12g})"
    return arg.help


def _switch(text: str) -> bool:
    known = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
    try:
        return known[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither on nor off") from None


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number; write one like 15") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write one like 1.5") from None


_OBJECT_FORM: Final = """write it like '{"name": 1}', with the shell's quotes around; --help lists the names"""


def _object(text: str) -> Json:
    import json

    try:
        found = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"is not JSON: {error}; {_OBJECT_FORM}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"is no JSON object; {_OBJECT_FORM}")
    return found


def _add_own(one: argparse.ArgumentParser, name: str) -> None:
    if name == "state":
        one.add_argument("name", nargs="?", help=", ".join(DOCUMENTS))
    elif name == "stats":
        one.add_argument("--dialect", choices=DIALECTS, default=DIALECTS[0], help="names and units")
        one.add_argument("--follow", action="store_true", help="a sample a line, until Ctrl-C")
        one.add_argument("--interval", type=_integer, metavar="N",
                         help=f"with --follow: seconds between samples, {SAMPLE_S[0]} (default) to {SAMPLE_S[1]}")
        one.add_argument("--count", type=_integer, metavar="N", help="with --follow: end after N lines")
    elif name == "events":
        one.add_argument("--states", action="store_true", help="state documents too, beginning with all of them")
        one.add_argument("--count", type=_integer, metavar="N", help="end after N lines")
    elif name == "address":
        one.add_argument("--operator", action="store_true", help="of the operator page")
        one.add_argument("--name", help="who is let in (default operator)")
        one.add_argument("--scope", choices=("operator", "admin"), help="what they may")
        one.add_argument("--json", action="store_true", help="as a JSON object")
    elif name == "check":
        one.add_argument("file", nargs="?", help="default: the file the appliance would read")
    elif name == "completion":
        one.add_argument("shell", choices=("bash", "zsh", "fish"))


def given_args(verb: Verb, parsed: argparse.Namespace) -> Json:
    """The arguments a human gave, by their names in the vocabulary."""
    return {arg.name: value for arg in verb.args if (value := getattr(parsed, arg.name)) is not None}


# --- completion -----------------------------------------------------------------------------------------------------


def completion(shell: str) -> str:
    """A completion script: commands, states, options and choices of the vocabulary."""
    commands = [*VERB, *OWN_COMMANDS]
    if shell == "fish":
        lines = ["complete -c edgecall -f"]
        words = {**{verb.name: verb.summary for verb in VERBS}, **OWN_COMMANDS}
        lines += [f"complete -c edgecall -n __fish_use_subcommand -a {name} -d '{text.replace(chr(39), '')}'"
                  for name, text in words.items()]
        for name in commands:
            lines += [f"complete -c edgecall -n '__fish_seen_subcommand_from {name}' -a '{word}'"
                      for word in _words(name)]
        return "\n".join(lines) + "\n"
    cases = "\n".join(f"        {name}) words='{' '.join(_words(name))}' ;;" for name in commands if _words(name))
    script = f"""_edgecall() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} words='{' '.join(commands)}' word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case $word in
{cases}
        esac
    done
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -F _edgecall edgecall
"""
    if shell == "zsh":
        return "#compdef edgecall\nautoload -U +X bashcompinit && bashcompinit\n" + script
    return script


def _words(name: str) -> list[str]:
    verb = VERB.get(name)
    if verb is None:
        fixed = {"state": list(DOCUMENTS), "completion": ["bash", "zsh", "fish"], "events": ["--states", "--count"],
                 "stats": ["--dialect", *DIALECTS, "--follow", "--interval", "--count"],
                 "address": ["--operator", "--name", "--scope", "--json"],
                 "doctor": ["--board", "--board-file", "--play", "--record", "--seconds", "--grab", "--blink"],
                 "run": ["--config", "--data", "--board", "--port", "--no-broker", "--safe"]}
        return fixed.get(name, [])
    words: list[str] = []
    for arg in verb.args:
        if not arg.positional:
            words.append(option(arg))
        elif arg.type is ArgType.BOOLEAN:
            words += ["on", "off"]
        words += arg.choices
    return [*dict.fromkeys(words), "--ttl", "--wait"]
