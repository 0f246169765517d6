"""The language-neutral vectors of tests/spec, against the reference evaluator."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import mmh3
import pytest
from google.protobuf import json_format

from rheo.v1 import condition_pb2, segment_pb2, setting_pb2
from rheostat.evaluation.bucket import bucket, fnv1a_32, murmur3_32, murmur3_32_pure, unit_text
from rheostat.evaluation.context import Context
from rheostat.evaluation.explain import explain
from rheostat.evaluation.reference import evaluate
from rheostat.evaluation.result import Evaluation, Reason
from rheostat.model.condition import BucketAlgorithm
from rheostat.model.snapshot import Snapshot
from rheostat.model.value import ABSENT, freeze, thaw
from rheostat.wire.setting import segment_from_proto, setting_from_proto

SPEC = Path(__file__).parent.parent / "spec"
CASES = json.loads((SPEC / "evaluation.json").read_text())["cases"]
BUCKETS = json.loads((SPEC / "buckets.json").read_text())
ALGORITHMS = [algorithm.value for algorithm in BucketAlgorithm]


def decode(raw: Any) -> Any:
    """Return *raw* with what JSON cannot write, as tests/spec/README.md says."""
    match raw:
        case {"$float": text}:
            return float(text)
        case {"$int": text}:
            return int(text)
        case {"$unsupported": True}:
            return object()
        case {"$surrogate": code}:
            return chr(int(code, 16))
        case dict():
            return {key: decode(element) for key, element in raw.items()}
        case list():
            return [decode(element) for element in raw]
        case _:
            return raw


def snapshot_of(case: dict[str, Any]) -> Snapshot:
    settings = [json_format.ParseDict(raw, setting_pb2.Setting()) for raw in case["settings"]]
    segments = [json_format.ParseDict(raw, segment_pb2.Segment()) for raw in case.get("segments", [])]
    return Snapshot.of(map(setting_from_proto, settings), map(segment_from_proto, segments), revision=7)


def context_of(case: dict[str, Any]) -> Context:
    layers = case["layers"] if "layers" in case else [case["context"]]
    return Context(*(decode(layer) for layer in layers))


def reported(evaluation: Evaluation) -> dict[str, Any]:
    found: dict[str, Any] = {"reason": evaluation.reason.value}
    if evaluation.value is not ABSENT:
        found["value"] = thaw(evaluation.value)
    if evaluation.rule_id is not None:
        found["ruleId"] = evaluation.rule_id
    if evaluation.variant is not None:
        found["variant"] = evaluation.variant
    if evaluation.error_code is not None:
        found["errorCode"] = evaluation.error_code.value
    return found


def tagged(raw: Any) -> Any:
    """Return *raw* in a form whose equality tells bools from numbers."""
    match raw:
        case bool():
            return "bool", raw
        case dict():
            return {key: tagged(element) for key, element in raw.items()}
        case list():
            return [tagged(element) for element in raw]
        case _:
            return raw


def evaluated(case: dict[str, Any]) -> Evaluation:
    default = freeze(decode(case["default"])) if "default" in case else ABSENT
    return evaluate(snapshot_of(case), case["evaluate"], context_of(case), default)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_reference_evaluator_gives_what_the_specification_says(case: dict[str, Any]) -> None:
    assert tagged(reported(evaluated(case))) == tagged(decode(case["expected"]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_an_explanation_agrees_with_the_evaluation(case: dict[str, Any]) -> None:
    snapshot, context = snapshot_of(case), context_of(case)
    default = freeze(decode(case["default"])) if "default" in case else ABSENT

    explanation = explain(snapshot, case["evaluate"], context, default)

    assert explanation.evaluation == evaluate(snapshot, case["evaluate"], context, default)
    assert explanation.detail
    matched = [rule.rule_id for rule in explanation.rules if rule.matched]
    expected = case["expected"].get("ruleId")
    assert matched == ([] if expected is None else [expected])
    if matched:
        assert explanation.rules[-1].matched
    for rule in explanation.rules:
        assert rule.detail
        if rule.condition is not None:
            assert rule.condition.truth is rule.truth


def test_there_are_enough_cases_with_names_of_their_own() -> None:
    names = [case["name"] for case in CASES]

    assert len(names) >= 400
    assert len(set(names)) == len(names)


def test_the_cases_cover_all_operators_and_all_reasons_of_an_evaluator() -> None:
    text = (SPEC / "evaluation.json").read_text()

    for name in condition_pb2.Operator.keys()[1:]:
        assert f'"{name}"' in text
    assert {case["expected"]["reason"] for case in CASES} == {reason.value for reason in Reason}


@pytest.mark.parametrize("name", ["evaluation", "buckets"])
def test_the_files_are_what_their_scripts_make(name: str) -> None:
    source = importlib.util.spec_from_file_location(f"build_{name}", SPEC / f"build_{name}.py")
    assert source is not None
    assert source.loader is not None
    script = importlib.util.module_from_spec(source)
    source.loader.exec_module(script)

    assert script.document() == (SPEC / f"{name}.json").read_text()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_buckets_are_the_golden_ones(name: str) -> None:
    vectors = BUCKETS[name]

    assert len(vectors) >= 200
    for vector in vectors:
        unit = unit_text(decode(vector["unit"]))
        assert unit is not None, vector
        assert bucket(BucketAlgorithm(name), vector["salt"], unit) == vector["bucket"], vector


@pytest.mark.parametrize("vector", BUCKETS["INVALID_UNITS"], ids=lambda vector: vector["why"])
def test_what_is_no_unit_has_no_bucket(vector: dict[str, Any]) -> None:
    assert unit_text(decode(vector["unit"])) is None


def test_murmur3_equals_the_extension_and_the_published_values() -> None:
    published = {b"": 0, b"test": 0xBA6BD213, b"hello": 0x248BFA47, b"Hello, world!": 0xC0363E43}

    assert {octets: murmur3_32(octets) for octets in published} == published
    for vector in BUCKETS["MURMUR3"]:
        octets = f"{vector['salt']}:{unit_text(decode(vector['unit']))}".encode()
        assert murmur3_32(octets) == murmur3_32_pure(octets) == mmh3.hash(octets, 0, signed=False)


def test_fnv1a_gives_the_published_values() -> None:
    assert [fnv1a_32(text) for text in (b"", b"a", b"foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


def test_the_published_replane_buckets_are_among_the_vectors() -> None:
    for unit, salt, python, javascript in (
        ("user-1", "seed", 89390, 3475),
        ("user-123", "test-seed", 92990, 75943),
        ("user-123", "feature-x", 24360, 27796),
    ):
        assert {"salt": salt, "unit": unit, "bucket": python} in BUCKETS["REPLANE_PYTHON"]
        assert {"salt": salt, "unit": unit, "bucket": javascript} in BUCKETS["REPLANE"]


def test_decoding_reads_what_json_cannot_write() -> None:
    assert math.isnan(decode({"$float": "NaN"}))
    assert decode([{"$int": "9223372036854775808"}]) == [2**63]
