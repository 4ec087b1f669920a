"""STUN beside SIP: what is sent, and what of all that may come is an answer."""

from __future__ import annotations

import struct

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from appliance.providers.sip.stun import binding_request, is_stun, seen_address

ID = bytes(range(12))


def answer(name: str, address: tuple[str, int], *, transaction: bytes = ID, software: str = "x") -> bytes:
    """As another implementation makes it."""
    message = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, transaction_id=transaction)
    message.attributes["SOFTWARE"] = software
    message.attributes[name] = address
    return bytes(message)


def test_what_is_sent_is_a_binding_request() -> None:
    message = stun.parse_message(binding_request(ID))
    assert (message.message_method, message.message_class) == (stun.Method.BINDING, stun.Class.REQUEST)
    assert message.transaction_id == ID


@pytest.mark.parametrize("name", ["XOR-MAPPED-ADDRESS", "MAPPED-ADDRESS"])
@pytest.mark.parametrize("address", [("203.0.113.5", 40000), ("2001:db8::5", 1)])
@pytest.mark.parametrize("software", ["", "one", "four", "a longer name"])
def test_the_answer_says_where_we_were_seen(name: str, address: tuple[str, int], software: str) -> None:
    data = answer(name, address, software=software)
    assert is_stun(data)
    assert seen_address(data, ID) == address


def test_what_was_asked_by_others_or_in_vain_says_nothing() -> None:
    assert seen_address(answer("XOR-MAPPED-ADDRESS", ("203.0.113.5", 1), transaction=bytes(12)), ID) is None
    assert seen_address(binding_request(ID), ID) is None
    error = bytes(stun.Message(stun.Method.BINDING, stun.Class.ERROR, transaction_id=ID))
    assert seen_address(error, ID) is None


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"SIP/2.0 200 OK\r\nVia: x\r\n\r\n", b"OPTIONS sip:a@b SIP/2.0",
                                  b"\0" * 40])
def test_messages_of_sip_are_none_of_stun(data: bytes) -> None:
    assert not is_stun(data)
    assert seen_address(data, ID) is None


@given(st.binary(max_size=80), st.integers(0, 80))
def test_nothing_that_comes_raises(attributes: bytes, length: int) -> None:
    data = struct.pack("!HHI12s", 0x0101, length, 0x2112A442, ID) + attributes
    found = seen_address(data, ID)
    assert found is None or 0 <= found[1] < 65536
