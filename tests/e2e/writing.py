"""What tests write: one setting of an integer, and its values."""

from __future__ import annotations

from rheo.v1.admin_service_connect import AdminServiceClientSync
from rheo.v1.admin_service_pb2 import CommitRequest
from rheo.v1.change_pb2 import Mutation, PutRule, PutSegment, PutSetting, SetValue
from rheo.v1.condition_pb2 import OPERATOR_EQUALS, Comparison, Condition, Operand, SegmentReference
from rheo.v1.segment_pb2 import Segment
from rheo.v1.setting_pb2 import Rule, Setting
from rheo.v1.value_pb2 import Value
from rheostat.model import change as model
from rheostat.service import Service, Writer
from rheostat.service.access import OPEN
from rheostat.store import open_store

__all__ = [
    "SETTING",
    "commit_by",
    "commit_by_another_process",
    "make_rules",
    "make_setting",
    "put_region_segment",
    "put_setting",
    "set_value",
]

SETTING = "checkout.attempts"


def put_setting(name: str = SETTING) -> Mutation:
    return Mutation(
        put_setting=PutSetting(setting=Setting(name=name, type="int", default=Value(int_value=0)))
    )


def make_setting(url: str, name: str = SETTING) -> int:
    """Make the setting, which may be there already; returns the revision."""
    client = AdminServiceClientSync(url)
    return client.commit(CommitRequest(environment="production", mutations=[put_setting(name)])).revision


def set_value(url: str, value: int, name: str = SETTING) -> int:
    """Set the setting's value over the wire; returns the revision."""
    mutation = Mutation(set_value=SetValue(name=name, value=Value(int_value=value)))
    client = AdminServiceClientSync(url)
    return client.commit(CommitRequest(environment="production", mutations=[mutation])).revision


def put_region_segment(url: str, region: str) -> None:
    """Make the segment ``in-region`` one of everybody in *region*."""
    segment = Segment(
        name="in-region",
        condition=Condition(
            comparison=Comparison(
                left=Operand(attribute="region"),
                op=OPERATOR_EQUALS,
                right=Operand(literal=Value(string_value=region)),
            )
        ),
    )
    mutation = Mutation(put_segment=PutSegment(segment=segment))
    AdminServiceClientSync(url).commit(CommitRequest(mutations=[mutation]))


def make_rules(url: str, name: str) -> None:
    """Make a setting with a rule for the segment ``in-region`` and one for all others."""
    within = Rule(
        id="in-region",
        value=Value(int_value=1),
        condition=Condition(segment=SegmentReference(name="in-region")),
    )
    rules = [
        Mutation(put_rule=PutRule(setting=name, rule=rule))
        for rule in (within, Rule(id="always", value=Value(int_value=2)))
    ]
    mutations = [put_setting(name), *rules]
    AdminServiceClientSync(url).commit(CommitRequest(environment="production", mutations=mutations))


def commit_by_another_process(store: str, value: int, name: str = SETTING) -> int:
    """Set the setting's value in the same file, but not through the server under test."""
    with Service(open_store(store)) as service:
        return commit_by(service, value, name)


def commit_by(service: Service, value: int, name: str = SETTING) -> int:
    """Set the setting's value through a service that is open already."""
    mutation = model.SetValue(name, value, environment="production")
    return service.commit(Writer(OPEN), "default", "production", [mutation]).revision
