from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.model.position import Filter, Position, digest_of, item_digest, parse_token, scope_of

SPEC = Path(__file__).parents[1] / "spec"
CASES = json.loads((SPEC / "digest.json").read_text("utf-8"))["cases"]

KEY = bytes(range(32))
POSITION = Position(bytes(range(16)), 3, b"nonce678", 42, scope_of("shop", "production"))

positions = st.builds(
    Position,
    st.binary(min_size=16, max_size=16),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**64 - 1),
    st.binary(min_size=8, max_size=8),
)


# The digest.


def test_the_vectors_of_the_digest_are_what_their_program_makes() -> None:
    path = SPEC / "build_digest.py"
    spec = importlib.util.spec_from_file_location("build_digest", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    assert (SPEC / "digest.json").read_text("utf-8") == program.build()
    assert len(CASES) >= 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_digest_agrees_with_its_vectors(case: dict[str, object]) -> None:
    held: dict[tuple[str, str], int] = {}
    for item in case["items"]:  # type: ignore[attr-defined]
        if item.get("deleted"):
            held.pop((item["kind"], item["key"]), None)
        else:
            held[item["kind"], item["key"]] = int(item["revision"])
    assert digest_of((kind, key, revision) for (kind, key), revision in held.items()) == int(
        str(case["digest"])
    )


def test_the_digest_of_nothing_is_zero_and_an_item_twice_is_nothing() -> None:
    assert digest_of([]) == 0
    assert digest_of([("setting", "a", 1)]) == item_digest("setting", "a", 1) != 0
    assert digest_of([("setting", "a", 1)] * 2) == 0


# Tokens.


@given(positions, st.binary(min_size=1, max_size=64))
def test_a_token_gives_back_its_position(position: Position, key: bytes) -> None:
    assert parse_token(position.token(key), key) == position


def test_a_token_with_any_flipped_bit_is_none() -> None:
    token = POSITION.token(KEY)
    assert parse_token(token, KEY) == POSITION
    for index in range(len(token)):
        for bit in range(8):
            damaged = bytearray(token)
            damaged[index] ^= 1 << bit
            assert parse_token(bytes(damaged), KEY) is None


@given(st.binary(max_size=80))
def test_anything_else_is_no_token(raw: bytes) -> None:
    assert parse_token(raw, KEY) is None


def test_a_token_of_another_key_or_length_is_none() -> None:
    token = POSITION.token(KEY)
    assert parse_token(token, b"other") is None
    assert parse_token(token + b"\0", KEY) is None
    assert parse_token(token[:-1], KEY) is None
    assert parse_token(b"", KEY) is None


def test_positions_are_of_one_history_when_all_but_the_revision_agree() -> None:
    assert POSITION.same_history(replace(POSITION, revision=1))
    for part, other in (
        ("store_id", bytes(16)),
        ("generation", 4),
        ("nonce", bytes(8)),
        ("scope", bytes(8)),
    ):
        assert not POSITION.same_history(replace(POSITION, **{part: other}))


# Scopes.


def test_a_scope_names_project_environment_and_filter() -> None:
    scopes = {
        scope_of("shop", "production"),
        scope_of("shop", "staging"),
        scope_of("shop2", "production"),
        scope_of("shop", "production", Filter(names=("a",))),
        scope_of("shop", "production", Filter(prefixes=("a",))),
        scope_of("shop", "production", Filter(names=("a", "b"))),
        scope_of("shop", "production", Filter(names=("ab",))),
        scope_of("shop", "production", Filter(names=("b",), prefixes=("a",))),
        scope_of("shop", "production", Filter(tracked=(("a", ("b",)),))),
        scope_of("shop", "production", Filter(tracked=(("a", ("b", "c")),))),
        scope_of("shop", "production", Filter(tracked=(("a", ("b",)), ("c", ("b",))))),
        scope_of("shop", "production", Filter(names=("a",), tracked=(("a", ("b",)),))),
    }
    assert len(scopes) == 12
    assert {len(scope) for scope in scopes} == {8}
    assert scope_of("shop", "production", Filter()) == scope_of("shop", "production")


@given(st.lists(st.text(max_size=3), max_size=4), st.randoms(use_true_random=False))
def test_a_scope_does_not_depend_on_the_order_or_repetition_of_names(names: list[str], draw: object) -> None:
    try:
        expected = scope_of("p", "e", Filter(names=tuple(names), prefixes=tuple(names)))
    except UnicodeEncodeError:
        return
    shuffled = names * 2
    draw.shuffle(shuffled)  # type: ignore[attr-defined]
    assert scope_of("p", "e", Filter(names=tuple(shuffled), prefixes=tuple(shuffled))) == expected


def test_a_scope_does_not_depend_on_the_order_or_repetition_of_tracked_values() -> None:
    one = Filter(tracked=(("plan", ("pro",)), ("region", ("eu", "us"))))
    other = Filter(tracked=(("region", ("us", "eu", "us")), ("plan", ("pro",))))
    assert scope_of("p", "e", one) == scope_of("p", "e", other)
    assert one.canonical() == other.canonical() == one


def test_a_scope_never_changes_between_releases() -> None:
    assert scope_of("shop", "production").hex() == "cbb8e6ba758c9aeb"
    assert scope_of("shop", "production", Filter(("é", "a"), ("p.",))).hex() == "48cc4d257ef2af9a"
    tracked = (("user.plan", ("pro",)), ("region", ("us", "eu")))
    assert scope_of("shop", "production", Filter(tracked=tracked)).hex() == "a4bed78fa25a209b"
