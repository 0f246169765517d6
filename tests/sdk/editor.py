"""Whoever changes settings in the tests: every method commits one change-set and returns its revision."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest
from rheo.v1.change_pb2 import (
    DeleteSetting,
    Mutation,
    PutEnvironment,
    PutRule,
    PutSegment,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
)
from rheo.v1.project_pb2 import Environment
from rheo.v1.segment_pb2 import Segment
from rheo.v1.setting_pb2 import Rule, Setting
from rheostat.language import parse_condition
from rheostat.model.value import freeze
from rheostat.wire.condition import condition_to_proto
from rheostat.wire.value import value_to_proto

__all__ = ["Editor", "put", "setting_value"]

_numbers = itertools.count(1)


def _proto(value: Any) -> Any:
    return value_to_proto(freeze(value))


def _type_of(value: object) -> str:
    return {bool: "bool", int: "int", float: "float", str: "str"}.get(type(value), "Json")


def put(name: str, default: Any, type_: str | None = None, **fields: Any) -> Mutation:
    setting = Setting(name=name, type=type_ or _type_of(default), default=_proto(default), **fields)
    return Mutation(put_setting=PutSetting(setting=setting))


def setting_value(name: str, value: Any) -> Mutation:
    return Mutation(set_value=SetValue(name=name, value=_proto(value)))


class Editor:
    """Writes to one environment of a server.

    Args:
        url: The server's.
        environment: Its name; None makes a new one.
        key: For servers that demand keys.
    """

    def __init__(self, url: str, environment: str | None = None, *, key: str | None = None) -> None:
        self.url = url
        self._client = AdminServiceClientSync(url)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self.environment = environment or f"env-{next(_numbers)}"
        if environment is None:
            made = Mutation(put_environment=PutEnvironment(environment=Environment(name=self.environment)))
            self._client.commit(CommitRequest(mutations=[made]), headers=self._headers)

    def commit(self, *mutations: Mutation) -> int:
        request = CommitRequest(environment=self.environment, mutations=mutations)
        return self._client.commit(request, headers=self._headers).revision

    def put(self, name: str, default: Any, type_: str | None = None, **fields: Any) -> int:
        return self.commit(put(name, default, type_, **fields))

    def set(self, values: Mapping[str, Any] | None = None, /, **named: Any) -> int:
        """Set values in one change-set."""
        return self.commit(
            *(setting_value(name, value) for name, value in {**(values or {}), **named}.items())
        )

    def rule(self, setting: str, rule_id: str, condition: str, value: Any) -> int:
        rule = Rule(id=rule_id, condition=condition_to_proto(parse_condition(condition)), value=_proto(value))
        return self.commit(Mutation(put_rule=PutRule(setting=setting, rule=rule)))

    def segment(self, name: str, condition: str) -> int:
        segment = Segment(name=name, condition=condition_to_proto(parse_condition(condition)))
        return self.commit(Mutation(put_segment=PutSegment(segment=segment)))

    def rename(self, name: str, new_name: str) -> int:
        return self.commit(Mutation(rename_setting=RenameSetting(name=name, new_name=new_name)))

    def delete(self, *names: str) -> int:
        return self.commit(*(Mutation(delete_setting=DeleteSetting(name=name)) for name in names))

    def features(self, features: Sequence[str]) -> int:
        return self.commit(Mutation(set_features=SetFeatures(features=features)))
