"""Writes evaluation.json from the tables below. The expectations are written by hand, from the specification.

Run as ``python tests/spec/build_evaluation.py``; a test checks that the file is what this makes. The buckets in
the comments come from independent implementations of the hashes, see build_buckets.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Json = Any
Condition = dict[str, Any]

TRUE, FALSE, UNKNOWN = "TRUE", "FALSE", "UNKNOWN"

NAN = {"$float": "NaN"}
INFINITY = {"$float": "Infinity"}
MINUS_INFINITY = {"$float": "-Infinity"}
UNSUPPORTED = {"$unsupported": True}
# Written as a number, 2^63 would be beyond what many JSON parsers keep.
TWO_63 = {"$int": "9223372036854775808"}
INT64_MAX = {"$int": "9223372036854775807"}
INT64_MIN = {"$int": "-9223372036854775808"}


def value(raw: Json) -> Json:
    """Return *raw* as the JSON form of rheo.v1.Value."""
    match raw:
        case None:
            return {"nullValue": None}
        case bool():
            return {"boolValue": raw}
        case int():
            return {"intValue": str(raw)}
        case float():
            return {"doubleValue": raw}
        case str():
            return {"stringValue": raw}
        case list():
            return {"listValue": {"values": [value(element) for element in raw]}}
        case {"$float": text}:
            return {"doubleValue": float(text) if text not in ("NaN", "Infinity", "-Infinity") else text}
        case {"$int": text}:
            return {"intValue": text}
        case dict():
            return {"mapValue": {"entries": {key: value(element) for key, element in raw.items()}}}
    raise TypeError(raw)


class Attr:
    """An attribute as an operand."""

    def __init__(self, path: str) -> None:
        self.path = path


class Ref:
    """Another setting as an operand."""

    def __init__(self, name: str) -> None:
        self.name = name


def operand(raw: Json) -> Json:
    if isinstance(raw, Attr):
        return {"attribute": raw.path}
    if isinstance(raw, Ref):
        return {"setting": raw.name}
    return {"literal": value(raw)}


def cmp(left: str | Ref, op: str, right: Json) -> Condition:
    """Compare the attribute *left* with one operand."""
    return {
        "comparison": {
            "left": operand(Attr(left) if isinstance(left, str) else left),
            "op": f"OPERATOR_{op}",
            "right": operand(right),
        }
    }


def lst(left: str | Ref, op: str, literals: Sequence[Json]) -> Condition:
    """Compare the attribute *left* with a literal list."""
    return {
        "comparison": {
            "left": operand(Attr(left) if isinstance(left, str) else left),
            "op": f"OPERATOR_{op}",
            "list": {"values": [value(literal) for literal in literals]},
        }
    }


def exists(path: str) -> Condition:
    return {"comparison": {"left": {"attribute": path}, "op": "OPERATOR_EXISTS"}}


def exists_setting(name: str) -> Condition:
    return {"comparison": {"left": {"setting": name}, "op": "OPERATOR_EXISTS"}}


def both(*conditions: Condition) -> Condition:
    return {"allOf": {"conditions": list(conditions)}}


def either(*conditions: Condition) -> Condition:
    return {"anyOf": {"conditions": list(conditions)}}


def no(condition: Condition) -> Condition:
    return {"negation": {"condition": condition}}


def segment(name: str) -> Condition:
    return {"segment": {"name": name}}


def percent(path: str, salt: str, start: int, end: int, algorithm: str = "MURMUR3") -> Condition:
    return {
        "percentage": {
            "attribute": path,
            "salt": salt,
            "algorithm": f"BUCKET_ALGORITHM_{algorithm}",
            "fromBucket": start,
            "toBucket": end,
        }
    }


def rule(id_: str, outcome: Json, condition: Condition | None = None, **more: Json) -> Json:
    made: dict[str, Json] = {"id": id_}
    if condition is not None:
        made["condition"] = condition
    made["value"] = value(outcome)
    return {**made, **more}


def split(
    id_: str,
    unit: str,
    salt: str,
    variants: Sequence[tuple[str, int, Json]],
    condition: Condition | None = None,
    algorithm: str = "MURMUR3",
) -> Json:
    made: dict[str, Json] = {"id": id_}
    if condition is not None:
        made["condition"] = condition
    made["distribution"] = {
        "algorithm": f"BUCKET_ALGORITHM_{algorithm}",
        "salt": salt,
        "unit": unit,
        "variants": [{"name": name, "weight": weight, "value": value(v)} for name, weight, v in variants],
    }
    return made


def setting(name: str, type_: str, default: Json, *rules: Json, **more: Json) -> Json:
    made: dict[str, Json] = {"name": name, "type": type_, "default": value(default)}
    made.update({key: value(raw) if key in ("value", "off") else raw for key, raw in more.items()})
    if rules:
        made["rules"] = list(rules)
    return made


def seg(name: str, condition: Condition) -> Json:
    return {"name": name, "condition": condition}


def truth_setting(condition: Condition) -> Json:
    """A setting that tells the three truths apart: two rules, and a default that only UNKNOWN reaches."""
    return setting(
        "flag", "str", UNKNOWN, rule("if-true", TRUE, condition), rule("if-false", FALSE, no(condition))
    )


def truth_case(
    name: str,
    condition: Condition,
    context: Json,
    truth: str,
    settings: Sequence[Json] = (),
    segments: Sequence[Json] = (),
) -> Json:
    expected: dict[str, Json] = {"value": truth, "reason": "TARGETING_MATCH"}
    if truth == UNKNOWN:
        expected["reason"] = "DEFAULT"
    else:
        expected["ruleId"] = f"if-{truth.lower()}"
    made: dict[str, Json] = {"name": name, "settings": [truth_setting(condition), *settings]}
    if segments:
        made["segments"] = list(segments)
    made["evaluate"] = "flag"
    made["layers" if isinstance(context, list) else "context"] = context
    made["expected"] = expected
    return made


def case(
    name: str,
    settings: Sequence[Json],
    evaluate: str,
    context: Json,
    expected: Mapping[str, Json],
    *,
    segments: Sequence[Json] = (),
    **more: Json,
) -> Json:
    made: dict[str, Json] = {"name": name, "settings": list(settings)}
    if segments:
        made["segments"] = list(segments)
    made["evaluate"] = evaluate
    made["layers" if isinstance(context, list) else "context"] = context
    return {**made, **more, "expected": dict(expected)}


# Left value, operator, right value, truth. The left value is the attribute "x".
COMPARISONS: dict[str, list[tuple[Json, str, Json, str]]] = {
    "equals": [
        ("eu", "EQUALS", "eu", TRUE),
        ("us", "EQUALS", "eu", FALSE),
        ("EU", "EQUALS", "eu", FALSE),
        ("", "EQUALS", "", TRUE),
        (" eu", "EQUALS", "eu", FALSE),
        # No Unicode normalisation: e with an acute accent, composed and decomposed.
        ("\u00e9", "EQUALS", "e\u0301", FALSE),
        ("\U0001f600", "EQUALS", "\U0001f600", TRUE),
        (True, "EQUALS", True, TRUE),
        (False, "EQUALS", False, TRUE),
        (True, "EQUALS", False, FALSE),
        (5, "EQUALS", 5, TRUE),
        (5, "EQUALS", 6, FALSE),
        (5, "EQUALS", 5.0, TRUE),
        (5.0, "EQUALS", 5, TRUE),
        (0.1, "EQUALS", 0.1, TRUE),
        (-0.0, "EQUALS", 0, TRUE),
        (-0.0, "EQUALS", 0.0, TRUE),
        (0, "EQUALS", -0.0, TRUE),
        # Scalars of different kinds are unequal, and a bool is never a number.
        (True, "EQUALS", 1, FALSE),
        (1, "EQUALS", True, FALSE),
        (1.0, "EQUALS", True, FALSE),
        (False, "EQUALS", 0, FALSE),
        (0, "EQUALS", False, FALSE),
        ("1", "EQUALS", 1, FALSE),
        (1, "EQUALS", "1", FALSE),
        ("true", "EQUALS", True, FALSE),
        (True, "EQUALS", "true", FALSE),
        ("", "EQUALS", False, FALSE),
        ("", "EQUALS", 0, FALSE),
        # 2^53 + 1 has no float of its own; the comparison is exact all the same.
        (9007199254740993, "EQUALS", 9007199254740992.0, FALSE),
        (9007199254740992, "EQUALS", 9007199254740992.0, TRUE),
        (INT64_MAX, "EQUALS", INT64_MAX, TRUE),
        (INT64_MAX, "EQUALS", {"$int": "9223372036854775806"}, FALSE),
        (INT64_MIN, "EQUALS", INT64_MIN, TRUE),
        # 2^63 as a float is one above the greatest integer.
        (INT64_MAX, "EQUALS", 9223372036854775808.0, FALSE),
        (INT64_MIN, "EQUALS", -9223372036854775808.0, TRUE),
        (INFINITY, "EQUALS", 5, FALSE),
        (NAN, "EQUALS", 5, UNKNOWN),
        (NAN, "EQUALS", "a", UNKNOWN),
        (None, "EQUALS", "eu", UNKNOWN),
        (UNSUPPORTED, "EQUALS", "eu", UNKNOWN),
        (TWO_63, "EQUALS", 5, UNKNOWN),
        (["eu"], "EQUALS", "eu", UNKNOWN),
        ([], "EQUALS", "eu", UNKNOWN),
        ({"a": 1}, "EQUALS", "eu", UNKNOWN),
        # Such literals are refused when they are written; one that is there all the same is UNKNOWN.
        ("eu", "EQUALS", None, UNKNOWN),
        ("eu", "EQUALS", ["eu"], UNKNOWN),
        ({"a": 1}, "EQUALS", {"a": 1}, UNKNOWN),
    ],
    "not equals": [
        ("us", "NOT_EQUALS", "eu", TRUE),
        ("eu", "NOT_EQUALS", "eu", FALSE),
        (5, "NOT_EQUALS", 5.0, FALSE),
        (5, "NOT_EQUALS", 5.5, TRUE),
        (True, "NOT_EQUALS", 1, TRUE),
        (1, "NOT_EQUALS", True, TRUE),
        ("1", "NOT_EQUALS", 1, TRUE),
        (False, "NOT_EQUALS", "", TRUE),
        (True, "NOT_EQUALS", True, FALSE),
        (9007199254740993, "NOT_EQUALS", 9007199254740992.0, TRUE),
        (None, "NOT_EQUALS", "eu", UNKNOWN),
        (NAN, "NOT_EQUALS", 1, UNKNOWN),
        (["us"], "NOT_EQUALS", "eu", UNKNOWN),
        (UNSUPPORTED, "NOT_EQUALS", "eu", UNKNOWN),
    ],
    "order": [
        (4, "LESS_THAN", 5, TRUE),
        (5, "LESS_THAN", 5, FALSE),
        (6, "LESS_THAN", 5, FALSE),
        (4.9, "LESS_THAN", 5, TRUE),
        (-1, "LESS_THAN", 0.5, TRUE),
        (5, "LESS_THAN_OR_EQUAL", 5, TRUE),
        (5.0, "LESS_THAN_OR_EQUAL", 5, TRUE),
        (5.1, "LESS_THAN_OR_EQUAL", 5, FALSE),
        (6, "GREATER_THAN", 5, TRUE),
        (5, "GREATER_THAN", 5, FALSE),
        (5.5, "GREATER_THAN", 5, TRUE),
        (18, "GREATER_THAN_OR_EQUAL", 18, TRUE),
        (17.999, "GREATER_THAN_OR_EQUAL", 18, FALSE),
        (-0.0, "LESS_THAN", 0, FALSE),
        (-0.0, "GREATER_THAN_OR_EQUAL", 0, TRUE),
        (INFINITY, "GREATER_THAN", INT64_MAX, TRUE),
        (MINUS_INFINITY, "LESS_THAN", INT64_MIN, TRUE),
        # Exactly, beyond 2^53.
        (9007199254740993, "GREATER_THAN", 9007199254740992.0, TRUE),
        (9007199254740993, "LESS_THAN_OR_EQUAL", 9007199254740992.0, FALSE),
        (9007199254740992.0, "LESS_THAN", 9007199254740993, TRUE),
        (INT64_MAX, "LESS_THAN", 9223372036854775808.0, TRUE),
        (INT64_MAX, "GREATER_THAN_OR_EQUAL", 9223372036854775808.0, FALSE),
        # Strings by code point: upper case before lower, digits one by one, and U+FF5E before U+1F600, which
        # the order of UTF-16 units would turn round.
        ("a", "LESS_THAN", "b", TRUE),
        ("B", "LESS_THAN", "a", TRUE),
        ("10", "LESS_THAN", "9", TRUE),
        ("a", "LESS_THAN", "aa", TRUE),
        ("", "LESS_THAN", "a", TRUE),
        ("a", "LESS_THAN", "a", FALSE),
        ("a", "LESS_THAN_OR_EQUAL", "a", TRUE),
        ("b", "GREATER_THAN", "a", TRUE),
        ("\uff5e", "LESS_THAN", "\U0001f600", TRUE),
        ("\U0001f600", "GREATER_THAN_OR_EQUAL", "\uff5e", TRUE),
        ("z", "LESS_THAN", "\u00e9", TRUE),
        # Never mixed, never bools.
        ("5", "LESS_THAN", 6, UNKNOWN),
        (5, "LESS_THAN", "6", UNKNOWN),
        (False, "LESS_THAN", True, UNKNOWN),
        (True, "GREATER_THAN", 0, UNKNOWN),
        (1, "LESS_THAN", True, UNKNOWN),
        (None, "LESS_THAN", 5, UNKNOWN),
        (NAN, "LESS_THAN", 5, UNKNOWN),
        (NAN, "GREATER_THAN_OR_EQUAL", 5, UNKNOWN),
        ([4], "LESS_THAN", 5, UNKNOWN),
        ({"a": 4}, "LESS_THAN", 5, UNKNOWN),
        (UNSUPPORTED, "GREATER_THAN", 5, UNKNOWN),
        (TWO_63, "GREATER_THAN", 5, UNKNOWN),
    ],
    "text": [
        ("anna@example.com", "ENDS_WITH", "@example.com", TRUE),
        ("anna@example.org", "ENDS_WITH", "@example.com", FALSE),
        ("anna@EXAMPLE.com", "ENDS_WITH", "@example.com", FALSE),
        ("beta-1", "STARTS_WITH", "beta", TRUE),
        ("alpha-1", "STARTS_WITH", "beta", FALSE),
        ("Beta-1", "STARTS_WITH", "beta", FALSE),
        ("beta", "STARTS_WITH", "beta-1", FALSE),
        ("hello", "CONTAINS", "ell", TRUE),
        ("hello", "CONTAINS", "ELL", FALSE),
        ("hello", "CONTAINS", "", TRUE),
        ("", "STARTS_WITH", "", TRUE),
        ("", "CONTAINS", "a", FALSE),
        ("a.c", "CONTAINS", ".", TRUE),
        ("abc", "CONTAINS", "a.c", FALSE),
        ("caf\u00e9", "ENDS_WITH", "\u00e9", TRUE),
        (5, "STARTS_WITH", "5", UNKNOWN),
        ("5", "STARTS_WITH", 5, UNKNOWN),
        (True, "CONTAINS", "r", UNKNOWN),
        (None, "CONTAINS", "a", UNKNOWN),
        (["a"], "CONTAINS", "a", UNKNOWN),
        (NAN, "CONTAINS", "a", UNKNOWN),
        (UNSUPPORTED, "ENDS_WITH", "a", UNKNOWN),
    ],
    "matches": [
        ("release-42", "MATCHES", "[0-9]+", TRUE),
        ("release", "MATCHES", "[0-9]+", FALSE),
        ("xxabcxx", "MATCHES", "abc", TRUE),
        ("xxabcxx", "MATCHES", "^abc$", FALSE),
        ("abc", "MATCHES", "^abc$", TRUE),
        ("ABC", "MATCHES", "abc", FALSE),
        ("ABC", "MATCHES", "(?i)abc", TRUE),
        ("", "MATCHES", "", TRUE),
        ("anything", "MATCHES", "", TRUE),
        ("a\nb", "MATCHES", "a.b", FALSE),
        ("a\nb", "MATCHES", "(?s)a.b", TRUE),
        ("a\nb", "MATCHES", "^b", FALSE),
        ("a\nb", "MATCHES", "(?m)^b", TRUE),
        # RE2's $ is the end of the text, not the place before a last newline.
        ("abc\n", "MATCHES", "abc$", FALSE),
        # A dot is a code point.
        ("\U0001f600", "MATCHES", "^.$", TRUE),
        ("\u00e9", "MATCHES", r"^\pL$", TRUE),
        # \d and \w are ASCII.
        ("\u0663", "MATCHES", r"\d", FALSE),
        ("\u00e9", "MATCHES", r"^\w$", FALSE),
        # What RE2 does not have: look-around and references back.
        ("ab", "MATCHES", "a(?=b)", UNKNOWN),
        ("aa", "MATCHES", r"(a)\1", UNKNOWN),
        ("a", "MATCHES", "(", UNKNOWN),
        (42, "MATCHES", "42", UNKNOWN),
        ("42", "MATCHES", 42, UNKNOWN),
        (True, "MATCHES", "true", UNKNOWN),
        (None, "MATCHES", ".*", UNKNOWN),
        (["a"], "MATCHES", "a", UNKNOWN),
    ],
    "instant": [
        ("2026-01-01T00:00:00Z", "BEFORE", "2026-01-01T00:00:01Z", TRUE),
        ("2026-01-01T00:00:00Z", "BEFORE", "2026-01-01T00:00:00Z", FALSE),
        ("2026-01-01T00:00:00Z", "AFTER", "2026-01-01T00:00:00Z", FALSE),
        ("2026-01-01T00:00:01Z", "AFTER", "2026-01-01T00:00:00Z", TRUE),
        # The same instant in two zones; and an hour apart, whatever the wall clocks say.
        ("2026-01-01T01:00:00+01:00", "BEFORE", "2026-01-01T00:00:00Z", FALSE),
        ("2026-01-01T01:00:00+01:00", "AFTER", "2026-01-01T00:00:00Z", FALSE),
        ("2026-01-01T00:30:00+01:00", "BEFORE", "2026-01-01T00:00:00Z", TRUE),
        ("2025-12-31T20:00:00-05:00", "AFTER", "2026-01-01T00:00:00Z", TRUE),
        # Nanoseconds count; what is finer does not.
        ("2026-01-01T00:00:00.000000001Z", "AFTER", "2026-01-01T00:00:00Z", TRUE),
        ("2026-01-01T00:00:00.000000001Z", "BEFORE", "2026-01-01T00:00:00.000000002Z", TRUE),
        ("2026-01-01T00:00:00.0000000019Z", "AFTER", "2026-01-01T00:00:00.000000001Z", FALSE),
        ("2026-01-01T00:00:00.5Z", "BEFORE", "2026-01-01T00:00:00.500000Z", FALSE),
        # A date alone is midnight UTC.
        ("2026-01-01", "BEFORE", "2026-01-01T00:00:00.001Z", TRUE),
        ("2026-01-01", "AFTER", "2025-12-31T23:59:59Z", TRUE),
        ("2026-01-02", "AFTER", "2026-01-01", TRUE),
        ("2024-02-29", "AFTER", "2024-02-28", TRUE),
        # Epoch seconds: 1767225600 is 2026-01-01T00:00:00Z.
        (1767225600, "BEFORE", "2026-01-01T00:00:01Z", TRUE),
        (1767225600, "BEFORE", "2026-01-01T00:00:00Z", FALSE),
        (1767225600, "AFTER", "2026-01-01T00:00:00Z", FALSE),
        (1767225600.5, "AFTER", "2026-01-01T00:00:00.499999999Z", TRUE),
        (1767225600.5, "AFTER", "2026-01-01T00:00:00.5Z", FALSE),
        ("2026-01-01T00:00:00Z", "AFTER", 1767225599, TRUE),
        (0, "BEFORE", "1970-01-01T00:00:00.000000001Z", TRUE),
        (-1, "BEFORE", "1970-01-01", TRUE),
        (-0.5, "AFTER", "1969-12-31T23:59:59Z", TRUE),
        (5, "BEFORE", 6, TRUE),
        # RFC 3339 allows small letters and, for reading, a space.
        ("2026-01-01t00:00:00z", "AFTER", "2025-12-31", TRUE),
        ("2026-01-01 00:00:00Z", "AFTER", "2025-12-31", TRUE),
        ("0001-01-01", "BEFORE", "2026-01-01", TRUE),
        ("9999-12-31T23:59:59.999999999Z", "AFTER", "2026-01-01", TRUE),
        # Not instants: no offset, no such day or time, other formats, outside the years 1 to 9999.
        ("2026-01-01T00:00:00", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-02-29", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-13-01", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-01-01T24:00:00Z", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-01-01T00:60:00Z", "BEFORE", "2027-01-01", UNKNOWN),
        ("2016-12-31T23:59:60Z", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-01-01T00:00Z", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-01-01T00:00:00.Z", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-01-01T00:00:00+0100", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-01-01T00:00:00+24:00", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-1-1", "BEFORE", "2027-01-01", UNKNOWN),
        ("20260101", "BEFORE", "2027-01-01", UNKNOWN),
        (" 2026-01-01", "BEFORE", "2027-01-01", UNKNOWN),
        ("2026-01-01\n", "BEFORE", "2027-01-01", UNKNOWN),
        ("\u0662026-01-01", "BEFORE", "2027-01-01", UNKNOWN),
        ("0000-01-01", "BEFORE", "2027-01-01", UNKNOWN),
        ("0001-01-01T00:00:00+01:00", "BEFORE", "2027-01-01", UNKNOWN),
        ("9999-12-31T23:59:59-01:00", "AFTER", "2027-01-01", UNKNOWN),
        ("yesterday", "BEFORE", "2027-01-01", UNKNOWN),
        ("1767225600", "BEFORE", "2027-01-01", UNKNOWN),
        ("", "BEFORE", "2027-01-01", UNKNOWN),
        (INT64_MAX, "AFTER", "2026-01-01", UNKNOWN),
        (INFINITY, "AFTER", "2026-01-01", UNKNOWN),
        (NAN, "AFTER", "2026-01-01", UNKNOWN),
        (True, "AFTER", "1970-01-01", UNKNOWN),
        (None, "AFTER", "2026-01-01", UNKNOWN),
        (["2026-01-01"], "AFTER", "2025-01-01", UNKNOWN),
        ("2026-01-01", "AFTER", "last year", UNKNOWN),
    ],
    "semver": [
        ("1.2.3", "SEMVER_EQUALS", "1.2.3", TRUE),
        ("1.2.3", "SEMVER_EQUALS", "1.2.4", FALSE),
        ("v1.2.3", "SEMVER_EQUALS", "1.2.3", TRUE),
        ("1.2", "SEMVER_EQUALS", "1.2.0", TRUE),
        ("1", "SEMVER_EQUALS", "v1.0.0", TRUE),
        ("1.2.3+build.5", "SEMVER_EQUALS", "1.2.3+other", TRUE),
        ("1.2.3-rc.1", "SEMVER_EQUALS", "1.2.3", FALSE),
        ("2.1.0", "SEMVER_GREATER_THAN", "2.0.9", TRUE),
        ("2.10.0", "SEMVER_GREATER_THAN", "2.9.0", TRUE),
        ("2.1.0", "SEMVER_GREATER_THAN", "2.1", FALSE),
        ("10.0.0", "SEMVER_GREATER_THAN", "9.99.99", TRUE),
        ("2.1.0", "SEMVER_GREATER_THAN_OR_EQUAL", "2.1", TRUE),
        ("2.0.9", "SEMVER_GREATER_THAN_OR_EQUAL", "2.1", FALSE),
        ("2.0.9", "SEMVER_LESS_THAN", "2.1", TRUE),
        ("2.1.0", "SEMVER_LESS_THAN", "2.1.0", FALSE),
        ("2.1.0", "SEMVER_LESS_THAN_OR_EQUAL", "2.1.0", TRUE),
        ("2.1.1", "SEMVER_LESS_THAN_OR_EQUAL", "2.1.0", FALSE),
        # The chain of semver.org, section 11: alpha < alpha.1 < alpha.beta < beta < beta.2 < beta.11 < rc.1.
        ("1.0.0-alpha", "SEMVER_LESS_THAN", "1.0.0-alpha.1", TRUE),
        ("1.0.0-alpha.1", "SEMVER_LESS_THAN", "1.0.0-alpha.beta", TRUE),
        ("1.0.0-alpha.beta", "SEMVER_LESS_THAN", "1.0.0-beta", TRUE),
        ("1.0.0-beta", "SEMVER_LESS_THAN", "1.0.0-beta.2", TRUE),
        ("1.0.0-beta.2", "SEMVER_LESS_THAN", "1.0.0-beta.11", TRUE),
        ("1.0.0-beta.11", "SEMVER_LESS_THAN", "1.0.0-rc.1", TRUE),
        ("1.0.0-rc.1", "SEMVER_LESS_THAN", "1.0.0", TRUE),
        ("1.0.0", "SEMVER_GREATER_THAN", "1.0.0-rc.1", TRUE),
        ("1.0.0-Beta", "SEMVER_LESS_THAN", "1.0.0-alpha", TRUE),
        ("1.0.0--", "SEMVER_LESS_THAN", "1.0.0-1a", TRUE),
        ("1.0.0-0", "SEMVER_LESS_THAN", "1.0.0-1", TRUE),
        ("2-rc.1", "SEMVER_LESS_THAN", "2", TRUE),
        ("1.2-rc.1+b", "SEMVER_EQUALS", "1.2.0-rc.1", TRUE),
        ("99999999999999999999.0.0", "SEMVER_GREATER_THAN", "9999999999999999999.0.0", TRUE),
        ("1.0.0-99999999999999999999", "SEMVER_LESS_THAN", "1.0.0-100000000000000000000", TRUE),
        # Not versions.
        ("01.2.3", "SEMVER_EQUALS", "1.2.3", UNKNOWN),
        ("1.02.3", "SEMVER_EQUALS", "1.2.3", UNKNOWN),
        ("1.0.0-01", "SEMVER_LESS_THAN", "1.0.0", UNKNOWN),
        ("1.0.0-", "SEMVER_LESS_THAN", "1.0.0", UNKNOWN),
        ("1.0.0-a..b", "SEMVER_LESS_THAN", "1.0.0", UNKNOWN),
        ("1.2.3.4", "SEMVER_EQUALS", "1.2.3", UNKNOWN),
        ("1.", "SEMVER_EQUALS", "1.0.0", UNKNOWN),
        ("V1.2.3", "SEMVER_EQUALS", "1.2.3", UNKNOWN),
        ("vv1.2.3", "SEMVER_EQUALS", "1.2.3", UNKNOWN),
        (" 1.2.3", "SEMVER_EQUALS", "1.2.3", UNKNOWN),
        ("1.2.3\n", "SEMVER_EQUALS", "1.2.3", UNKNOWN),
        ("-1.2.3", "SEMVER_EQUALS", "1.2.3", UNKNOWN),
        ("1.x", "SEMVER_EQUALS", "1.0.0", UNKNOWN),
        ("latest", "SEMVER_GREATER_THAN", "1.0.0", UNKNOWN),
        ("", "SEMVER_EQUALS", "1.0.0", UNKNOWN),
        (2, "SEMVER_EQUALS", "2.0.0", UNKNOWN),
        (2.1, "SEMVER_EQUALS", "2.1.0", UNKNOWN),
        (True, "SEMVER_EQUALS", "1.0.0", UNKNOWN),
        (None, "SEMVER_EQUALS", "1.0.0", UNKNOWN),
        (["1.0.0"], "SEMVER_EQUALS", "1.0.0", UNKNOWN),
        ("1.0.0", "SEMVER_EQUALS", "one", UNKNOWN),
        ("1.0.0", "SEMVER_GREATER_THAN", 1, UNKNOWN),
    ],
    "network": [
        ("10.1.2.3", "IP_IN", "10.0.0.0/8", TRUE),
        ("11.1.2.3", "IP_IN", "10.0.0.0/8", FALSE),
        ("10.0.0.1", "IP_IN", "10.0.0.1", TRUE),
        ("10.0.0.1", "IP_IN", "0.0.0.0/0", TRUE),
        ("::1", "IP_IN", "0.0.0.0/0", FALSE),
        ("2001:db8::1", "IP_IN", "2001:db8::/32", TRUE),
        ("2001:DB8:0:0::1", "IP_IN", "2001:db8::/32", TRUE),
        # Bits beyond the prefix do not count.
        ("10.1.2.3", "IP_IN", "10.9.9.9/8", TRUE),
        # What a dual-stack server reports for an IPv4 client.
        ("::ffff:10.1.2.3", "IP_IN", "10.0.0.0/8", TRUE),
        ("::ffff:10.1.2.3", "IP_IN", "::ffff:0:0/96", TRUE),
        ("10.1.2.3", "IP_IN", "::ffff:0:0/96", FALSE),
        # Not addresses, or not networks.
        ("10.1.2", "IP_IN", "10.0.0.0/8", UNKNOWN),
        ("10.1.2.256", "IP_IN", "10.0.0.0/8", UNKNOWN),
        ("010.1.2.3", "IP_IN", "10.0.0.0/8", UNKNOWN),
        (" 10.1.2.3", "IP_IN", "10.0.0.0/8", UNKNOWN),
        ("10.1.2.3/32", "IP_IN", "10.0.0.0/8", UNKNOWN),
        ("10.1.2.3:80", "IP_IN", "10.0.0.0/8", UNKNOWN),
        ("fe80::1%eth0", "IP_IN", "fe80::/10", UNKNOWN),
        ("localhost", "IP_IN", "127.0.0.0/8", UNKNOWN),
        (167838211, "IP_IN", "10.0.0.0/8", UNKNOWN),
        (None, "IP_IN", "10.0.0.0/8", UNKNOWN),
        (["10.1.2.3"], "IP_IN", "10.0.0.0/8", UNKNOWN),
        ("10.1.2.3", "IP_IN", "10.0.0.0/33", UNKNOWN),
        ("10.1.2.3", "IP_IN", "10.0.0.0/255.0.0.0", UNKNOWN),
        ("10.1.2.3", "IP_IN", "office", UNKNOWN),
    ],
}

# Left value, operator, literal list, truth.
LISTS: dict[str, list[tuple[Json, str, list[Json], str]]] = {
    "in": [
        ("pro", "IN", ["pro", "team"], TRUE),
        ("free", "IN", ["pro", "team"], FALSE),
        ("pro", "IN", [], FALSE),
        (5, "IN", [1, 5.0], TRUE),
        (5.0, "IN", [1, 5], TRUE),
        (True, "IN", [1, "true"], FALSE),
        (True, "IN", [True], TRUE),
        (1, "IN", [True, "1"], FALSE),
        ("1", "IN", [1], FALSE),
        ("1", "IN", [1, "1"], TRUE),
        (9007199254740993, "IN", [9007199254740992.0], FALSE),
        ("", "IN", [""], TRUE),
        (None, "IN", ["pro"], UNKNOWN),
        (None, "IN", [], UNKNOWN),
        (NAN, "IN", [1], UNKNOWN),
        (["pro"], "IN", ["pro"], UNKNOWN),
        ({"pro": 1}, "IN", ["pro"], UNKNOWN),
        (UNSUPPORTED, "IN", ["pro"], UNKNOWN),
        # A list with what is no scalar is refused at write; as a whole it is no operand that IN takes.
        ("pro", "IN", ["pro", None], UNKNOWN),
        ("pro", "IN", ["pro", ["x"]], UNKNOWN),
    ],
    "not in": [
        ("free", "NOT_IN", ["pro", "team"], TRUE),
        ("pro", "NOT_IN", ["pro", "team"], FALSE),
        ("pro", "NOT_IN", [], TRUE),
        (5, "NOT_IN", [5.0], FALSE),
        (True, "NOT_IN", [1], TRUE),
        (1, "NOT_IN", [True], TRUE),
        ("1", "NOT_IN", [1], TRUE),
        (None, "NOT_IN", ["pro"], UNKNOWN),
        (None, "NOT_IN", [], UNKNOWN),
        (NAN, "NOT_IN", [1], UNKNOWN),
        ([], "NOT_IN", ["pro"], UNKNOWN),
    ],
    "any of the literals": [
        ("beta-1", "STARTS_WITH", ["alpha", "beta"], TRUE),
        ("gamma-1", "STARTS_WITH", ["alpha", "beta"], FALSE),
        ("gamma-1", "STARTS_WITH", [], FALSE),
        ("a@example.org", "ENDS_WITH", [".com", ".org"], TRUE),
        ("a@example.net", "ENDS_WITH", [".com", ".org"], FALSE),
        ("hello", "CONTAINS", ["x", "ll"], TRUE),
        ("hello", "CONTAINS", ["x", "y"], FALSE),
        (None, "STARTS_WITH", [], UNKNOWN),
        (5, "STARTS_WITH", [], UNKNOWN),
        ("beta-1", "STARTS_WITH", ["beta", 5], UNKNOWN),
        ("10.1.2.3", "IP_IN", ["192.168.0.0/16", "10.0.0.0/8"], TRUE),
        ("172.16.0.1", "IP_IN", ["192.168.0.0/16", "10.0.0.0/8"], FALSE),
        ("::1", "IP_IN", ["10.0.0.0/8", "::1/128"], TRUE),
        ("10.1.2.3", "IP_IN", [], FALSE),
        ("office", "IP_IN", [], UNKNOWN),
        (None, "IP_IN", [], UNKNOWN),
        ("10.1.2.3", "IP_IN", ["10.0.0.0/8", "office"], UNKNOWN),
    ],
    "relations": [
        (["a", "b"], "HAS_ANY", ["b", "c"], TRUE),
        (["a", "b"], "HAS_ANY", ["c"], FALSE),
        (["a", "b"], "HAS_ANY", [], FALSE),
        ([], "HAS_ANY", ["a"], FALSE),
        ([1, 2], "HAS_ANY", [2.0], TRUE),
        ([True], "HAS_ANY", [1], FALSE),
        ([1], "HAS_ANY", [True], FALSE),
        (["1"], "HAS_ANY", [1], FALSE),
        ([1, "1"], "HAS_ANY", ["1"], TRUE),
        (["a", None], "HAS_ANY", ["a"], TRUE),
        (["a", "b", "c"], "HAS_ALL", ["a", "c"], TRUE),
        (["a", "b"], "HAS_ALL", ["a", "c"], FALSE),
        (["a"], "HAS_ALL", [], TRUE),
        ([], "HAS_ALL", [], TRUE),
        ([], "HAS_ALL", ["a"], FALSE),
        (["a", "a"], "HAS_ALL", ["a"], TRUE),
        (["a"], "HAS_ALL", ["a", "a"], TRUE),
        ([1], "HAS_ALL", [1, 1.0], TRUE),
        (["a", "b"], "HAS_NONE", ["c"], TRUE),
        (["a", "b"], "HAS_NONE", ["b", "c"], FALSE),
        (["a"], "HAS_NONE", [], TRUE),
        ([], "HAS_NONE", ["a"], TRUE),
        ([None], "HAS_NONE", ["a"], TRUE),
        ([True], "HAS_NONE", [1], TRUE),
        # Not lists, or lists of more than scalars.
        ("a", "HAS_ANY", ["a"], UNKNOWN),
        (5, "HAS_ALL", [5], UNKNOWN),
        ("a", "HAS_NONE", ["b"], UNKNOWN),
        (None, "HAS_ANY", ["a"], UNKNOWN),
        (None, "HAS_NONE", ["a"], UNKNOWN),
        ({"a": 1}, "HAS_ANY", ["a"], UNKNOWN),
        ([["a"]], "HAS_ANY", ["a"], UNKNOWN),
        (["a", {"b": 1}], "HAS_ANY", ["a"], UNKNOWN),
        (["a", UNSUPPORTED], "HAS_ANY", ["a"], UNKNOWN),
        (["a", TWO_63], "HAS_ANY", ["a"], UNKNOWN),
        (["a", NAN], "HAS_ANY", ["a"], UNKNOWN),
        (["a", NAN], "HAS_NONE", ["b"], UNKNOWN),
        (["a"], "HAS_ANY", ["a", None], UNKNOWN),
    ],
}

# Value of "x", truth of exists(x).
EXISTENCE: list[tuple[Json, str]] = [
    ("eu", TRUE),
    ("", TRUE),
    (0, TRUE),
    (False, TRUE),
    ([], TRUE),
    ([None], TRUE),
    ({}, TRUE),
    ({"a": None}, TRUE),
    (NAN, TRUE),
    (INFINITY, TRUE),
    (INT64_MAX, TRUE),
    (None, FALSE),
    (UNSUPPORTED, FALSE),
    (TWO_63, FALSE),
    ([["a"]], FALSE),
    ([{"a": 1}], FALSE),
]

A = cmp("a", "EQUALS", True)
B = cmp("b", "EQUALS", True)
C = cmp("c", "EQUALS", True)
T, F = {"allOf": {}}, {"anyOf": {}}
U = cmp("nowhere", "EQUALS", True)

LOGIC: list[tuple[str, Condition, Json, str]] = [
    ("an empty conjunction", T, {}, TRUE),
    ("an empty disjunction", F, {}, FALSE),
    ("a missing attribute", U, {}, UNKNOWN),
    ("not true", no(T), {}, FALSE),
    ("not false", no(F), {}, TRUE),
    ("not unknown", no(U), {}, UNKNOWN),
    ("not not true", no(no(A)), {"a": True}, TRUE),
    ("true and true", both(T, T), {}, TRUE),
    ("true and false", both(T, F), {}, FALSE),
    ("true and unknown", both(T, U), {}, UNKNOWN),
    ("unknown and true", both(U, T), {}, UNKNOWN),
    ("false and unknown", both(F, U), {}, FALSE),
    ("unknown and false", both(U, F), {}, FALSE),
    ("unknown and unknown", both(U, U), {}, UNKNOWN),
    ("true and unknown and false", both(T, U, F), {}, FALSE),
    ("one part and", both(T), {}, TRUE),
    ("one unknown part and", both(U), {}, UNKNOWN),
    ("true or false", either(T, F), {}, TRUE),
    ("false or false", either(F, F), {}, FALSE),
    ("false or unknown", either(F, U), {}, UNKNOWN),
    ("unknown or false", either(U, F), {}, UNKNOWN),
    ("true or unknown", either(T, U), {}, TRUE),
    ("unknown or true", either(U, T), {}, TRUE),
    ("unknown or unknown", either(U, U), {}, UNKNOWN),
    ("false or unknown or true", either(F, U, T), {}, TRUE),
    ("one part or", either(F), {}, FALSE),
    ("not (true and unknown)", no(both(T, U)), {}, UNKNOWN),
    ("not (false and unknown)", no(both(F, U)), {}, TRUE),
    ("not (true or unknown)", no(either(T, U)), {}, FALSE),
    ("not (false or unknown)", no(either(F, U)), {}, UNKNOWN),
    # No excluded middle: neither a missing attribute nor its opposite is known.
    ("unknown or not unknown", either(U, no(U)), {}, UNKNOWN),
    ("unknown and not unknown", both(U, no(U)), {}, UNKNOWN),
    ("a or (b and c), by b and c", either(A, both(B, C)), {"a": False, "b": True, "c": True}, TRUE),
    ("a or (b and c), none", either(A, both(B, C)), {"a": False, "b": True, "c": False}, FALSE),
    ("a or (b and c), c missing", either(A, both(B, C)), {"a": False, "b": True}, UNKNOWN),
    ("a or (b and c), c missing, b false", either(A, both(B, C)), {"a": False, "b": False}, FALSE),
    ("missing guards", both(exists("a"), A), {}, FALSE),
    ("missing or not equal", either(no(exists("a")), cmp("a", "NOT_EQUALS", "x")), {}, TRUE),
    ("a condition of no kind", {}, {}, UNKNOWN),
    ("a condition of no kind, or true", either({}, T), {}, TRUE),
    ("a condition of no kind, and false", both({}, F), {}, FALSE),
    (
        "an operator of a newer version",
        {"comparison": {"left": {"attribute": "x"}, "op": 999, "right": {"literal": {"stringValue": "a"}}}},
        {"x": "a"},
        UNKNOWN,
    ),
    (
        "no operator",
        {"comparison": {"left": {"attribute": "x"}, "right": {"literal": {"stringValue": "a"}}}},
        {"x": "a"},
        UNKNOWN,
    ),
    (
        "a left operand of no kind",
        {"comparison": {"left": {}, "op": "OPERATOR_EQUALS", "right": {"literal": {"stringValue": "a"}}}},
        {"x": "a"},
        UNKNOWN,
    ),
    (
        "a right operand of no kind",
        {"comparison": {"left": {"attribute": "x"}, "op": "OPERATOR_EQUALS", "right": {}}},
        {"x": "a"},
        UNKNOWN,
    ),
    (
        "no right operand",
        {"comparison": {"left": {"attribute": "x"}, "op": "OPERATOR_EQUALS"}},
        {"x": "a"},
        UNKNOWN,
    ),
    ("a list where one operand belongs", lst("x", "EQUALS", ["a"]), {"x": "a"}, UNKNOWN),
    ("one operand where a list belongs", cmp("x", "IN", "a"), {"x": "a"}, UNKNOWN),
    ("a list literal where a list belongs", cmp("x", "IN", ["a"]), {"x": "a"}, UNKNOWN),
    ("one operand for a relation", cmp("x", "HAS_ANY", "a"), {"x": ["a"]}, UNKNOWN),
    ("attributes on both sides, equal", cmp("x", "EQUALS", Attr("y")), {"x": "a", "y": "a"}, TRUE),
    ("attributes on both sides, unequal", cmp("x", "EQUALS", Attr("y")), {"x": "a", "y": "b"}, FALSE),
    ("attributes on both sides, right missing", cmp("x", "EQUALS", Attr("y")), {"x": "a"}, UNKNOWN),
    ("attributes on both sides, NaN", cmp("x", "LESS_THAN", Attr("y")), {"x": 1, "y": NAN}, UNKNOWN),
    ("both NaN", cmp("x", "EQUALS", Attr("y")), {"x": NAN, "y": NAN}, UNKNOWN),
    ("both infinite", cmp("x", "EQUALS", Attr("y")), {"x": INFINITY, "y": INFINITY}, TRUE),
    ("attributes in order", cmp("x", "LESS_THAN", Attr("y")), {"x": 1, "y": 2.5}, TRUE),
    ("a suffix from the context", cmp("x", "ENDS_WITH", Attr("y")), {"x": "a@b.c", "y": "@b.c"}, TRUE),
    ("a pattern from the context", cmp("x", "MATCHES", Attr("y")), {"x": "abc", "y": "^a"}, TRUE),
    ("a bad pattern from the context", cmp("x", "MATCHES", Attr("y")), {"x": "abc", "y": "("}, UNKNOWN),
    ("a network from the context", cmp("x", "IP_IN", Attr("y")), {"x": "10.0.0.1", "y": "10.0.0.0/8"}, TRUE),
    ("lists are no operands of equals", cmp("x", "EQUALS", Attr("y")), {"x": ["a"], "y": ["a"]}, UNKNOWN),
    ("epoch seconds on both sides", cmp("x", "BEFORE", Attr("y")), {"x": 1, "y": 1.5}, TRUE),
]

PLAN = cmp("user.plan", "EQUALS", "pro")

LOOKUPS: list[tuple[str, Condition, Json, str]] = [
    ("the walk through the mappings", PLAN, {"user": {"plan": "pro"}}, TRUE),
    ("the flat key", PLAN, {"user.plan": "pro"}, TRUE),
    ("the flat key before the walk", PLAN, {"user.plan": "pro", "user": {"plan": "free"}}, TRUE),
    ("a null flat key hides the walk", PLAN, {"user.plan": None, "user": {"plan": "pro"}}, UNKNOWN),
    ("a walk that ends early", PLAN, {"user": {}}, UNKNOWN),
    ("a walk that meets a string", PLAN, {"user": "u1"}, UNKNOWN),
    ("a walk that meets null", PLAN, {"user": None}, UNKNOWN),
    ("a walk does not enter lists", cmp("user.0", "EQUALS", "pro"), {"user": ["pro"]}, UNKNOWN),
    ("no half flat key", cmp("a.b.c", "EQUALS", 1), {"a.b": {"c": 1}}, UNKNOWN),
    ("no half flat key inside", cmp("a.b.c", "EQUALS", 1), {"a": {"b.c": 1}}, UNKNOWN),
    ("three levels", cmp("a.b.c", "EQUALS", 1), {"a": {"b": {"c": 1}}}, TRUE),
    ("no layers", PLAN, [], UNKNOWN),
    ("the first layer wins", PLAN, [{"user.plan": "pro"}, {"user.plan": "free"}], TRUE),
    ("the first layer wins against", PLAN, [{"user.plan": "free"}, {"user.plan": "pro"}], FALSE),
    ("the second layer where the first has none", PLAN, [{"region": "eu"}, {"user.plan": "pro"}], TRUE),
    (
        "layers are not merged, yet looked through",
        PLAN,
        [{"user": {"id": "u1"}}, {"user": {"plan": "pro"}}],
        TRUE,
    ),
    (
        "a walk in the first, a flat key in the second",
        PLAN,
        [{"user": {"plan": "pro"}}, {"user.plan": "x"}],
        TRUE,
    ),
    ("null hides further layers", PLAN, [{"user.plan": None}, {"user.plan": "pro"}], UNKNOWN),
    ("a walked null hides further layers", PLAN, [{"user": {"plan": None}}, {"user.plan": "pro"}], UNKNOWN),
    (
        "an unsupported type hides further layers",
        PLAN,
        [{"user.plan": UNSUPPORTED}, {"user.plan": "pro"}],
        UNKNOWN,
    ),
    (
        "too great an integer hides further layers",
        cmp("n", "GREATER_THAN", 1),
        [{"n": TWO_63}, {"n": 5}],
        UNKNOWN,
    ),
    ("a null on the way hides nothing", PLAN, [{"user": None}, {"user.plan": "pro"}], TRUE),
    ("a string on the way hides nothing", PLAN, [{"user": "u1"}, {"user": {"plan": "pro"}}], TRUE),
    (
        "an unsupported type on the way hides nothing",
        PLAN,
        [{"user": UNSUPPORTED}, {"user.plan": "pro"}],
        TRUE,
    ),
    (
        "exists finds what is hidden missing",
        exists("user.plan"),
        [{"user.plan": None}, {"user.plan": "pro"}],
        FALSE,
    ),
    ("exists of a mapping", exists("user"), {"user": {"plan": "pro"}}, TRUE),
    ("exists of a path", exists("user.plan"), {"user": {"plan": "pro"}}, TRUE),
    ("exists of a path that ends early", exists("user.plan"), {"user": {}}, FALSE),
    ("exists of nothing", exists("user.plan"), {}, FALSE),
    ("a third layer", PLAN, [{}, {"user": 5}, {"user": {"plan": "pro"}}], TRUE),
    ("an empty string is there", cmp("x", "EQUALS", "a"), [{"x": ""}, {"x": "a"}], FALSE),
    ("false is there", cmp("x", "EQUALS", True), [{"x": False}, {"x": True}], FALSE),
    ("zero is there", cmp("x", "EQUALS", 1), [{"x": 0}, {"x": 1}], FALSE),
    ("an empty list is there", lst("x", "HAS_ANY", ["a"]), [{"x": []}, {"x": ["a"]}], FALSE),
    ("names are case-sensitive", cmp("Region", "EQUALS", "eu"), {"region": "eu"}, UNKNOWN),
    ("names beyond ASCII", cmp("straße", "EQUALS", "eu"), {"straße": "eu"}, TRUE),
]

# Buckets: "flag:u1" 10057, "flag:u2" 85060, "flag:42" 81886, "flag:-7" 11391, "flag:0" 19695, ":u9" 5176,
# "flag:\u00e9" 58564, "flag:\u65e5\u672c" 78722, "flag:\U0001f600" 12562, "flag:9007199254740991" 15241,
# "checkout:u1" 2840, "flag:550e8400-e29b-41d4-a716-446655440000" 88393.
PERCENTAGES: list[tuple[str, Condition, Json, str]] = [
    ("inside", percent("id", "flag", 0, 25000), {"id": "u1"}, TRUE),
    ("outside", percent("id", "flag", 0, 25000), {"id": "u2"}, FALSE),
    ("the lower bound is inside", percent("id", "flag", 10057, 10058), {"id": "u1"}, TRUE),
    ("the upper bound is outside", percent("id", "flag", 0, 10057), {"id": "u1"}, FALSE),
    ("one above the lower bound", percent("id", "flag", 10058, 100000), {"id": "u1"}, FALSE),
    ("nobody", percent("id", "flag", 0, 0), {"id": "u1"}, FALSE),
    ("an empty range", percent("id", "flag", 10057, 10057), {"id": "u1"}, FALSE),
    ("everybody", percent("id", "flag", 0, 100000), {"id": "u2"}, TRUE),
    ("another salt, another bucket", percent("id", "checkout", 0, 5000), {"id": "u1"}, TRUE),
    ("another salt, outside", percent("id", "flag", 0, 5000), {"id": "u1"}, FALSE),
    ("an empty salt", percent("id", "", 5176, 5177), {"id": "u9"}, TRUE),
    ("an int is its decimal text", percent("id", "flag", 81886, 81887), {"id": 42}, TRUE),
    ("the same unit as a string", percent("id", "flag", 81886, 81887), {"id": "42"}, TRUE),
    ("the same unit as a float", percent("id", "flag", 81886, 81887), {"id": 42.0}, TRUE),
    ("a negative int", percent("id", "flag", 11391, 11392), {"id": -7}, TRUE),
    ("a negative float", percent("id", "flag", 11391, 11392), {"id": -7.0}, TRUE),
    ("zero", percent("id", "flag", 19695, 19696), {"id": 0}, TRUE),
    ("minus zero is zero", percent("id", "flag", 19695, 19696), {"id": -0.0}, TRUE),
    ("the greatest float", percent("id", "flag", 15241, 15242), {"id": 9007199254740991.0}, TRUE),
    ("UTF-8, two octets", percent("id", "flag", 58564, 58565), {"id": "é"}, TRUE),
    ("UTF-8, three octets", percent("id", "flag", 78722, 78723), {"id": "日本"}, TRUE),
    ("UTF-8, four octets", percent("id", "flag", 12562, 12563), {"id": "😀"}, TRUE),
    (
        "a UUID as text",
        percent("id", "flag", 88393, 88394),
        {"id": "550e8400-e29b-41d4-a716-446655440000"},
        TRUE,
    ),
    ("a path", percent("user.id", "flag", 10057, 10058), {"user": {"id": "u1"}}, TRUE),
    ("a missing unit", percent("id", "flag", 0, 100000), {}, UNKNOWN),
    ("a null unit", percent("id", "flag", 0, 100000), {"id": None}, UNKNOWN),
    ("an empty unit", percent("id", "flag", 0, 100000), {"id": ""}, UNKNOWN),
    ("a bool is no unit", percent("id", "flag", 0, 100000), {"id": True}, UNKNOWN),
    ("a fraction is no unit", percent("id", "flag", 0, 100000), {"id": 1.5}, UNKNOWN),
    ("2^53 as a float is no unit", percent("id", "flag", 0, 100000), {"id": 9007199254740992.0}, UNKNOWN),
    ("NaN is no unit", percent("id", "flag", 0, 100000), {"id": NAN}, UNKNOWN),
    ("infinity is no unit", percent("id", "flag", 0, 100000), {"id": INFINITY}, UNKNOWN),
    ("2^63 is no unit", percent("id", "flag", 0, 100000), {"id": TWO_63}, UNKNOWN),
    ("a list is no unit", percent("id", "flag", 0, 100000), {"id": ["u1"]}, UNKNOWN),
    ("a mapping is no unit", percent("id", "flag", 0, 100000), {"id": {"u": 1}}, UNKNOWN),
    ("an unsupported type is no unit", percent("id", "flag", 0, 100000), {"id": UNSUPPORTED}, UNKNOWN),
    ("not of a missing unit", no(percent("id", "flag", 0, 0)), {}, UNKNOWN),
    # Published values.
    (
        "Replane's Python client",
        percent("id", "seed", 89390, 89391, "REPLANE_PYTHON"),
        {"id": "user-1"},
        TRUE,
    ),
    ("Replane's JavaScript client", percent("id", "seed", 3475, 3476, "REPLANE"), {"id": "user-1"}, TRUE),
    (
        "Replane's Python client, the next bucket",
        percent("id", "test-seed", 92991, 100000, "REPLANE_PYTHON"),
        {"id": "user-123"},
        FALSE,
    ),
    (
        "Replane's JavaScript client, the next bucket",
        percent("id", "feature-x", 27797, 100000, "REPLANE"),
        {"id": "user-123"},
        FALSE,
    ),
    (
        "an algorithm of a newer version",
        {
            "percentage": {
                "attribute": "id",
                "salt": "s",
                "algorithm": 99,
                "fromBucket": 0,
                "toBucket": 100000,
            }
        },
        {"id": "u1"},
        UNKNOWN,
    ),
]


def on(name: str, condition: Condition | None = None, default: bool = False, **more: Json) -> Json:
    """A bool setting that *condition* turns on."""
    return setting(name, "bool", default, rule("on", True, condition), **more)


BETA = seg("beta", cmp("email", "ENDS_WITH", "@example.com"))

# Name, condition, context, truth, settings, segments.
REFERENCES: list[tuple[str, Condition, Json, str, list[Json], list[Json]]] = [
    ("a segment that holds", segment("beta"), {"email": "a@example.com"}, TRUE, [], [BETA]),
    ("a segment that does not hold", segment("beta"), {"email": "a@example.org"}, FALSE, [], [BETA]),
    ("a segment that cannot be told", segment("beta"), {}, UNKNOWN, [], [BETA]),
    ("a missing segment", segment("gamma"), {"email": "a@example.com"}, UNKNOWN, [], [BETA]),
    ("not a missing segment", no(segment("gamma")), {}, UNKNOWN, [], [BETA]),
    (
        "a segment of a segment",
        segment("outer"),
        {"email": "a@example.com", "region": "eu"},
        TRUE,
        [],
        [BETA, seg("outer", both(segment("beta"), cmp("region", "EQUALS", "eu")))],
    ),
    (
        "the same segment twice",
        both(segment("beta"), segment("beta")),
        {"email": "a@example.com"},
        TRUE,
        [],
        [BETA],
    ),
    ("a segment that refers to itself", segment("s"), {}, UNKNOWN, [], [seg("s", segment("s"))]),
    (
        "a segment on a cycle, although its other part would decide",
        segment("s"),
        {},
        UNKNOWN,
        [],
        [seg("s", either(T, segment("t"))), seg("t", segment("s"))],
    ),
    (
        "a segment that leads to a cycle, but is not on it",
        segment("r"),
        {},
        TRUE,
        [],
        [seg("r", either(T, segment("s"))), seg("s", segment("s"))],
    ),
    (
        "a setting that is on",
        cmp(Ref("other"), "EQUALS", True),
        {},
        TRUE,
        [setting("other", "bool", True)],
        [],
    ),
    (
        "a setting that is off",
        cmp(Ref("other"), "EQUALS", True),
        {},
        FALSE,
        [setting("other", "bool", False)],
        [],
    ),
    ("a missing setting", cmp(Ref("gone"), "EQUALS", True), {}, UNKNOWN, [], []),
    (
        "a setting by its alias",
        cmp(Ref("old-name"), "EQUALS", True),
        {},
        TRUE,
        [setting("other", "bool", True, aliases=["old-name"])],
        [],
    ),
    (
        "a setting for the same context",
        cmp(Ref("other"), "EQUALS", True),
        {"region": "eu"},
        TRUE,
        [on("other", cmp("region", "EQUALS", "eu"))],
        [],
    ),
    (
        "a setting for another context",
        cmp(Ref("other"), "EQUALS", True),
        {"region": "us"},
        FALSE,
        [on("other", cmp("region", "EQUALS", "eu"))],
        [],
    ),
    (
        "a disabled setting gives its off value",
        cmp(Ref("other"), "EQUALS", True),
        {},
        FALSE,
        [on("other", enabled=False, off=False, value=True)],
        [],
    ),
    (
        "a setting's environment value",
        cmp(Ref("limit"), "GREATER_THAN", 4),
        {},
        TRUE,
        [setting("limit", "int", 1, value=5)],
        [],
    ),
    (
        "a setting on the right",
        cmp("size", "LESS_THAN", Ref("limit")),
        {"size": 4.5},
        TRUE,
        [setting("limit", "int", 5)],
        [],
    ),
    (
        "a missing setting on the right",
        cmp("size", "LESS_THAN", Ref("limit")),
        {"size": 4.5},
        UNKNOWN,
        [],
        [],
    ),
    (
        "settings on both sides",
        cmp(Ref("a"), "LESS_THAN", Ref("b")),
        {},
        TRUE,
        [setting("a", "int", 1), setting("b", "float", 1.5)],
        [],
    ),
    (
        "a setting of strings",
        cmp(Ref("mode"), "STARTS_WITH", "fa"),
        {},
        TRUE,
        [setting("mode", "str", "fast")],
        [],
    ),
    (
        "a setting in a list",
        lst(Ref("mode"), "IN", ["fast", "slow"]),
        {},
        TRUE,
        [setting("mode", "str", "fast")],
        [],
    ),
    (
        "a setting that is a list",
        lst(Ref("modes"), "HAS_ANY", ["fast"]),
        {},
        TRUE,
        [setting("modes", "Sequence<str>", ["slow", "fast"])],
        [],
    ),
    ("a null setting", cmp(Ref("json"), "EQUALS", "a"), {}, UNKNOWN, [setting("json", "Json", None)], []),
    ("a null setting is missing", exists_setting("json"), {}, FALSE, [setting("json", "Json", None)], []),
    ("a setting exists", exists_setting("json"), {}, TRUE, [setting("json", "Json", {"a": [[1]]})], []),
    ("a setting that is not there does not exist", exists_setting("json"), {}, FALSE, [], []),
    (
        "a list of lists is no operand",
        lst(Ref("json"), "HAS_ANY", [1]),
        {},
        UNKNOWN,
        [setting("json", "Json", [[1]])],
        [],
    ),
    ("a setting that refers to itself", cmp(Ref("flag"), "EQUALS", TRUE), {}, UNKNOWN, [], []),
    (
        "a cycle of two settings",
        cmp(Ref("other"), "EQUALS", True),
        {},
        UNKNOWN,
        [on("other", cmp(Ref("flag"), "EQUALS", TRUE), default=True)],
        [],
    ),
    (
        "a cycle through a segment",
        segment("s"),
        {},
        UNKNOWN,
        [],
        [seg("s", cmp(Ref("flag"), "EQUALS", TRUE))],
    ),
    (
        "a cycle elsewhere",
        cmp(Ref("x"), "EQUALS", True),
        {},
        UNKNOWN,
        [on("x", cmp(Ref("y"), "EQUALS", True)), on("y", cmp(Ref("x"), "EQUALS", True))],
        [],
    ),
    (
        "a chain of settings",
        cmp(Ref("a"), "EQUALS", True),
        {"region": "eu"},
        TRUE,
        [
            on("a", cmp(Ref("b"), "EQUALS", True)),
            on("b", cmp(Ref("c"), "EQUALS", True)),
            on("c", cmp("region", "EQUALS", "eu")),
        ],
        [],
    ),
    (
        "a setting through a segment",
        segment("s"),
        {"region": "eu"},
        TRUE,
        [on("other", cmp("region", "EQUALS", "eu"))],
        [seg("s", cmp(Ref("other"), "EQUALS", True))],
    ),
]


def nested(levels: int) -> Condition:
    """A true condition of so many levels."""
    condition: Condition = T
    for _ in range(levels - 1):
        condition = both(condition)
    return condition


def chain(length: int) -> list[Json]:
    """Segments s1, s2 ...: each refers to the next, and the last holds."""
    return [*(seg(f"s{i}", segment(f"s{i + 1}")) for i in range(1, length)), seg(f"s{length}", T)]


def no_value(rule_: Json) -> Json:
    return {key: raw for key, raw in rule_.items() if key not in ("value", "distribution")}


EU = cmp("region", "EQUALS", "eu")
DEFAULTED = {"value": 2.5, "reason": "DEFAULT"}

# Buckets: "split:u2" 18701, "split:u3" 47834, "split:u1" 68705.
THIRDS = [("a", 18701, 1), ("b", 29133, 2), ("c", 52166, 3)]


def outcome_cases() -> Iterator[Json]:
    timeout = setting("timeout", "float", 2.5)
    yield case("no rules", [timeout], "timeout", {}, {"value": 2.5, "reason": "STATIC"})
    yield case(
        "no rules, an environment's value",
        [setting("timeout", "float", 2.5, value=3.0)],
        "timeout",
        {},
        {"value": 3.0, "reason": "STATIC"},
    )
    for truthless, kind, zero in (
        ("false", "bool", False),
        ("zero", "int", 0),
        ("an empty string", "str", ""),
    ):
        default = {"bool": True, "int": 5, "str": "x"}[kind]
        yield case(
            f"{truthless} is a value of an environment",
            [setting("s", kind, default, value=zero)],
            "s",
            {},
            {"value": zero, "reason": "STATIC"},
        )
        yield case(
            f"{truthless} is an off value",
            [setting("s", kind, default, off=zero, enabled=False)],
            "s",
            {},
            {"value": zero, "reason": "DISABLED"},
        )
    yield case(
        "null is a value of a Json setting's environment",
        [setting("s", "Json", {"a": 1}, value=None)],
        "s",
        {},
        {"value": None, "reason": "STATIC"},
    )
    yield case(
        "null is an off value of a Json setting",
        [setting("s", "Json", {"a": 1}, value={"b": 2}, off=None, enabled=False)],
        "s",
        {},
        {"value": None, "reason": "DISABLED"},
    )
    one = setting("timeout", "float", 2.5, rule("eu", 4.0, EU))
    hit = {"value": 4.0, "reason": "TARGETING_MATCH", "ruleId": "eu"}
    yield case("a rule that matches", [one], "timeout", {"region": "eu"}, hit)
    yield case("a rule that does not match", [one], "timeout", {"region": "us"}, DEFAULTED)
    yield case("a rule that cannot be told", [one], "timeout", {}, DEFAULTED)
    yield case(
        "an environment's value where no rule matches",
        [setting("timeout", "float", 2.5, rule("eu", 4.0, EU), value=3.0)],
        "timeout",
        {"region": "us"},
        {"value": 3.0, "reason": "DEFAULT"},
    )
    two = setting("timeout", "float", 2.5, rule("first", 4.0, EU), rule("second", 5.0, EU))
    yield case("the first match wins", [two], "timeout", {"region": "eu"}, {**hit, "ruleId": "first"})
    yield case(
        "unknown goes on to the next rule",
        [setting("timeout", "float", 2.5, rule("plan", 9.0, PLAN), rule("eu", 4.0, EU))],
        "timeout",
        {"region": "eu"},
        hit,
    )
    yield case(
        "a rule without a condition matches",
        [setting("timeout", "float", 2.5, rule("all", 6.0))],
        "timeout",
        {},
        {"value": 6.0, "reason": "TARGETING_MATCH", "ruleId": "all"},
    )
    yield case(
        "a rule without a condition after one that does not match",
        [setting("timeout", "float", 2.5, rule("eu", 4.0, EU), rule("all", 6.0))],
        "timeout",
        {"region": "us"},
        {"value": 6.0, "reason": "TARGETING_MATCH", "ruleId": "all"},
    )
    yield case(
        "a disabled rule is skipped",
        [setting("timeout", "float", 2.5, rule("off", 9.0, EU, enabled=False), rule("eu", 4.0, EU))],
        "timeout",
        {"region": "eu"},
        hit,
    )
    yield case(
        "only disabled rules",
        [setting("timeout", "float", 2.5, rule("off", 9.0, EU, enabled=False))],
        "timeout",
        {"region": "eu"},
        DEFAULTED,
    )
    yield case(
        "rules that say that they are enabled",
        [setting("timeout", "float", 2.5, rule("eu", 4.0, EU, enabled=True), enabled=True)],
        "timeout",
        {"region": "eu"},
        hit,
    )
    yield case(
        "a disabled setting: the default",
        [setting("timeout", "float", 2.5, rule("all", 9.0), enabled=False)],
        "timeout",
        {},
        {"value": 2.5, "reason": "DISABLED"},
    )
    yield case(
        "a disabled setting: the environment's value",
        [setting("timeout", "float", 2.5, rule("all", 9.0), enabled=False, value=3.0)],
        "timeout",
        {},
        {"value": 3.0, "reason": "DISABLED"},
    )
    yield case(
        "a disabled setting: the off value",
        [setting("timeout", "float", 2.5, rule("all", 9.0), enabled=False, value=3.0, off=0.5)],
        "timeout",
        {},
        {"value": 0.5, "reason": "DISABLED"},
    )
    yield case(
        "an enabled setting does not give its off value",
        [setting("timeout", "float", 2.5, off=0.5)],
        "timeout",
        {},
        {"value": 2.5, "reason": "STATIC"},
    )
    yield case(
        "an outcome of a newer version never matches",
        [setting("timeout", "float", 2.5, no_value(rule("new", 1.0)), rule("eu", 4.0, EU))],
        "timeout",
        {"region": "eu"},
        hit,
    )
    yield case(
        "an outcome of a newer version, alone",
        [setting("timeout", "float", 2.5, no_value(rule("new", 1.0, EU)))],
        "timeout",
        {"region": "eu"},
        DEFAULTED,
    )
    yield case(
        "a condition of a newer version never matches",
        [setting("timeout", "float", 2.5, rule("new", 1.0, {}), rule("eu", 4.0, EU))],
        "timeout",
        {"region": "eu"},
        hit,
    )
    yield case(
        "by an alias",
        [setting("timeout", "float", 2.5, rule("eu", 4.0, EU), aliases=["old", "older"])],
        "older",
        {"region": "eu"},
        hit,
    )
    yield case(
        "a name is not looked up by its prefix",
        [timeout],
        "time",
        {},
        {"reason": "ERROR", "errorCode": "FLAG_NOT_FOUND"},
    )
    yield case("a missing setting", [], "gone", {}, {"reason": "ERROR", "errorCode": "FLAG_NOT_FOUND"})
    yield case(
        "a missing setting with a default",
        [],
        "gone",
        {},
        {"value": 7, "reason": "ERROR", "errorCode": "FLAG_NOT_FOUND"},
        default=7,
    )
    yield case(
        "a missing setting with a null default",
        [],
        "gone",
        {},
        {"value": None, "reason": "ERROR", "errorCode": "FLAG_NOT_FOUND"},
        default=None,
    )
    yield case(
        "a default does not replace a value",
        [timeout],
        "timeout",
        {},
        {"value": 2.5, "reason": "STATIC"},
        default=7.0,
    )
    yield case(
        "features do not hide the context",
        [setting("timeout", "float", 2.5, rule("eu", 4.0, EU), features={"values": ["user.plan"]})],
        "timeout",
        {"region": "eu"},
        hit,
    )
    for type_, default, outcome in (
        ("bool", True, False),
        ("int", 1, -9223372036854775808),
        ("float", 1.0, 0.1),
        ("str", "a", "\U0001f600 \u00e9\n"),
        ('Enum["a","b"]', "a", "b"),
        ('Flags["a","b"]', [], ["b", "a"]),
        ("Sequence<int>", [1], [3, 2, 1]),
        ("Mapping<float>", {}, {"x": 1.5}),
        ("Mapping<Sequence<str>>", {}, {"x": ["a"], "y": []}),
        ("Json", None, {"a": [1, 2.5, "x", None, {"b": True}]}),
        ("Json", 1, None),
    ):
        written = {"$int": str(outcome)} if isinstance(outcome, int) and abs(outcome) > 2**53 else outcome
        yield case(
            f"a value of type {type_}: {json.dumps(outcome)}",
            [setting("s", type_, default, rule("r", outcome, EU))],
            "s",
            {"region": "eu"},
            {"value": written, "reason": "TARGETING_MATCH", "ruleId": "r"},
        )


def split_cases() -> Iterator[Json]:
    thirds = setting("split", "int", 0, split("thirds", "id", "split", THIRDS))

    def hit(value_: int, variant: str) -> Json:
        return {"value": value_, "reason": "SPLIT", "ruleId": "thirds", "variant": variant}

    missed = {"value": 0, "reason": "DEFAULT"}
    yield case("the bucket is the first of the third variant", [thirds], "split", {"id": "u3"}, hit(3, "c"))
    yield case("the bucket is the first of the second variant", [thirds], "split", {"id": "u2"}, hit(2, "b"))
    yield case("the last variant", [thirds], "split", {"id": "u1"}, hit(3, "c"))
    wider = [("a", 18702, 1), ("b", 29133, 2), ("c", 52165, 3)]
    yield case(
        "the bucket is the last of the first variant",
        [setting("split", "int", 0, split("thirds", "id", "split", wider))],
        "split",
        {"id": "u2"},
        hit(1, "a"),
    )
    yield case(
        "the bucket is the last of the second variant",
        [setting("split", "int", 0, split("thirds", "id", "split", wider))],
        "split",
        {"id": "u3"},
        hit(2, "b"),
    )
    for name, context in (
        ("a missing unit falls through", {}),
        ("an empty unit falls through", {"id": ""}),
        ("a bool unit falls through", {"id": False}),
        ("a fraction falls through", {"id": 0.5}),
        ("a NaN falls through", {"id": NAN}),
        ("a list falls through", {"id": ["u1"]}),
    ):
        yield case(name, [thirds], "split", context, missed)
    yield case(
        "a missing unit falls through to the next rule",
        [setting("split", "int", 0, split("thirds", "id", "split", THIRDS), rule("rest", 9))],
        "split",
        {},
        {"value": 9, "reason": "TARGETING_MATCH", "ruleId": "rest"},
    )
    conditional = setting("split", "int", 0, split("thirds", "id", "split", THIRDS, EU))
    yield case("a split with a condition", [conditional], "split", {"id": "u2", "region": "eu"}, hit(2, "b"))
    yield case(
        "a split whose condition is false", [conditional], "split", {"id": "u2", "region": "us"}, missed
    )
    yield case("a split whose condition is unknown", [conditional], "split", {"id": "u2"}, missed)
    yield case(
        "variants without weight are nobody's",
        [
            setting(
                "split",
                "int",
                0,
                split("thirds", "id", "split", [("a", 0, 1), ("b", 100000, 2), ("c", 0, 3)]),
            )
        ],
        "split",
        {"id": "u1"},
        hit(2, "b"),
    )
    yield case(
        "one variant takes all",
        [setting("split", "int", 0, split("thirds", "id", "split", [("a", 100000, 1)]))],
        "split",
        {"id": "u3"},
        hit(1, "a"),
    )
    yield case(
        "the order of the variants is part of the rule",
        [setting("split", "int", 0, split("thirds", "id", "split", [("b", 50000, 2), ("a", 50000, 1)]))],
        "split",
        {"id": "u2"},
        hit(2, "b"),
    )
    yield case(
        "weights that sum to less leave a rest, which falls through",
        [setting("split", "int", 0, split("thirds", "id", "split", [("a", 18701, 1)]))],
        "split",
        {"id": "u2"},
        missed,
    )
    yield case(
        "an int unit",
        # "flag:42" is bucket 81886.
        [setting("split", "int", 0, split("thirds", "id", "flag", [("a", 81886, 1), ("b", 18114, 2)]))],
        "split",
        {"id": 42},
        hit(2, "b"),
    )
    yield case(
        "an integral float is the same unit",
        [setting("split", "int", 0, split("thirds", "id", "flag", [("a", 81886, 1), ("b", 18114, 2)]))],
        "split",
        {"id": 42.0},
        hit(2, "b"),
    )
    yield case(
        "by Replane's Python client",
        [
            setting(
                "split",
                "int",
                0,
                split("thirds", "id", "seed", [("a", 89390, 1), ("b", 10610, 2)], algorithm="REPLANE_PYTHON"),
            )
        ],
        "split",
        {"id": "user-1"},
        hit(2, "b"),
    )
    yield case(
        "by Replane's JavaScript client",
        [
            setting(
                "split",
                "int",
                0,
                split("thirds", "id", "seed", [("a", 3476, 1), ("b", 96524, 2)], algorithm="REPLANE"),
            )
        ],
        "split",
        {"id": "user-1"},
        hit(1, "a"),
    )
    unknown = split("thirds", "id", "split", THIRDS)
    unknown["distribution"]["algorithm"] = 99
    yield case(
        "a split by an algorithm of a newer version",
        [setting("split", "int", 0, unknown)],
        "split",
        {"id": "u1"},
        missed,
    )
    yield case(
        "a unit in a further layer",
        [thirds],
        "split",
        [{"region": "eu"}, {"id": "u2"}],
        hit(2, "b"),
    )
    yield case(
        "a setting that splits, referred to",
        [thirds, on("flag", cmp(Ref("split"), "EQUALS", 3))],
        "flag",
        {"id": "u1"},
        {"value": True, "reason": "TARGETING_MATCH", "ruleId": "on"},
    )


def order_cases() -> Iterator[Json]:
    """Rules under SPECIFICITY arrive ordered, so a reader runs them as they stand."""
    plan_then_region = setting(
        "s",
        "int",
        0,
        rule("general", 1, EU, number="1"),
        rule("specific", 2, both(EU, PLAN), number="2"),
        order="RULE_ORDER_SPECIFICITY",
    )
    yield case(
        "readers never sort",
        [plan_then_region],
        "s",
        {"region": "eu", "user": {"plan": "pro"}},
        {"value": 1, "reason": "TARGETING_MATCH", "ruleId": "general"},
    )


def cycle_cases() -> Iterator[Json]:
    x = on("x", cmp(Ref("y"), "EQUALS", True))
    y = setting("y", "bool", False, rule("back", True, cmp(Ref("x"), "EQUALS", True)), rule("eu", True, EU))
    yield case(
        "a setting on a cycle, asked for itself, has its default",
        [x, y],
        "x",
        {"region": "eu"},
        {"value": False, "reason": "DEFAULT"},
    )
    yield case(
        "a setting on a cycle goes on to rules that do not refer",
        [x, y],
        "y",
        {"region": "eu"},
        {"value": True, "reason": "TARGETING_MATCH", "ruleId": "eu"},
    )


def cases() -> Iterator[Json]:
    for group, rows in COMPARISONS.items():
        for left, op, right, truth in rows:
            name = f"{group}: {json.dumps(left)} {op} {json.dumps(right)}"
            yield truth_case(name, cmp("x", op, right), {"x": left}, truth)
    for group, list_rows in LISTS.items():
        for left, op, literals, truth in list_rows:
            name = f"{group}: {json.dumps(left)} {op} {json.dumps(literals)}"
            yield truth_case(name, lst("x", op, literals), {"x": left}, truth)
    for raw, truth in EXISTENCE:
        yield truth_case(f"exists: {json.dumps(raw)}", exists("x"), {"x": raw}, truth)
    for group, table in (("logic", LOGIC), ("lookup", LOOKUPS), ("percentage", PERCENTAGES)):
        for name, condition, context, truth in table:
            yield truth_case(f"{group}: {name}", condition, context, truth)
    for name, condition, context, truth, settings, segments in REFERENCES:
        yield truth_case(f"reference: {name}", condition, context, truth, settings, segments)
    # A reference is one level, and what it refers to goes on below it.
    yield truth_case("nesting: 32 levels", nested(32), {}, TRUE)
    yield truth_case("nesting: 64 levels through segments", segment("s1"), {}, TRUE, [], chain(63))
    yield truth_case("nesting: 65 levels through segments", segment("s1"), {}, UNKNOWN, [], chain(64))
    yield truth_case(
        "nesting: too deep a branch makes the whole unknown",
        either(T, segment("s1")),
        {},
        UNKNOWN,
        [],
        chain(63),
    )
    for group, made in (
        ("outcome", outcome_cases()),
        ("split", split_cases()),
        ("order", order_cases()),
        ("cycle", cycle_cases()),
    ):
        for one in made:
            yield {**one, "name": f"{group}: {one['name']}"}


def document() -> str:
    """Return the text of evaluation.json: one case a line, so that differences are easy to read."""
    lines = [json.dumps(one, ensure_ascii=True, separators=(",", ":")) for one in cases()]
    return '{"cases":[\n' + ",\n".join(lines) + "\n]}\n"


if __name__ == "__main__":
    Path(__file__).with_name("evaluation.json").write_text(document(), encoding="ascii")
