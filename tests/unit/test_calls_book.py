"""The address book: names to rounds, who may call, and a file that survives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.calls.book import AddressBook, Entry, Round, parse_uri, save
from appliance.errors import BadRequest, EdgecallError, Refused, StoreError
from appliance.providers.api import Peer, Target


def uris(rounds: list[Round]) -> list[list[str]]:
    return [[target.uri for target in one.targets] for one in rounds]


def test_a_name_is_dialled_best_address_first() -> None:
    book = AddressBook([Entry("Anna", ("device:anna-1", "operator:anna"), ring_s=20)])
    assert book.plan(["anna"], None, 30) == [Round((Target("device", "anna-1"),), 20),
                                             Round((Target("operator", "anna"),), 20)]


def test_a_parallel_group_rings_everybody_at_once_and_then_falls_back() -> None:
    book = AddressBook([
        Entry("Anna", ("device:anna-1", "device:anna-2")), Entry("Ben", ("operator:ben",)),
        Entry("House", members=("Anna", "Ben"), strategy="parallel", fallback="Porter"),
        Entry("Porter", ("tel:+4930123456",))])
    assert uris(book.plan(["House"], None, 30)) == [
        ["device:anna-1", "operator:ben"], ["device:anna-2"], ["tel:+4930123456"]]


def test_a_sequence_group_rings_one_after_the_other() -> None:
    book = AddressBook([Entry("A", ("device:aaa",)), Entry("B", ("device:bbb",)), Entry("G", members=("A", "B"))])
    assert uris(book.plan(["G"], None, 30)) == [["device:aaa"], ["device:bbb"]]


def test_each_target_rings_once_and_loops_end() -> None:
    book = AddressBook([Entry("A", ("device:aaa",), fallback="B"), Entry("B", ("device:aaa",), fallback="A")])
    with pytest.raises(Refused, match="deep"):
        book.plan(["A"], None, 30)
    book = AddressBook([Entry("A", ("device:aaa",)), Entry("G", members=("A",), uris=("device:aaa",))])
    assert uris(book.plan(["G", "A"], None, 30)) == [["device:aaa"]]


def test_several_names_in_parallel() -> None:
    assert uris(AddressBook().plan(["device:aaa", "device:bbb"], "parallel", 30)) == [["device:aaa", "device:bbb"]]


@pytest.mark.parametrize(("text", "country", "target"), [
    ("030 123456", "DE", "tel:+4930123456"), ("tel:030123456", "DE", "tel:+4930123456"),
    ("+49 30 123456", "", "tel:+4930123456"), ("operator:*", "", "operator:*"), ("DEVICE:lobby", "", "device:lobby")])
def test_targets(text: str, country: str, target: str) -> None:
    assert parse_uri(text, country).uri == target


@pytest.mark.parametrize(("text", "words"), [
    ("nobody", "neither a name"), ("ftp:host", "unknown scheme"), ("device:", "empty"), ("device:a b", "blanks"),
    ("tel:12", "neither"), ("030123456", "country")])
def test_what_is_no_target_says_why(text: str, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        parse_uri(text)


def test_the_caller_is_found_by_its_address_or_a_star() -> None:
    book = AddressBook([Entry("Operators", ("operator:*",)), Entry("Gate", ("device:gate-1",), auto_answer=True)])
    assert book.caller(Peer("gate-1", "device:gate-1", "x")) == book.get("Gate")
    assert book.caller(Peer("desk", "operator:desk", "x")) == book.get("operators")
    assert book.caller(Peer("gate-2", "device:gate-2", "x")) is None


def test_an_address_bears_the_name_the_book_has_for_just_it() -> None:
    book = AddressBook([Entry("Operators", ("operator:*",)), Entry("Gate", ("device:gate-1",))])
    assert book.named(Peer("*", "operator:*", "*")).display_name == "Operators"
    assert book.named(Peer("gate-1", "device:gate-1", "gate-1")).display_name == "Gate"
    assert book.named(Peer("desk", "operator:desk", "Lena")).display_name == "Lena"


def test_an_exact_address_is_known_before_one_that_covers_it() -> None:
    book = AddressBook([Entry("All", ("operator:*",)), Entry("Zoe", ("operator:zoe",), auto_answer=True)])
    assert book.caller(Peer("zoe", "operator:zoe", "zoe")) == Entry("Zoe", ("operator:zoe",), auto_answer=True)
    assert book.caller(Peer("tom", "operator:tom", "tom")) == Entry("All", ("operator:*",))


def test_an_entry_that_cannot_be_called_hinders_nobody(caplog: pytest.LogCaptureFixture) -> None:
    flat = Entry("Flat", ("tel:030123456", "device:flat-1"))
    book = AddressBook([flat])
    assert "'Flat' cannot be called at tel:030123456" in caplog.text
    assert book.caller(Peer("flat-1", "device:flat-1", "flat-1")) is flat
    assert book.caller(Peer("x", "device:x", "x")) is None
    assert book.named(Peer("x", "device:x", "x")).display_name == "x"


@pytest.mark.parametrize("number", ["110", "112", "tel:110", "116117"])
def test_a_short_code_is_dialled_as_it_is(number: str) -> None:
    assert parse_uri(number) == Target("tel", number.removeprefix("tel:"))


def test_the_file_keeps_what_was_put_and_removed(tmp_path: Path) -> None:
    base = [Entry("Operators", ("operator:*",)), Entry("Gate", ("device:gate-1",))]
    book = AddressBook(base)
    book.put(Entry("Anna", ("device:anna-1",), 20, auto_answer=True))
    book.put(Entry("operators", ("operator:desk",)))  # another case of a name replaces it
    book.remove("gate")
    save(tmp_path / "book.json", book.dump())
    again = AddressBook(base)
    again.load(tmp_path / "book.json")
    assert again.entries() == book.entries()
    assert [entry.name for entry in again.entries()] == ["Anna", "operators"]


def test_a_file_of_a_later_version_is_read(tmp_path: Path) -> None:
    book = AddressBook([])
    book.put(Entry("Anna", ("device:anna-1",), 20, auto_answer=True))
    document = json.loads(book.dump())
    document["entries"]["Anna"]["mood"] = document["of_tomorrow"] = "good"
    (tmp_path / "book.json").write_text(json.dumps(document))
    again = AddressBook([])
    again.load(tmp_path / "book.json")
    assert again.entries() == book.entries()


def test_a_broken_file_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "book.json"
    for text in ("", "{", json.dumps({"entries": {"A": {"uris": 5}}}), json.dumps([])):
        path.write_text(text)
        book = AddressBook([Entry("A", ("device:aaa",))])
        with pytest.raises(StoreError, match=r"book\.json"):
            book.load(path)
        assert path.read_text() == text
        assert book.get("A") is not None


def test_a_book_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        save(tmp_path / "file" / "book.json", "{}")


@pytest.mark.parametrize(("entry", "words"), [
    (Entry("a:b", ("device:aaa",)), "colon"), (Entry("A"), "at least one"), (Entry("A", ("ftp:x",)), "scheme")])
def test_wrong_entries_change_nothing(entry: Entry, words: str) -> None:
    book = AddressBook()
    with pytest.raises(BadRequest, match=words):
        book.put(entry)
    assert book.entries() == []


@given(st.text(max_size=300), st.sampled_from(["", "DE", "XX"]))
def test_any_text_is_a_target_or_an_error_in_words(text: str, country: str) -> None:
    try:
        target = parse_uri(text, country)
    except EdgecallError as error:
        assert error.message
    else:
        assert target.address
