from __future__ import annotations

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import InvalidConditionError
from rheostat.evaluation.bucket import (
    bucket,
    format_percent,
    murmur3_32,
    murmur3_32_pure,
    parse_percent,
    unit_text,
)
from rheostat.model.condition import BUCKETS, BucketAlgorithm


@given(st.binary(max_size=70))
def test_the_pure_murmur3_equals_the_extension(octets: bytes) -> None:
    assert murmur3_32_pure(octets) == murmur3_32(octets) == mmh3.hash(octets, 0, signed=False)


@given(st.sampled_from(BucketAlgorithm), st.text(max_size=20), st.text(min_size=1, max_size=20))
def test_buckets_stay_in_their_range(algorithm: BucketAlgorithm, salt: str, unit: str) -> None:
    assert 0 <= bucket(algorithm, salt, unit) < BUCKETS


@pytest.mark.parametrize("algorithm", BucketAlgorithm)
def test_units_spread_evenly(algorithm: BucketAlgorithm) -> None:
    below_half = sum(bucket(algorithm, "rollout", f"user-{i}") < BUCKETS // 2 for i in range(20_000))

    # Six standard deviations of a fair coin tossed 20 000 times.
    assert abs(below_half - 10_000) < 425


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [
        ("12.5", 12_500),
        ("0", 0),
        ("0.001", 1),
        ("100", 100_000),
        ("100.000", 100_000),
        ("33.333", 33_333),
        # 0.29 * 1000 is 290.00000000000006 as floats, and 1.001 * 1000 is below 1001.
        ("0.29", 290),
        ("1.001", 1_001),
        ("25%", 25_000),
        ("007", 7_000),
    ],
)
def test_a_per_cent_is_read_as_a_decimal(text: str, thousandths: int) -> None:
    assert parse_percent(text) == thousandths


@pytest.mark.parametrize(
    "text",
    [
        "",
        "%",
        "-1",
        "+1",
        "100.001",
        "101",
        "1.2345",
        "1.",
        ".5",
        "1e1",
        " 1",
        "1 ",
        "1,5",
        "NaN",
        "٣",
        "1_0",
        "1\n",
    ],
)
def test_what_is_no_per_cent_is_refused_naming_it(text: str) -> None:
    with pytest.raises(InvalidConditionError, match="per cent") as caught:
        parse_percent(text)
    assert repr(text) in str(caught.value)


@given(st.integers(0, BUCKETS))
def test_a_formatted_per_cent_reads_back(thousandths: int) -> None:
    text = format_percent(thousandths)

    assert parse_percent(text) == thousandths
    assert not text.endswith((".", ".0"))


@given(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text())
    )
)
def test_a_unit_is_text_that_utf8_carries_or_none(value: object) -> None:
    unit = unit_text(value)

    if unit is not None:
        assert unit
        assert bucket(BucketAlgorithm.MURMUR3, "salt", unit) >= 0
