from __future__ import annotations

import binascii
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.model.key import KEY_PATTERN, KeyKind, key_selector, make_secret, verify_secret

RANDOM = bytes(range(40))


@pytest.mark.parametrize("kind", KeyKind)
def test_a_key_has_one_form(kind: KeyKind) -> None:
    text, selector, verifier = make_secret(kind, RANDOM)
    secret = bytes(range(8, 40)).hex()
    body = f"rst_{kind.value}_0001020304050607_{secret}"
    assert text == f"{body}_{binascii.crc32(body.encode()):08x}"
    assert selector == "0001020304050607"
    assert verifier == hashlib.sha256(secret.encode()).digest()
    assert key_selector(text) == selector
    assert verify_secret(text, verifier)
    assert not verify_secret(text, bytes(32))


def test_a_key_never_changes_its_form_between_releases() -> None:
    text, _, verifier = make_secret(KeyKind.SERVER, bytes(40))
    assert text == f"rst_server_{'0' * 16}_{'0' * 64}_0fc92762"
    assert verifier.hex() == "60e05bd1b195af2f94112fa7197a5c88289058840ce7c6df9693756bc6250f55"


@given(st.binary(min_size=40, max_size=40), st.sampled_from(KeyKind), st.data())
def test_a_mistyped_key_is_noticed(raw: bytes, kind: KeyKind, data: st.DataObject) -> None:
    text, _, verifier = make_secret(kind, raw)
    at = data.draw(st.integers(0, len(text) - 1))
    typed = data.draw(st.sampled_from("abcdef0123456789_x"))
    mistyped = text[:at] + typed + text[at + 1 :]
    if mistyped != text:
        assert key_selector(mistyped) is None
        # The checksum finds mistakes; the verifier looks at the secret alone.
        secret_at = len(f"rst_{kind.value}_") + 17
        if secret_at <= at < secret_at + 64:
            assert not verify_secret(mistyped, verifier)


@pytest.mark.parametrize("text", ["", "rst_", "rst_admin_x", "Bearer", "rst_server_" + "0" * 16, "é" * 100])
def test_other_texts_are_no_keys(text: str) -> None:
    assert key_selector(text) is None
    assert not verify_secret(text, bytes(32))


def test_a_key_that_goes_on_is_no_key() -> None:
    text, _, verifier = make_secret(KeyKind.USER, RANDOM)
    for longer in (text + "\n", text + "0", " " + text):
        assert key_selector(longer) is None
        assert not verify_secret(longer, verifier)
    assert KEY_PATTERN.fullmatch(text)


@pytest.mark.parametrize("size", [0, 39, 41])
def test_a_key_needs_forty_random_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="40 random bytes"):
        make_secret(KeyKind.SERVER, bytes(size))
