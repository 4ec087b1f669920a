"""The broker's access list from the vocabulary: which lines there are. What they do is proven with a real broker."""

from __future__ import annotations

import pytest

from appliance.faces.acl import User, access_list, main
from appliance.vocabulary import ROOT, VERBS, Scope, verbs_for


def lines_of(text: str, user: str) -> list[str]:
    """What one user may, from his line to the next user's."""
    _, _, rest = text.partition(f"user {user}\n")
    return [line for line in rest.partition("\nuser ")[0].splitlines() if line.startswith("topic ")]


def test_a_user_may_give_the_verbs_of_his_scope_and_no_other() -> None:
    text = access_list([User("lena", Scope.OPERATOR), User("boss", Scope.ADMIN)])
    for user, scope in (("lena", Scope.OPERATOR), ("boss", Scope.ADMIN)):
        verbs = {line.rpartition("/cmd/")[2] for line in lines_of(text, user) if line.startswith("topic write")}
        assert verbs == {verb.name for verb in verbs_for(scope)}
    assert "config.reload" not in "".join(lines_of(text, "lena"))
    assert len(lines_of(text, "boss")) > len(VERBS)


def test_no_wildcard_ever_gives_commands() -> None:
    text = access_list([User(scope.value + "s", scope) for scope in Scope])
    assert not [line for line in text.splitlines() if "cmd/" in line and "write" in line and ("#" in line or "/+" in
                line.partition("/cmd/")[2])]


def test_a_user_of_some_devices_has_lines_for_those_alone() -> None:
    granted = lines_of(access_list([User("lena", Scope.OPERATOR, ("door-1", "door-2"))]), "lena")
    assert {line.split("/")[2] for line in granted} == {"door-1", "door-2"}


def test_a_device_reads_its_commands_and_signs_what_it_signals() -> None:
    text = access_list([], ["door-1"])
    assert f"pattern read {ROOT}/%u/cmd/#" in text
    assert f"pattern write {ROOT}/+/signal/%u" in text
    assert "door-1" not in text, "devices are known by their names, not by lines"


@pytest.mark.parametrize(("users", "words"), [
    ([User("Lena!", Scope.OPERATOR)], "'Lena!' is no name"),
    ([User("lena", Scope.OPERATOR, ("door 1",))], "'door 1' is no name"),
    ([User("lena", Scope.OPERATOR), User("lena", Scope.ADMIN)], "'lena' stands twice"),
    ([User("door-1", Scope.OPERATOR)], "'door-1' stands twice, or is a device's id")])
def test_wrong_names_are_refused(users: list[User], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        access_list(users, ["door-1"])


def test_the_command_writes_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lena:operator", "boss:admin:door-1,door-2", "--device", "door-1"]) == 0
    assert capsys.readouterr().out == access_list(
        [User("lena", Scope.OPERATOR), User("boss", Scope.ADMIN, ("door-1", "door-2"))], ["door-1"])


@pytest.mark.parametrize("user", ["lena", "lena:chief", "door-1:operator"])
def test_the_command_says_what_is_wrong(user: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([user, "--device", "door-1"])
    assert user.partition(":")[0] in capsys.readouterr().err
