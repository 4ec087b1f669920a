"""Secrets that are kept: what is needed to read them, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.sealed import is_sealed, seal, unseal

KEY = "0123456789abcdef" * 4


@given(st.binary(max_size=5000))
def test_what_was_sealed_is_read_with_its_key_and_purpose_alone(content: bytes) -> None:
    sealed = seal(content, KEY, "janus.token")
    assert is_sealed(sealed)
    assert unseal(sealed, KEY, "janus.token") == content
    for key, purpose in ((KEY[:-1] + "0", "janus.token"), (KEY, "janus.pin")):
        with pytest.raises(ValueError, match="another key"):
            unseal(sealed, key, purpose)


def test_each_is_sealed_in_its_own_way() -> None:
    assert seal(b"the same", KEY, "janus.token") != seal(b"the same", KEY, "janus.token")


@given(st.data())
def test_what_is_changed_or_cut_is_refused(data: st.DataObject) -> None:
    sealed = seal(b"a token of some length", KEY, "janus.token")
    at = data.draw(st.integers(0, len(sealed) - 1))
    changed = sealed[:at] + bytes((sealed[at] ^ data.draw(st.integers(1, 255)),)) + sealed[at + 1 :]
    for one in (changed, sealed[:at]):
        with pytest.raises(ValueError, match="encrypted"):
            unseal(one, KEY, "janus.token")
