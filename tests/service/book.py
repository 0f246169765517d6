"""A state that a test writes in, change-set by change-set, and short forms of what it writes."""

from __future__ import annotations

import itertools
from dataclasses import replace

from rheostat.model.change import (
    Mutation,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    SetFeatures,
)
from rheostat.model.condition import (
    AllOf,
    Attribute,
    Comparison,
    Condition,
    Literal,
    Operator,
    SegmentReference,
    SettingReference,
)
from rheostat.model.rule import Distribution, Rule, ValueOutcome, Variant
from rheostat.model.setting import Segment, Setting
from rheostat.model.state import State
from rheostat.model.value import freeze
from rheostat.service.limit import Limits
from rheostat.service.plan import ItemAddress, Plan, plan, plan_revert

__all__ = [
    "Book",
    "both",
    "equals",
    "in_segment",
    "on",
    "put",
    "put_rule",
    "put_segment",
    "rule",
    "split",
]


def put(
    name: str, type_: str = "int", default: object = 0, environment: str = "", **fields: object
) -> PutSetting:
    """Create a setting, or change its type, default and other fields."""
    return PutSetting(name, {"type": type_, "default": freeze(default), **fields}, environment)


def equals(path: str, value: object) -> Comparison:
    return Comparison(Attribute(path), Operator.EQUALS, Literal(freeze(value)))


def on(setting: str, value: object = 1) -> Comparison:
    """A condition on the value of another setting."""
    return Comparison(SettingReference(setting), Operator.EQUALS, Literal(freeze(value)))


def both(*conditions: Condition) -> AllOf:
    return AllOf(conditions)


def in_segment(name: str) -> SegmentReference:
    return SegmentReference(name)


def rule(id_: str, value: object = 1, condition: Condition | None = None, *, enabled: bool = True) -> Rule:
    return Rule(id_, ValueOutcome(freeze(value)), condition, enabled=enabled)


def split(
    *weights: int, salt: str = "", unit: str = "user.id", values: tuple[object, ...] = ()
) -> Distribution:
    chosen = values or tuple(range(len(weights)))
    return Distribution(
        unit,
        salt,
        tuple(
            Variant(f"v{i}", weight, freeze(value))
            for i, (weight, value) in enumerate(zip(weights, chosen, strict=True))
        ),
    )


def put_rule(
    setting: str, rule_: Rule, *, before: str = "", after: str = "", environment: str = ""
) -> PutRule:
    return PutRule(setting, rule_, before, after, environment=environment)


def put_segment(name: str, condition: Condition) -> PutSegment:
    return PutSegment(Segment(name, condition))


class Book:
    """One project, `shop`, whose change-sets are planned and applied at once, without a store."""

    def __init__(
        self,
        *environments: str,
        features: tuple[str, ...] = (),
        limits: Limits | None = None,
    ) -> None:
        self.state = State()
        self.limits = limits
        self._ids = itertools.count(1)
        self._removed: dict[ItemAddress, int] = {}
        self.do(
            PutProject("shop"),
            *(PutEnvironment(slug) for slug in environments or ("production",)),
            *([SetFeatures(features)] if features else []),
        )

    @property
    def revision(self) -> int:
        return self.state.revision

    def plan(
        self,
        *mutations: Mutation,
        environment: str = "production",
        expected: int | None = None,
        limits: Limits | None = None,
        project: str = "shop",
    ) -> Plan:
        return plan(
            self.state,
            project,
            environment,
            mutations,
            revision=self.revision + 1,
            new_id=self.new_id,
            limits=limits or self.limits,
            expected_revision=expected,
            removed_at=lambda address: self._removed.get(address, 0),
        )

    def do(self, *mutations: Mutation, environment: str = "production", expected: int | None = None) -> Plan:
        """Plan and apply; a plan that changes nothing takes no revision."""
        return self.apply(self.plan(*mutations, environment=environment, expected=expected))

    def revert(self, *plans: Plan, strict: bool = True) -> Plan:
        """Plan and apply the way back from *plans*, newest first."""
        return self.apply(
            plan_revert(
                self.state,
                "shop",
                [made.changes for made in plans],
                revision=self.revision + 1,
                new_id=self.new_id,
                removed_at=lambda address: self._removed.get(address, 0),
                strict=strict,
            )
        )

    def apply(self, made: Plan) -> Plan:
        if made.changes:
            self.state = self.state.apply(made.changes, self.revision + 1, made.rule_number)
        for change in made.changes:
            if change.after is None:
                self._removed[change.environment, change.kind, change.key] = self.revision
        return made

    def new_id(self) -> str:
        return f"n{next(self._ids)}"

    def settings(self, environment: str = "production") -> dict[str, Setting]:
        return dict(self.state.projects["shop"].environments[environment].settings)

    def setting(self, name: str, environment: str = "production") -> Setting:
        return self.settings(environment)[name]

    def segment(self, name: str) -> Segment:
        return self.state.projects["shop"].segments[name]

    def rules(self, name: str, environment: str = "production") -> list[str]:
        """The ids of a setting's rules, in order."""
        return [rule_.id for rule_ in self.setting(name, environment).rules]

    def declare(self, name: str, environment: str = "production") -> None:
        """Mark a setting as declared by code, as a declaration will."""
        entry = self.state.projects["shop"].environments[environment]
        settings = {**entry.settings, name: replace(entry.settings[name], declared=True)}
        project = self.state.projects["shop"]
        environments = {**project.environments, environment: replace(entry, settings=settings)}
        self.state = replace(self.state, projects={"shop": replace(project, environments=environments)})
