from __future__ import annotations

from dataclasses import fields, replace

import pytest

from rheostat.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    InvalidConditionError,
    InvalidSettingError,
    InvalidTypeError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    RevisionConflictError,
    RheostatError,
    SettingNotFoundError,
    TypeMismatchError,
)
from rheostat.model.change import (
    DeleteRule,
    DeleteSegment,
    DeleteSetting,
    MoveRule,
    Mutation,
    PutEnvironment,
    PutProject,
    PutRule,
    PutSegment,
    PutSetting,
    RenameSetting,
    SetFeatures,
    SetValue,
    UnsetValue,
)
from rheostat.model.condition import (
    AllOf,
    Attribute,
    BucketAlgorithm,
    Comparison,
    Not,
    Operator,
    Percentage,
    Unrecognized,
    settings_of,
    walk,
)
from rheostat.model.rule import Distribution, Rule, ValueOutcome
from rheostat.model.setting import Lifecycle, Order, Segment, Version
from rheostat.model.state import State
from rheostat.model.value import ABSENT, FrozenMapping, freeze, same
from rheostat.service.limit import Limits
from rheostat.service.plan import Plan, plan
from tests.service.book import (
    Book,
    both,
    equals,
    in_segment,
    on,
    put,
    put_rule,
    put_segment,
    rule,
    split,
)


def addresses(made: Plan) -> list[tuple[str, str, str]]:
    return [(change.environment, change.kind, change.key) for change in made.changes]


def violated(error: RheostatError) -> list[str]:
    assert isinstance(error, InvalidArgumentError)
    return [violation.field for violation in error.violations]


# What each mutation does.


def test_a_project_and_its_environments_are_made_and_changed_field_by_field() -> None:
    book = Book()
    book.do(PutProject("shop", title="Shop", description="All of it"))
    book.do(PutProject("shop", title="The shop"))
    book.do(PutEnvironment("staging", title="Staging", protected=True))
    book.do(PutEnvironment("staging", description="Before"))
    project = book.state.projects["shop"]
    assert (project.project.title, project.project.description) == ("The shop", "All of it")
    staging = project.environments["staging"].environment
    assert (staging.title, staging.description, staging.protected) == ("Staging", "Before", True)
    assert staging.revision == book.revision


def test_put_setting_creates_with_all_fields() -> None:
    book = Book(features=("region", "user.id"))
    book.do(
        put(
            "a",
            "float",
            2,
            description="d",
            version=Version(1, 2),
            aliases=("old",),
            features=("region",),
            metadata=FrozenMapping({"k": 1}),
            owner="team",
            tags=("t",),
            order=Order.SPECIFICITY,
            enabled=False,
            value=3,
            off=4,
            lifecycle=Lifecycle.DEPRECATED,
        )
    )
    made = book.setting("a")
    assert same(made.default, 2.0)
    assert same(made.value, 3.0)
    assert same(made.off, 4.0)
    assert (made.description, made.version, made.aliases) == ("d", Version(1, 2), ("old",))
    assert (made.features, made.metadata, made.owner, made.tags) == (
        ("region",),
        FrozenMapping({"k": 1}),
        "team",
        ("t",),
    )
    assert (made.order, made.enabled, made.lifecycle) == (Order.SPECIFICITY, False, Lifecycle.DEPRECATED)
    assert made.revision == book.revision


def test_put_setting_changes_the_named_fields_alone_and_absent_clears_them() -> None:
    book = Book()
    book.do(put("a", default=1, owner="team", description="d", value=7))
    book.do(PutSetting("a", {"owner": "other"}))
    made = book.setting("a")
    assert (made.owner, made.description, made.default, made.value) == ("other", "d", 1, 7)
    book.do(PutSetting("a", {"owner": ABSENT, "value": ABSENT}))
    made = book.setting("a")
    assert (made.owner, made.description) == ("", "d")
    assert made.value is ABSENT


@pytest.mark.parametrize(
    ("type_", "falsy", "truthy"),
    [("int", 0, 1), ("bool", False, True), ("str", "", "x"), ("float", 0.0, 1.0), ("Sequence<int>", [], [1])],
)
def test_a_falsy_value_takes_effect_like_any_other(type_: str, falsy: object, truthy: object) -> None:
    book = Book()
    book.do(put("a", type_, truthy))
    book.do(PutSetting("a", {"default": freeze(falsy)}))
    assert same(book.setting("a").default, freeze(falsy))
    book.do(SetValue("a", freeze(truthy)))
    book.do(SetValue("a", freeze(falsy)))
    assert book.setting("a").value is not ABSENT
    assert same(book.setting("a").base_value, freeze(falsy))
    book.do(PutSetting("a", {"off": freeze(falsy), "metadata": FrozenMapping()}))
    assert same(book.setting("a").off, freeze(falsy))  # type: ignore[arg-type]


def test_metadata_may_become_empty_again() -> None:
    book = Book()
    book.do(put("a", metadata=FrozenMapping({"k": True})))
    book.do(PutSetting("a", {"metadata": FrozenMapping()}))
    assert book.setting("a").metadata == FrozenMapping()


def test_values_are_set_and_unset_by_name_or_alias() -> None:
    book = Book()
    book.do(put("a", aliases=("old",)))
    book.do(SetValue("old", 5.0))
    assert same(book.setting("a").value, 5)  # type: ignore[arg-type]
    book.do(UnsetValue("old"))
    assert book.setting("a").value is ABSENT


def test_true_and_one_are_different_values() -> None:
    book = Book()
    book.do(put("a", "Json", 1))
    for value in (True, 1.0, 1, "1"):
        assert book.do(PutSetting("a", {"default": value})).changes, value
        assert same(book.setting("a").default, value)


def test_mutations_apply_in_order() -> None:
    book = Book()
    made = book.do(
        put("a", default=1),
        SetValue("a", 2),
        RenameSetting("a", "b"),
        SetValue("b", 3),
        put_rule("a", rule("r", 4)),
        DeleteRule("b", "r"),
        put("c"),
        DeleteSetting("c"),
    )
    assert addresses(made) == [("production", "setting", "b")]
    assert book.setting("b").value == 3
    assert book.setting("b").aliases == ("a",)
    with pytest.raises(SettingNotFoundError):
        book.do(SetValue("z", 1), put("z"))


def test_a_change_set_may_pass_through_what_would_not_be_legal_alone() -> None:
    book = Book(features=("region",))
    book.do(put("a"), put("b", features=("region",)), put_rule("b", rule("r", 1, on("a"))))
    # The user of a goes after a, the segment comes after its user, the feature goes before its user.
    made = book.do(
        DeleteSetting("a"),
        DeleteRule("b", "r"),
        put_rule("b", rule("s", 1, in_segment("late"))),
        put_segment("late", equals("country", "de")),
        SetFeatures(("country",)),
        PutSetting("b", {"features": ("country",)}),
    )
    assert len(made.changes) == 4


def test_every_change_carries_the_new_revision_and_what_was_before() -> None:
    book = Book()
    book.do(put("a"))
    first = book.setting("a")
    (change,) = book.do(SetValue("a", 1)).changes
    assert change.before == first
    assert change.after is not None
    assert change.after.revision == book.revision == first.revision + 1


def test_project_wide_changes_stand_before_those_of_environments() -> None:
    book = Book()
    made = book.plan(
        PutEnvironment("staging"),
        put("a", environment="staging"),
        put_rule("a", rule("r", 1, in_segment("s")), environment="staging"),
        put_segment("s", equals("x", 1)),
        environment="",
    )
    assert [change.kind for change in made.changes] == ["environment", "segment", "setting"]


@pytest.mark.parametrize(
    "mutations",
    [
        [],
        [SetValue("a", 2)],
        [SetValue("a", 2.0)],
        [PutSetting("a", {})],
        [PutSetting("a", {"type": " int ", "default": 1})],
        [PutSetting("a", {"owner": ABSENT})],
        [SetValue("a", 9), SetValue("a", 2)],
        [RenameSetting("a", "a")],
        [put("new"), DeleteSetting("new")],
        [put_rule("a", rule("r", 5, equals("x", 1)))],
        [put_rule("a", rule("t", 1)), DeleteRule("a", "t")],
        [MoveRule("a", "r", before_id="r2")],
        [PutSegment(Segment("seg", equals("x", 1)), keep_description=True)],
        [SetFeatures(("region",))],
        [PutProject("shop")],
        [PutEnvironment("production", title="")],
    ],
    ids=repr,
)
def test_a_plan_that_changes_nothing_is_empty(mutations: list[Mutation]) -> None:
    book = Book(features=("region",))
    book.do(
        put("a", default=1, value=2),
        put_rule("a", rule("r", 5, equals("x", 1))),
        put_rule("a", rule("r2", 5)),
        put_segment("seg", equals("x", 1)),
    )
    assert book.plan(*mutations).changes == ()


# Environments.


def test_a_definition_belongs_to_one_environment() -> None:
    book = Book("staging", "production")
    book.do(put("a", default=1, environment="staging"), put("a", default=2))
    book.do(PutSetting("a", {"default": 3}, "staging"))
    assert (book.setting("a", "staging").default, book.setting("a").default) == (3, 2)


def test_one_setting_has_one_identity_in_all_environments() -> None:
    book = Book("staging", "production", "test")
    book.do(put("a", environment="staging"), put("b", environment="staging"))
    book.do(put("a"))
    assert book.setting("a").id == book.setting("a", "staging").id
    assert book.setting("a").id != book.setting("b", "staging").id


def test_a_rename_changes_one_environment_and_the_others_know_it_by_its_former_name() -> None:
    book = Book("staging", "production", "test")
    book.do(put("a", environment="staging"), put("a"))
    made = book.do(RenameSetting("a", "b"))
    assert set(addresses(made)) == {("production", "setting", "a"), ("production", "setting", "b")}
    assert book.setting("b").aliases == ("a",)
    assert book.setting("b").id == book.setting("a", "staging").id
    assert book.setting("a", "staging").aliases == ()
    # A third environment that makes it by either name makes the same setting.
    book.do(put("b", environment="test"))
    assert book.setting("b", "test").id == book.setting("b").id


def test_a_new_setting_never_takes_an_identity_that_its_environment_has_already() -> None:
    book = Book("staging", "production")
    book.do(put("a", environment="staging"), put("a"))
    book.do(RenameSetting("a", "b"))
    book.do(PutSetting("b", {"aliases": ()}))
    # In staging the identity is called a; here it is called b.
    book.do(put("a"))
    assert book.setting("a").id != book.setting("b").id


def test_a_rename_keeps_the_id_and_turns_the_old_name_into_an_alias() -> None:
    book = Book()
    book.do(put("a", aliases=("z",)), put_rule("a", rule("r")))
    before = book.setting("a")
    book.do(RenameSetting("z", "b"))
    renamed = book.setting("b")
    assert replace(renamed, name="a", aliases=("z",), revision=before.revision) == before
    assert renamed.aliases == ("z", "a")
    book.do(RenameSetting("b", "a"))
    assert book.setting("a").aliases == ("z", "b")
    assert "b" not in book.settings()


def test_a_rename_rewrites_the_references_of_its_environment() -> None:
    book = Book("staging", "production")
    for environment in ("staging", "production"):
        book.do(
            put("a", environment=environment),
            put("b", environment=environment),
            put_rule("b", rule("r", 1, both(Not(on("a")), equals("x", 1))), environment=environment),
        )
    made = book.do(RenameSetting("a", "c"))
    assert ("production", "setting", "b") in addresses(made)
    (found,) = book.setting("b").rules
    assert found.condition is not None
    assert settings_of(found.condition) == {"c"}
    (other,) = book.setting("b", "staging").rules
    assert other.condition is not None
    assert settings_of(other.condition) == {"a"}


def test_a_segment_refers_to_a_renamed_setting_by_its_alias() -> None:
    book = Book()
    book.do(put("a"), put_segment("s", on("a")), put("b"), put_rule("b", rule("r", 1, in_segment("s"))))
    book.do(RenameSetting("a", "c"))
    with pytest.raises(FailedPreconditionError) as caught:
        book.do(DeleteSetting("c"))
    assert caught.value.reason == "IN_USE"


def test_a_name_or_alias_belongs_to_one_setting() -> None:
    book = Book()
    book.do(put("a", aliases=("x",)), put("b"))
    for mutation in (
        RenameSetting("b", "a"),
        RenameSetting("b", "x"),
        PutSetting("b", {"aliases": ("a",)}),
        PutSetting("b", {"aliases": ("x",)}),
        put("c", aliases=("x",)),
    ):
        with pytest.raises(AlreadyExistsError) as caught:
            book.plan(mutation)
        assert caught.value.metadata["field"] == "mutations[0]"
    # It can move within one change-set.
    book.do(PutSetting("a", {"aliases": ()}), PutSetting("b", {"aliases": ("x",)}))
    assert book.setting("b").aliases == ("x",)


# Expected revisions.


def test_only_items_that_are_touched_count_for_the_expected_revision() -> None:
    book = Book()
    book.do(put("a"), put("b"))
    read = book.revision
    book.do(SetValue("b", 1))
    book.do(SetValue("a", 1), expected=read)
    with pytest.raises(RevisionConflictError) as caught:
        book.do(SetValue("a", 2), SetValue("b", 2), put("c"), expected=read)
    assert [(c.kind, c.key, c.environment, c.revision) for c in caught.value.conflicts] == [
        ("setting", "a", "production", read + 2),
        ("setting", "b", "production", read + 1),
    ]
    assert caught.value.expected == read
    assert caught.value.actual == read + 2
    book.do(SetValue("a", 2), SetValue("b", 2), expected=book.revision)


def test_an_item_that_was_removed_meanwhile_is_a_conflict_too() -> None:
    book = Book()
    book.do(put("a"), put_segment("s", equals("x", 1)))
    read = book.revision
    book.do(DeleteSetting("a"), DeleteSegment("s"))
    for mutation in (put("a", default=3), put_segment("s", equals("x", 2))):
        with pytest.raises(RevisionConflictError) as caught:
            book.plan(mutation, expected=read)
        (conflict,) = caught.value.conflicts
        assert conflict.revision == read + 1
        assert book.plan(mutation, expected=read + 1).changes


def test_references_that_a_rename_rewrites_are_touched() -> None:
    book = Book()
    book.do(put("a"), put("b"), put_rule("b", rule("r", 1, on("a"))))
    read = book.revision
    book.do(SetValue("b", 1))
    with pytest.raises(RevisionConflictError) as caught:
        book.do(RenameSetting("a", "c"), expected=read)
    assert [conflict.key for conflict in caught.value.conflicts] == ["b"]


# Errors: the class, the reason and the place.


@pytest.fixture
def shop() -> Book:
    book = Book("staging", "production", features=("region", "user.plan"))
    book.do(
        put("i", "int", 1, aliases=("i-old",)),
        put("j", "Json", None),
        put("limited", features=("region",)),
        put("specific", order=Order.SPECIFICITY),
        put_rule("i", rule("r1", 5)),
        put_rule("i", rule("r2", 6, equals("x", 1))),
        put_rule("specific", rule("s1", 1, equals("region", "eu"))),
        put_segment("beta", equals("user.plan", "pro")),
    )
    return book


ERRORS: list[tuple[Mutation, type[RheostatError], str, str]] = [
    (PutProject("other"), InvalidArgumentError, "INVALID_ARGUMENT", "put_project.project.name"),
    (PutEnvironment("Prod!"), InvalidArgumentError, "INVALID_SLUG", "put_environment.environment.name"),
    (PutEnvironment("-a"), InvalidArgumentError, "INVALID_SLUG", "put_environment.environment.name"),
    (PutEnvironment("a" * 64), InvalidArgumentError, "INVALID_SLUG", "put_environment.environment.name"),
    (SetFeatures(("a", "b", "a")), InvalidSettingError, "INVALID_SETTING", "set_features.features"),
    (SetFeatures(("a", "no space")), InvalidSettingError, "INVALID_SETTING", "set_features.features[1]"),
    (SetFeatures(("a" * 65,)), InvalidSettingError, "INVALID_SETTING", "set_features.features[0]"),
    (put("bad name"), InvalidSettingError, "INVALID_SETTING", "put_setting.setting.name"),
    (put("a" * 201), InvalidSettingError, "INVALID_SETTING", "put_setting.setting.name"),
    (PutSetting("n", {"default": 1}), InvalidSettingError, "INVALID_SETTING", "put_setting.setting.type"),
    (PutSetting("n", {"type": "int"}), InvalidSettingError, "INVALID_SETTING", "put_setting.setting.default"),
    (PutSetting("i", {"type": ABSENT}), InvalidSettingError, "INVALID_SETTING", "put_setting.setting.type"),
    (
        PutSetting("i", {"default": ABSENT}),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_setting.setting.default",
    ),
    (PutSetting("i", {"rules": ()}), InvalidSettingError, "INVALID_SETTING", "put_setting.update_mask"),
    (put("n", "integer"), InvalidTypeError, "INVALID_TYPE", "put_setting.setting.type"),
    (put("n", 'Json[{"type":"nonsense"}]'), InvalidTypeError, "INVALID_TYPE", "put_setting.setting.type"),
    (
        put("n", 'Sequence<Mapping<Json[{"type":"nonsense"}]>>', []),
        InvalidTypeError,
        "INVALID_TYPE",
        "put_setting.setting.type",
    ),
    (
        put("n", 'Json[{"$ref":"https://example.com/x"}]', 1),
        InvalidTypeError,
        "INVALID_TYPE",
        "put_setting.setting.type",
    ),
    (put("n", "int", "x"), TypeMismatchError, "TYPE_MISMATCH", "put_setting.setting.default"),
    (PutSetting("i", {"value": "x"}), TypeMismatchError, "TYPE_MISMATCH", "put_setting.setting.value"),
    (PutSetting("i", {"off": 0.5}), TypeMismatchError, "TYPE_MISMATCH", "put_setting.setting.off"),
    (PutSetting("i", {"default": None}), TypeMismatchError, "TYPE_MISMATCH", "put_setting.setting.default"),
    (
        PutSetting("i", {"type": "bool"}),
        TypeMismatchError,
        "TYPE_MISMATCH",
        "put_setting.setting.rules[0].value",
    ),
    (
        PutSetting("i", {"aliases": ("x y",)}),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_setting.setting.aliases",
    ),
    (
        PutSetting("i", {"aliases": ("x", "x")}),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_setting.setting.aliases",
    ),
    (
        PutSetting("i", {"aliases": ("i",)}),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_setting.setting.aliases",
    ),
    (
        PutSetting("i", {"features": ("region", "region")}),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_setting.setting.features",
    ),
    (
        PutSetting("j", {"features": ("unknown",)}),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_setting.setting.features",
    ),
    (
        PutSetting("i", {"metadata": FrozenMapping({"a b": 1})}),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_setting.setting.metadata",
    ),
    (
        PutSetting("i", {"tags": ("t", "t")}),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_setting.setting.tags",
    ),
    (RenameSetting("i", "bad name"), InvalidSettingError, "INVALID_SETTING", "rename_setting.new_name"),
    (RenameSetting("none", "x"), SettingNotFoundError, "SETTING_NOT_FOUND", ""),
    (DeleteSetting("none"), SettingNotFoundError, "SETTING_NOT_FOUND", ""),
    (SetValue("none", 1), SettingNotFoundError, "SETTING_NOT_FOUND", ""),
    (SetValue("i", "x"), TypeMismatchError, "TYPE_MISMATCH", "set_value.value"),
    (SetValue("i", True), TypeMismatchError, "TYPE_MISMATCH", "set_value.value"),
    (SetValue("i", None), TypeMismatchError, "TYPE_MISMATCH", "set_value.value"),
    (UnsetValue("none"), SettingNotFoundError, "SETTING_NOT_FOUND", ""),
    (put_rule("none", rule("r")), SettingNotFoundError, "SETTING_NOT_FOUND", ""),
    (put_rule("i", rule("no dots.")), InvalidSettingError, "INVALID_SETTING", "put_rule.rule.id"),
    (put_rule("i", rule("x" * 65)), InvalidSettingError, "INVALID_SETTING", "put_rule.rule.id"),
    (put_rule("i", rule("r", "x")), TypeMismatchError, "TYPE_MISMATCH", "put_rule.rule.value"),
    (put_rule("i", Rule("r", None)), InvalidSettingError, "INVALID_SETTING", "put_rule.rule.outcome"),
    (
        put_rule("i", Rule("r", split(50_000, 40_000))),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_rule.rule.distribution.variants",
    ),
    (
        put_rule("i", Rule("r", split(100_001, -1))),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_rule.rule.distribution.variants[0].weight",
    ),
    (
        put_rule("i", Rule("r", split())),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_rule.rule.distribution.variants",
    ),
    (
        put_rule("i", Rule("r", split(100_000, unit=""))),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_rule.rule.distribution.unit",
    ),
    (
        put_rule("i", Rule("r", split(50_000, 50_000, values=(1, "x")))),
        TypeMismatchError,
        "TYPE_MISMATCH",
        "put_rule.rule.distribution.variants[1].value",
    ),
    (
        put_rule("i", Rule("r", replace(split(100_000), variants=split(100_000).variants * 2))),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_rule.rule.distribution.variants",
    ),
    (
        put_rule("i", rule("r", 1, both(equals("a", 1), equals("b", None)))),
        InvalidConditionError,
        "INVALID_CONDITION",
        "put_rule.rule.condition.all_of.conditions[1].comparison.right",
    ),
    (
        put_rule("i", rule("r", 1, Unrecognized("from the future"))),
        InvalidConditionError,
        "INVALID_CONDITION",
        "put_rule.rule.condition",
    ),
    (
        put_rule("i", rule("r", 1, Percentage("u", "", 5, 4))),
        InvalidConditionError,
        "INVALID_CONDITION",
        "put_rule.rule.condition.percentage.to_bucket",
    ),
    (put_rule("i", rule("r", 1, in_segment("none"))), InvalidConditionError, "UNKNOWN_SEGMENT", ""),
    (put_rule("i", rule("r", 1, on("none"))), InvalidConditionError, "UNKNOWN_SETTING", ""),
    (put_rule("i", rule("r", 1, on("i"))), FailedPreconditionError, "CYCLE", ""),
    (put_rule("i", rule("r"), before="none"), NotFoundError, "RULE_NOT_FOUND", ""),
    (
        put_rule("i", rule("r"), before="r1", after="r1"),
        InvalidArgumentError,
        "INVALID_ARGUMENT",
        "put_rule.after_id",
    ),
    (MoveRule("i", "r1"), InvalidArgumentError, "INVALID_ARGUMENT", "move_rule.before_id"),
    (MoveRule("i", "r1", "r2", "r2"), InvalidArgumentError, "INVALID_ARGUMENT", "move_rule.after_id"),
    (MoveRule("i", "none", "r1"), NotFoundError, "RULE_NOT_FOUND", ""),
    (MoveRule("i", "r1", "none"), NotFoundError, "RULE_NOT_FOUND", ""),
    (MoveRule("i", "r1", "r1"), NotFoundError, "RULE_NOT_FOUND", ""),
    (DeleteRule("i", "none"), NotFoundError, "RULE_NOT_FOUND", ""),
    (
        put_segment("bad name", equals("a", 1)),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_segment.segment.name",
    ),
    (
        put_segment("s", Comparison(equals("a", 1).left, Operator.MATCHES, equals("a", "(").right)),
        InvalidConditionError,
        "INVALID_CONDITION",
        "put_segment.segment.condition.comparison.right",
    ),
    (put_segment("s", in_segment("none")), InvalidConditionError, "UNKNOWN_SEGMENT", ""),
    (put_segment("s", in_segment("s")), FailedPreconditionError, "CYCLE", ""),
    (
        PutSegment(Segment("new", AllOf(())), keep_condition=True),
        InvalidSettingError,
        "INVALID_SETTING",
        "put_segment.segment.condition",
    ),
    (DeleteSegment("none"), NotFoundError, "SEGMENT_NOT_FOUND", ""),
    (
        put_rule("limited", rule("r", 1, equals("user.plan", "x"))),
        InvalidConditionError,
        "UNDECLARED_FEATURE",
        "",
    ),
    (SetFeatures(("user.plan",)), FailedPreconditionError, "IN_USE", ""),
    (put_rule("specific", rule("s2"), after="s1"), FailedPreconditionError, "ORDERED_BY_SPECIFICITY", ""),
    (MoveRule("specific", "s1", before_id="s1"), FailedPreconditionError, "ORDERED_BY_SPECIFICITY", ""),
    (
        put_rule("specific", rule("s2", 2, both(equals("x", 1), equals("y", 1)))),
        InvalidConditionError,
        "NOT_SPECIFIC",
        "",
    ),
    (
        put_rule("specific", rule("s2", 2, equals("region", "eu"))),
        InvalidConditionError,
        "DUPLICATE_RULE",
        "",
    ),
    (SetValue("i", 1, "unknown"), PermissionDeniedError, "UNKNOWN_ENVIRONMENT", ""),
]


@pytest.mark.parametrize(("mutation", "kind", "reason", "place"), ERRORS, ids=lambda part: str(part)[:60])
def test_an_error_names_its_mutation_and_field(
    shop: Book, mutation: Mutation, kind: type[RheostatError], reason: str, place: str
) -> None:
    # Behind two harmless ones, so that the index is not by chance.
    with pytest.raises(kind) as caught:
        shop.plan(put("other"), SetValue("other", 7), mutation)
    error = caught.value
    assert type(error) is kind
    assert error.reason == reason
    assert error.metadata["field"] == "mutations[2]"
    if isinstance(error, InvalidArgumentError):
        expected = f"mutations[2].{place}" if place else "mutations[2]"
        assert violated(error) == [expected]
        assert error.message.startswith(expected)
    assert shop.plan(put("other"), SetValue("other", 7)).changes


def test_a_mutation_without_an_environment_is_refused_where_several_are_possible(shop: Book) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        shop.plan(SetValue("i", 1), environment="")
    assert caught.value.reason == "ENVIRONMENT_REQUIRED"
    assert violated(caught.value) == ["mutations[0].environment"]
    assert "production, staging" in caught.value.message
    with pytest.raises(InvalidArgumentError, match=r"choose one of staging$"):
        plan(
            shop.state,
            "shop",
            "",
            [SetValue("i", 1)],
            revision=9,
            new_id=shop.new_id,
            sees=lambda slug: slug == "staging",
        )
    # What is project-wide needs none.
    assert shop.plan(
        PutProject("shop", title="x"), PutEnvironment("e"), put_segment("s", equals("x", 1)), environment=""
    ).changes


def test_an_unknown_project_is_refused_unless_the_change_set_makes_it() -> None:
    def attempt(*mutations: Mutation) -> Plan:
        return plan(State(), "new", "", mutations, revision=1, new_id=lambda: "x")

    for mutation in (PutEnvironment("e"), SetFeatures(("a",)), put_segment("s", equals("x", 1))):
        with pytest.raises(PermissionDeniedError) as caught:
            attempt(mutation)
        assert caught.value.reason == "UNKNOWN_PROJECT"
    assert [c.kind for c in attempt(PutProject("new"), PutEnvironment("e")).changes] == [
        "project",
        "environment",
    ]


def test_all_violations_of_a_condition_are_named(shop: Book) -> None:
    with pytest.raises(InvalidConditionError) as caught:
        shop.plan(put_rule("i", rule("r", 1, both(equals("", 1), Not(equals("a", None))))))
    prefix = "mutations[0].put_rule.rule.condition.all_of"
    assert violated(caught.value) == [
        f"{prefix}.conditions[0].comparison.left",
        f"{prefix}.conditions[1].negation.condition.comparison.right",
    ]


# Use, references, cycles.


def test_deleting_what_is_in_use_is_refused_naming_a_user() -> None:
    book = Book()
    book.do(
        put("a"),
        put_segment("inner", equals("x", 1)),
        put_segment("outer", in_segment("inner")),
        put("b"),
        put_rule("b", rule("r", 1, on("a"))),
        put("c"),
        put_rule("c", rule("q", 1, in_segment("outer"))),
    )
    for mutation, users in (
        (DeleteSetting("a"), ("rule 'r'", "'b'", "'production'")),
        (DeleteSegment("outer"), ("rule 'q'", "'c'", "'production'")),
        (DeleteSegment("inner"), ("the segment 'outer'",)),
    ):
        with pytest.raises(FailedPreconditionError) as caught:
            book.plan(put("z"), mutation)
        assert caught.value.reason == "IN_USE"
        assert caught.value.metadata["field"] == "mutations[1]"
        for user in users:
            assert user in caught.value.message
    book.do(
        DeleteSetting("b"),
        DeleteSetting("c"),
        DeleteSegment("outer"),
        DeleteSegment("inner"),
        DeleteSetting("a"),
    )
    assert book.settings() == {}


def test_a_setting_in_use_by_its_alias_cannot_be_deleted_and_the_alias_cannot_go() -> None:
    book = Book()
    book.do(put("a", aliases=("old",)), put("b"), put_rule("b", rule("r", 1, on("old"))))
    for mutation in (DeleteSetting("a"), PutSetting("a", {"aliases": ()})):
        with pytest.raises(FailedPreconditionError) as caught:
            book.plan(put("z"), mutation)
        assert caught.value.reason == "IN_USE"
        assert "rule 'r'" in caught.value.message
        assert caught.value.metadata["field"] == "mutations[1]"


def test_a_setting_in_use_through_a_segment_cannot_be_deleted() -> None:
    book = Book()
    book.do(put("a"), put_segment("s", on("a")), put("b"), put_rule("b", rule("r", 1, in_segment("s"))))
    with pytest.raises(FailedPreconditionError) as caught:
        book.plan(DeleteSetting("a"))
    assert caught.value.reason == "IN_USE"


def test_a_segment_may_be_used_only_where_the_settings_that_it_reads_exist() -> None:
    book = Book("staging", "production")
    book.do(put("a"), put_segment("s", on("a")))
    book.do(put("b"), put_rule("b", rule("r", 1, in_segment("s"))))
    with pytest.raises(InvalidConditionError) as caught:
        book.plan(put("b"), put_rule("b", rule("r", 1, in_segment("s"))), environment="staging")
    assert caught.value.reason == "UNKNOWN_SETTING"
    assert "'staging'" in caught.value.message


@pytest.mark.parametrize(
    "closing",
    [
        put_rule("a", rule("r", 1, on("b"))),
        put_rule("a", rule("r", 1, on("b-old"), enabled=False)),
        put_rule("a", rule("r", 1, in_segment("to-b"))),
        put_segment("empty", on("b")),
    ],
    ids=["setting", "alias of a disabled rule", "segment", "both"],
)
def test_a_cycle_is_refused_in_the_environment_that_has_it(closing: Mutation) -> None:
    book = Book("staging", "production")
    book.do(
        put("a"),
        put("b", aliases=("b-old",)),
        put_rule("b", rule("q", 1, on("a"))),
        put_segment("to-b", on("b")),
        put_segment("empty", equals("x", 1)),
        put_rule("a", rule("p", 1, in_segment("empty"))),
        put("a", environment="staging"),
        put("b", environment="staging", aliases=("b-old",)),
    )
    with pytest.raises(FailedPreconditionError) as caught:
        book.plan(put("z"), closing)
    assert caught.value.reason == "CYCLE"
    assert caught.value.metadata["field"] == "mutations[1]"
    assert "'production'" in caught.value.message
    # In the other environment b refers to nothing.
    if isinstance(closing, PutRule):
        assert book.plan(replace(closing, environment="staging")).changes


def test_a_cycle_of_segments_is_refused() -> None:
    book = Book()
    book.do(put_segment("a", equals("x", 1)), put_segment("b", in_segment("a")))
    with pytest.raises(FailedPreconditionError) as caught:
        book.plan(put_segment("a", Not(in_segment("b"))))
    assert caught.value.reason == "CYCLE"
    assert 'segment("b")' in caught.value.message


def test_nesting_too_deep_through_references_is_refused_wherever_it_grows() -> None:
    def deep(levels: int, leaf: Comparison) -> Not | Comparison:
        made: Not | Comparison = leaf
        for _ in range(levels):
            made = Not(made)
        return made

    book = Book()
    book.do(put("a"), put("b"), put("c"))
    book.do(put_rule("b", rule("r", 1, deep(30, on("a")))), put_rule("c", rule("r", 1, deep(30, on("b")))))
    # c itself is not touched.
    with pytest.raises(InvalidConditionError) as caught:
        book.plan(put_rule("a", rule("r", 1, deep(20, equals("x", 1)))))
    assert violated(caught.value) == ["mutations[0]"]


# Features.


@pytest.mark.parametrize(
    "mutations",
    [
        [put_rule("limited", rule("r", 1, equals("user.plan", "x")))],
        [put_rule("limited", Rule("r", split(100_000, unit="user.id")))],
        [put_rule("limited", rule("r", 1, Percentage("user.id", "s", 0, 5)))],
        [put_rule("limited", rule("r", 1, in_segment("beta")))],
        [put_rule("limited", rule("r", 1, on("reader")))],
        [put_rule("limited", rule("r", 1, on("splitter")))],
        [put_segment("by-region", equals("user.plan", "x"))],
        [put_rule("plain", rule("r", 1, equals("user.plan", "x")))],
        [put_rule("plain", Rule("r", split(100_000, unit="user.id")))],
        [PutSetting("limited", {"features": ()})],
    ],
    ids=[
        "condition",
        "unit",
        "percentage",
        "segment",
        "reference",
        "unit behind a reference",
        "segment changed later",
        "reference changed later",
        "unit behind a reference changed later",
        "features taken away",
    ],
)
def test_features_limit_what_rules_may_read(mutations: list[Mutation]) -> None:
    book = Book(features=("region", "user.plan", "user.id"))
    book.do(
        put("reader"),
        put_rule("reader", rule("r", 1, equals("user.plan", "x"))),
        put("splitter"),
        put_rule("splitter", Rule("r", split(100_000))),
        put_segment("beta", equals("user.plan", "pro")),
        put_segment("by-region", equals("region", "eu")),
        put("plain"),
        put("limited", features=("region",)),
        put_rule("limited", rule("ok", 1, equals("region", "eu"))),
        put_rule("limited", rule("ok2", 1, in_segment("by-region"))),
        put_rule("limited", rule("ok3", 1, on("plain"))),
    )
    with pytest.raises(InvalidConditionError) as caught:
        book.plan(put("z"), *mutations)
    assert caught.value.reason == "UNDECLARED_FEATURE"
    assert violated(caught.value) == ["mutations[1]"]
    assert caught.value.metadata["setting"] == "limited"
    assert caught.value.metadata["attribute"] in ("user.plan", "user.id", "region")


def test_an_alias_that_moves_to_another_setting_is_followed() -> None:
    book = Book(features=("region", "user.plan"))
    book.do(
        put("plain", aliases=("moving",)),
        put("reader"),
        put_rule("reader", rule("r", 1, equals("user.plan", "x"))),
        put("limited", features=("region",)),
        put_rule("limited", rule("r", 1, on("moving"))),
    )
    with pytest.raises(InvalidConditionError) as caught:
        book.plan(PutSetting("plain", {"aliases": ()}), PutSetting("reader", {"aliases": ("moving",)}))
    assert caught.value.reason == "UNDECLARED_FEATURE"
    assert violated(caught.value) == ["mutations[1]"]


def test_absent_features_allow_any_attribute_and_empty_ones_none() -> None:
    book = Book(features=("region",))
    book.do(put("any"), put("none", features=()))
    made = book.do(put_rule("any", rule("r", 1, equals("elsewhere", 1))))
    assert [(w.code, w.mutation) for w in made.warnings] == [("UNDECLARED_ATTRIBUTE", 0)]
    with pytest.raises(InvalidConditionError):
        book.plan(put_rule("none", rule("r", 1, equals("region", 1))))
    book.do(put_rule("none", rule("r", 1)))


def test_a_feature_in_use_cannot_be_removed_and_an_unused_one_can() -> None:
    book = Book("staging", "production", features=("a", "b", "c"))
    book.do(put("s", features=("b",), environment="staging"))
    with pytest.raises(FailedPreconditionError) as caught:
        book.plan(put("z"), SetFeatures(("a", "c")))
    assert caught.value.reason == "IN_USE"
    assert caught.value.metadata == {"feature": "b", "setting": "s", "field": "mutations[1]"}
    book.do(SetFeatures(("b",)))


def test_a_feature_may_be_registered_in_the_change_set_that_uses_it() -> None:
    book = Book()
    book.do(put("s", features=("new",)), SetFeatures(("new",)))
    assert book.setting("s").features == ("new",)


# Order by specificity.


def specific(**further: object) -> Book:
    book = Book(features=("region", "plan", "id"))
    book.do(put("s", order=Order.SPECIFICITY, **further))
    return book


def test_rules_by_specificity_are_ordered_at_write_whatever_their_place() -> None:
    book = specific()
    conditions = {
        "any": None,
        "other": equals("x", 1),
        "region": equals("region", "eu"),
        "plan": equals("plan", "pro"),
        "region-plan": both(equals("region", "eu"), equals("plan", "pro")),
        "plan-further": both(equals("plan", "pro"), equals("x", 1)),
        "id": equals("id", "1"),
    }
    for name, condition in conditions.items():
        book.do(put_rule("s", rule(name, 1, condition)))
    # The last feature first; an exact condition beats an absent one; then a further condition beats none.
    assert book.rules("s") == ["id", "region-plan", "plan-further", "plan", "region", "other", "any"]
    book.do(put_rule("s", rule("other", 1, equals("id", "2"))))
    assert book.rules("s")[:2] == ["other", "id"], "the lower number wins a tie"


def test_a_change_of_the_hierarchy_orders_all_rules_anew() -> None:
    book = specific()
    book.do(
        put("s2", order=Order.SPECIFICITY, features=("plan", "region")),
        *(
            put_rule(name, rule(feature, 1, equals(feature, "x")))
            for name in ("s", "s2")
            for feature in ("region", "plan")
        ),
    )
    assert book.rules("s") == book.rules("s2") == ["plan", "region"]
    made = book.do(SetFeatures(("id", "plan", "region")))
    assert book.rules("s") == book.rules("s2") == ["region", "plan"]
    assert {key for _, _, key in addresses(made)} == {"shop", "s", "s2"}


def test_a_hierarchy_under_which_a_rule_is_no_longer_specific_is_refused() -> None:
    book = specific()
    book.do(put_rule("s", rule("r", 1, both(equals("region", "eu"), equals("plan", "x")))))
    with pytest.raises(InvalidConditionError) as caught:
        book.plan(put("z"), SetFeatures(("id",)))
    assert caught.value.reason == "NOT_SPECIFIC"
    assert violated(caught.value) == ["mutations[1]"]


def test_turning_to_specificity_orders_what_is_there() -> None:
    book = Book(features=("region",))
    book.do(put("s"), put_rule("s", rule("all")), put_rule("s", rule("eu", 1, equals("region", "eu"))))
    assert book.rules("s") == ["all", "eu"]
    book.do(PutSetting("s", {"order": Order.SPECIFICITY}))
    assert book.rules("s") == ["eu", "all"]


# Rules.


def test_rules_are_placed_moved_replaced_and_removed() -> None:
    book = Book()
    book.do(put("s"), *(put_rule("s", rule(name)) for name in "abc"))
    book.do(put_rule("s", rule("d"), before="a"), put_rule("s", rule("e"), after="a"))
    assert book.rules("s") == ["d", "a", "e", "b", "c"]
    book.do(MoveRule("s", "c", before_id="d"), MoveRule("s", "d", after_id="b"))
    assert book.rules("s") == ["c", "a", "e", "b", "d"]
    book.do(put_rule("s", rule("e", 9)))
    assert book.rules("s") == ["c", "a", "e", "b", "d"]
    book.do(put_rule("s", rule("e", 9), after="d"))
    assert book.rules("s") == ["c", "a", "b", "d", "e"]
    book.do(DeleteRule("s", "a"))
    assert book.rules("s") == ["c", "b", "d", "e"]


def test_a_rule_without_an_id_gets_a_fresh_one_and_each_rule_a_number_never_reused() -> None:
    book = Book("staging", "production")
    book.do(put("s"), put("s", environment="staging"))
    book.do(put_rule("s", rule("")), put_rule("s", rule("")), put_rule("s", rule("x"), environment="staging"))
    first, second = book.setting("s").rules
    assert first.id
    assert first.id != second.id
    numbers = [first.number, second.number, book.setting("s", "staging").rules[0].number]
    assert numbers == [1, 2, 3]
    book.do(DeleteRule("s", second.id))
    book.do(put_rule("s", rule("y")))
    assert book.setting("s").rule("y").number == 4  # type: ignore[union-attr]
    book.do(put_rule("s", rule("y", 5)))
    assert book.setting("s").rule("y").number == 4  # type: ignore[union-attr]


def test_a_replaced_rule_stays_disabled_when_the_writer_does_not_say() -> None:
    book = Book()
    book.do(put("s"), put_rule("s", rule("r", enabled=False)))
    book.do(PutRule("s", rule("r", 2), keep_enabled=True))
    assert not book.setting("s").rules[0].enabled
    book.do(PutRule("s", rule("r", 2)))
    assert book.setting("s").rules[0].enabled


def outcome_of(book: Book, name: str, rule_id: str) -> Distribution:
    found = book.setting(name).rule(rule_id)
    assert found is not None
    assert isinstance(found.outcome, Distribution)
    return found.outcome


def test_an_absent_salt_is_written_out_kept_on_replacing_and_never_follows_a_rename() -> None:
    book = Book()
    rollout = Percentage("user.id", "", 0, 10_000)
    book.do(put("s"), put_rule("s", Rule("r", split(100_000), both(rollout, Not(rollout)))))

    def salts() -> list[str]:
        found = book.setting(name).rule("r")
        assert found is not None
        assert found.condition is not None
        inside = [part.salt for part in walk(found.condition) if isinstance(part, Percentage)]
        return [outcome_of(book, name, "r").salt, *inside]

    name = "s"
    assert salts() == ["s"] * 3
    book.do(RenameSetting("s", "t"))
    name = "t"
    assert salts() == ["s"] * 3
    book.do(put_rule("t", Rule("r", split(50_000, 50_000), both(rollout, rollout))))
    assert salts() == ["s"] * 3
    book.do(put_rule("t", Rule("r", split(50_000, 50_000, salt="own"), both(rollout))))
    assert salts() == ["own", "s"]
    book.do(put_rule("t", Rule("n", split(100_000))))
    assert outcome_of(book, "t", "n").salt == "t"


def test_a_segment_s_absent_salt_is_its_name() -> None:
    book = Book()
    book.do(put_segment("half", Percentage("user.id", "", 0, 50_000)))
    assert book.segment("half").condition == Percentage("user.id", "half", 0, 50_000)
    book.do(put_segment("half", Percentage("user.id", "", 0, 60_000)))
    assert book.segment("half").condition == Percentage("user.id", "half", 0, 60_000)


def test_an_algorithm_that_the_writer_does_not_name_is_kept() -> None:
    book = Book()
    stored = replace(split(100_000), algorithm=BucketAlgorithm.REPLANE)
    book.do(put("s"), put_rule("s", Rule("r", stored)))
    book.do(PutRule("s", Rule("r", split(50_000, 50_000)), keep_algorithms=True))
    assert outcome_of(book, "s", "r").algorithm is BucketAlgorithm.REPLANE
    book.do(PutRule("s", Rule("r", split(50_000, 50_000))))
    assert outcome_of(book, "s", "r").algorithm is BucketAlgorithm.MURMUR3


def test_the_sum_of_the_weights_is_named_when_it_is_wrong() -> None:
    book = Book()
    with pytest.raises(InvalidSettingError, match="sum to 99999 "):
        book.plan(put("s"), put_rule("s", Rule("r", split(50_000, 49_999))))
    book.do(put("s"), put_rule("s", Rule("r", split(0, 100_000, 0))))


# Types and values.


def test_retyping_brings_every_stored_value_into_the_new_form() -> None:
    book = Book()
    book.do(
        put("s", "int", 1, value=2, off=3),
        put_rule("s", rule("r", 4)),
        put_rule("s", Rule("d", split(50_000, 50_000, values=(5, 6)))),
    )
    book.do(PutSetting("s", {"type": "float"}))
    made = book.setting("s")
    values = [made.default, made.value, made.off]
    values += [r.outcome.value for r in made.rules if isinstance(r.outcome, ValueOutcome)]
    values += [v.value for v in outcome_of(book, "s", "d").variants]
    assert all(type(value) is float for value in values)
    book.do(PutSetting("s", {"type": "int"}))
    assert book.setting("s").default == 1


@pytest.mark.parametrize(
    ("mutation", "place"),
    [
        (PutSetting("s", {"default": "a"}), "default"),
        (PutSetting("s", {"value": "c"}), "value"),
        (PutSetting("s", {"off": "c"}), "off"),
        (put_rule("s", rule("r", "c")), "rules[0].value"),
        (
            put_rule("s", Rule("r", split(50_000, 50_000, values=("a", "c")))),
            "rules[0].distribution.variants[1].value",
        ),
    ],
)
def test_a_type_that_refuses_any_stored_value_is_refused(mutation: Mutation, place: str) -> None:
    book = Book()
    book.do(put("s", "str", "b"))
    book.do(mutation)
    narrower = 'Enum["a","b"]' if place != "default" else 'Enum["b"]'
    with pytest.raises(TypeMismatchError) as caught:
        book.plan(PutSetting("s", {"type": narrower}))
    assert violated(caught.value) == [f"mutations[0].put_setting.setting.{place}"]


def test_null_is_a_value_only_in_json() -> None:
    book = Book()
    book.do(put("j", "Json", None), put("m", "Mapping<Json>", {"a": None}))
    book.do(SetValue("j", None), put_rule("j", rule("r", None)))
    assert book.setting("j").value is None
    for type_ in ("int", "str", "bool", "float", "Sequence<int>", 'Enum["a"]', 'Flags["a"]'):
        with pytest.raises(TypeMismatchError):
            book.plan(put("n", type_, None))


def test_values_obey_the_json_schema_of_their_type() -> None:
    book = Book()
    schema = '{"properties":{"port":{"maximum":65535,"type":"integer"}},"required":["port"],"type":"object"}'
    book.do(put("j", f"Json[{schema}]", {"port": 1}), put("l", f"Mapping<Sequence<Json[{schema}]>>", {}))
    for mutation, place in (
        (SetValue("j", freeze({"port": 70_000})), "set_value.value"),
        (SetValue("j", freeze({})), "set_value.value"),
        (SetValue("l", freeze({"a": [{"port": "x"}]})), "set_value.value"),
        (put_rule("j", rule("r", {"port": "x"})), "put_rule.rule.value"),
        (PutSetting("j", {"type": 'Json[{"maxProperties":0}]'}), "put_setting.setting.default"),
    ):
        with pytest.raises(TypeMismatchError) as caught:
            book.plan(mutation)
        assert violated(caught.value) == [f"mutations[0].{place}"]
    assert book.plan(SetValue("l", freeze({"a": [{"port": 3}]}))).changes


def test_a_schema_s_pattern_takes_linear_time() -> None:
    book = Book()
    book.do(put("j", 'Json[{"pattern":"^(a+)+$"}]', "a"))
    with pytest.raises(TypeMismatchError):
        book.plan(SetValue("j", "a" * 50_000 + "!"))
    with pytest.raises(InvalidTypeError):
        book.plan(put("k", 'Json[{"pattern":"(a)\\\\1"}]', "aa"))


def is_in(path: str, *values: object) -> Comparison:
    return Comparison(Attribute(path), Operator.IN, None, tuple(freeze(value) for value in values))


@pytest.mark.parametrize(
    "secret",
    [
        "-----BEGIN RSA " + "PRIVATE KEY-----\nabc",
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "AIza" + "a" * 35,
        "ghp_" + "a" * 36,
        "xoxb-" + "1" * 24,
        "sk_live_" + "a" * 24,
        "rst_server_" + "a" * 16 + "_" + "0" * 64 + "_00000000",
        "github_pat_" + "a" * 60,
        "whsec_" + "a" * 32,
    ],
)
def test_a_value_that_looks_like_a_credential_is_refused_without_repeating_it(secret: str) -> None:
    book = Book()
    book.do(put("s", "str", ""), put("j", "Json", None), put("i"), put("e", 'Enum["a"]', "a"))
    described = rule("r", "")
    for mutation in (
        put("n", "str", secret),
        # It is not repeated by what says that it is of another type either.
        put("n", "int", secret),
        PutSetting("s", {"off": secret, "type": "int"}),
        SetValue("i", secret),
        SetValue("e", secret),
        put_rule("i", rule("r", freeze([1, secret]))),
        # Texts are no vault either.
        put("n", f'Enum["a", "{secret}"]', "a"),
        put("n", f"Enum[{secret}", "a"),
        put("n", "str", "", description=f"log in with {secret}"),
        put("n", "str", "", owner=secret),
        put("n", "str", "", tags=("a", secret)),
        put_rule("s", replace(described, description=f"for {secret}")),
        put_rule("s", replace(described, metadata=freeze({"ticket": [secret]}))),
        PutSegment(Segment("g", equals("a", 1), f"those with {secret}")),
        PutProject("shop", title=secret),
        PutProject("shop", description=secret),
        PutEnvironment("production", title=secret),
        PutEnvironment("production", description=secret),
        SetValue("s", f"see {secret} here"),
        SetValue("j", freeze({"a": [1, {"b": secret}]})),
        put_rule("s", rule("r", secret)),
        put_rule("s", Rule("r", split(50_000, 50_000, values=("", secret)))),
        SetValue("j", freeze({secret: True})),
        put("m", "str", "", metadata=freeze({"owner": {"token": secret}})),
        put_rule("s", rule("r", "", equals("token", secret))),
        put_segment("g", both(equals("a", 1), Not(is_in("token", "x", secret)))),
    ):
        with pytest.raises(InvalidSettingError) as caught:
            book.plan(mutation)
        assert caught.value.reason == "LOOKS_LIKE_CREDENTIAL"
        assert secret not in caught.value.message
        assert all(secret not in v.description for v in caught.value.violations)


# Declared settings.


def test_what_code_has_declared_changes_only_with_a_higher_version() -> None:
    book = Book(features=("region",))
    book.do(put("a", "int", 1, version=Version(1, 1)), put_rule("a", rule("r", 1)))
    book.declare("a")
    for mutation, place in (
        (PutSetting("a", {"default": 2}), "default"),
        (PutSetting("a", {"type": "float"}), "type"),
        (PutSetting("a", {"features": ()}), "features"),
        (PutSetting("a", {"metadata": FrozenMapping({"k": 1})}), "metadata"),
        (PutSetting("a", {"aliases": ("y",)}), "aliases"),
        (RenameSetting("a", "b"), "name"),
        (PutSetting("a", {"default": 2, "version": Version(1, 1)}), "default"),
        (PutSetting("a", {"default": 2, "version": Version(1, 0)}), "default"),
    ):
        with pytest.raises(FailedPreconditionError) as caught:
            book.plan(put("z"), mutation)
        assert caught.value.reason == "DECLARED_BY_CODE"
        assert caught.value.metadata == {"setting": "a", "field": place}
    # Anything else is the operators'.
    book.do(
        SetValue("a", 9),
        put_rule("a", rule("q", 2)),
        PutSetting("a", {"description": "d", "owner": "o", "tags": ("t",), "enabled": False, "off": 3}),
    )
    book.do(RenameSetting("a", "b"), PutSetting("b", {"default": 2, "version": Version(1, 10)}))
    assert book.setting("b").default == 2
    assert book.setting("b").declared


# Limits.


@pytest.mark.parametrize(
    ("limits", "mutations"),
    [
        ({"max_mutations": 2}, [put("a"), put("b"), put("c")]),
        ({"max_value_bytes": 10}, [put("a", "str", "é" * 5)]),
        ({"max_item_bytes": 200}, [put("a", description="é" * 100)]),
        ({"max_item_bytes": 200}, [PutSegment(Segment("s", equals("x", 1), "d" * 200))]),
        ({"max_rules": 2}, [put("a"), *(put_rule("a", rule(name)) for name in "abc")]),
        ({"max_settings": 2}, [put("a"), put("b"), put("c")]),
        ({"max_segments": 1}, [put_segment("a", equals("x", 1)), put_segment("b", equals("x", 1))]),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else "",
)
def test_a_limit_is_reported_by_its_name(limits: dict[str, int], mutations: list[Mutation]) -> None:
    book = Book()
    with pytest.raises(LimitExceededError) as caught:
        book.plan(*mutations, limits=Limits(**limits))
    (name,) = limits
    assert caught.value.limit == name
    assert name in {limit.name for limit in fields(Limits)}
    assert book.plan(*mutations, limits=Limits(**{name: limits[name] * 3})).changes


def test_a_condition_nested_too_deep_is_refused() -> None:
    book = Book()
    mutations = [put("a"), put_rule("a", rule("r", 1, Not(Not(Not(equals("x", 1))))))]
    with pytest.raises(InvalidConditionError):
        book.plan(*mutations, limits=Limits(max_condition_depth=3))
    assert book.plan(*mutations, limits=Limits(max_condition_depth=4)).changes


# Reverting.


def test_a_change_set_is_undone_item_by_item() -> None:
    book = Book()
    book.do(put("a", default=1), put("b"), put("gone", default=7), put_rule("gone", rule("r")))
    before = book.state.projects
    done = book.do(SetValue("a", 5), RenameSetting("b", "c"), DeleteSetting("gone"), put("new"))
    book.revert(done)
    for name, setting in before["shop"].environments["production"].settings.items():
        assert replace(book.setting(name), revision=setting.revision) == setting
    assert set(book.settings()) == {"a", "b", "gone"}


def test_an_item_that_changed_again_is_a_conflict_and_one_that_changed_back_is_not() -> None:
    book = Book()
    book.do(put("a"), put("b"))
    done = book.do(SetValue("a", 1), SetValue("b", 1), put("c"))
    book.do(SetValue("b", 2))
    book.do(DeleteSetting("c"))
    with pytest.raises(RevisionConflictError) as caught:
        book.revert(done)
    assert {(c.key, c.revision) for c in caught.value.conflicts} == {
        ("b", book.revision - 1),
        ("c", book.revision),
    }
    book.do(SetValue("b", 1), put("c"))
    with pytest.raises(RevisionConflictError) as caught:
        book.revert(done)  # the new c is another setting
    assert [c.key for c in caught.value.conflicts] == ["c"]


def test_a_revert_never_leaves_two_settings_of_one_name_or_identity() -> None:
    book = Book()
    book.do(put("a", aliases=("x",)))
    gone = book.do(DeleteSetting("a"))
    book.do(put("b", aliases=("x",)))
    with pytest.raises(AlreadyExistsError, match="'x'"):
        book.revert(gone)
    book.do(PutSetting("b", {"aliases": ("a",)}))
    with pytest.raises(AlreadyExistsError, match="'a'"):
        book.revert(gone)
    book.do(PutSetting("b", {"aliases": ()}))
    book.revert(gone)


def test_a_revert_that_would_break_a_reference_is_refused() -> None:
    book = Book()
    made = book.do(put("a"))
    book.do(put("b"), put_rule("b", rule("r", 1, on("a"))))
    with pytest.raises(FailedPreconditionError) as caught:
        book.revert(made)
    assert caught.value.reason == "IN_USE"


def test_a_plan_leaves_the_state_that_it_was_made_on_alone() -> None:
    book = Book("staging", "production", features=("region",))
    book.do(put("a", type_="str", default=""), put("b"), put_rule("b", rule("r", 1, on("a", "x"))))
    text = repr(book.state)
    book.plan(
        RenameSetting("a", "c"),
        DeleteSetting("b"),
        put_segment("s", equals("x", 1)),
        SetFeatures(()),
        put("z"),
    )
    with pytest.raises(RheostatError):
        book.plan(DeleteSetting("a"))
    assert repr(book.state) == text
