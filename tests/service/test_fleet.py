"""The clients of a fleet: who is there, how far they have got, and values that some of them could not decode."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rheostat.errors import FailedPreconditionError, LimitExceededError, NotFoundError
from rheostat.model.change import DeleteSetting, PutSetting, RenameSetting, SetValue
from rheostat.model.client import ClientReport
from rheostat.model.declaration import Declaration, DeclarationOutcome
from rheostat.model.rule import Rule
from rheostat.model.setting import Version
from rheostat.model.type import parse_type
from rheostat.model.value import freeze
from rheostat.model.watch import Bookmark
from rheostat.service import Limits
from rheostat.service.fleet import Rollout
from rheostat.service.roster import GRACE, LIFE
from tests.service.book import put, put_rule, rule, split
from tests.service.node import NOBODY, PRODUCTION, PROJECT, Node, Watch, World

SECOND = datetime.timedelta(seconds=1)


@pytest.fixture
def node(world: World) -> Node:
    made = world.node(node="one")
    made.commit(put("limit"), put("mode", "str", "a"))
    return made


def declaration(
    name: str, type_: str, default: object = 0, version: str = "1.0", **fields: Any
) -> Declaration:
    return Declaration(name, parse_type(type_), freeze(default), Version.parse(version), **fields)


def declare(node: Node, id_: str, *types: tuple[str, str], continued: bytes = b"", **fields: Any) -> bytes:
    """A client connects and declares settings of these names and types."""
    declarations = [declaration(name, type_) for name, type_ in types]
    actor = fields.pop("actor", "")
    return node.service.fleet.declare(
        PROJECT,
        fields.pop("environment", PRODUCTION),
        declarations,
        continued=continued,
        client=ClientReport(id_, **fields),
        actor=actor,
    )


def report(node: Node, id_: str, revision: int | None = None, **fields: Any) -> list[str]:
    actor = fields.pop("actor", "")
    made = ClientReport(id_, generation=1, revision=node.revision if revision is None else revision, **fields)
    return node.service.fleet.report(PROJECT, PRODUCTION, [made], actor)


def rollout(node: Node, revision: int = 0, *, ask: bool = False, max_laggards: int = 100) -> Rollout:
    node.service.fleet.roster.flush()
    return node.service.fleet.rollout(
        PROJECT, PRODUCTION, revision=revision, ask=ask, max_laggards=max_laggards
    )


def clients(node: Node) -> list[ClientReport]:
    node.service.fleet.roster.flush()
    return node.service.fleet.clients(PROJECT, PRODUCTION, after="", limit=100)


def pass_time(world: World, seconds: float) -> None:
    world.clock.seconds += seconds


def refusal(node: Node, *mutations: Any, **options: Any) -> FailedPreconditionError:
    revision = node.revision
    with pytest.raises(FailedPreconditionError) as caught:
        node.commit(*mutations, **options)
    assert caught.value.reason == "CLIENTS_WOULD_BREAK"
    assert node.revision == revision
    return caught.value


# Who is there.


def test_a_client_is_there_while_its_stream_is_and_for_a_while_longer(world: World, node: Node) -> None:
    stream = node.service.fleet.connected(PROJECT, PRODUCTION, ClientReport("c", "shop", "go/1"), "key")
    with stream:
        (client,) = clients(node)
        assert (client.id, client.name, client.sdk, client.node) == ("c", "shop", "go/1", "one")
        assert client.reported_at is None
        for _ in range(10):
            pass_time(world, 60)
            assert len(clients(node)) == 1
    assert len(clients(node)) == 1
    pass_time(world, GRACE.total_seconds())
    assert clients(node) == []


def test_a_client_that_has_changed_nodes_is_not_ended_by_the_one_it_left(world: World, node: Node) -> None:
    other = world.node(node="two")
    with node.service.fleet.connected(PROJECT, PRODUCTION, ClientReport("c"), ""):
        node.service.fleet.roster.flush()
        later = other.service.fleet.connected(PROJECT, PRODUCTION, ClientReport("c"), "")
        later.__enter__()
        other.service.fleet.roster.flush()
    node.service.fleet.roster.flush()
    pass_time(world, 60)
    assert [client.node for client in clients(other)] == ["two"]
    later.__exit__(None, None, None)
    other.service.fleet.roster.flush()
    pass_time(world, GRACE.total_seconds())
    assert clients(other) == []


def test_of_two_streams_of_a_client_the_last_one_counts(world: World, node: Node) -> None:
    first = node.service.fleet.connected(PROJECT, PRODUCTION, ClientReport("c"), "")
    second = node.service.fleet.connected(PROJECT, PRODUCTION, ClientReport("c"), "")
    first.__enter__()
    with second:
        first.__exit__(None, None, None)
        node.service.fleet.roster.flush()
        pass_time(world, 60)
        assert len(clients(node)) == 1


def test_reports_are_written_in_one_go_and_forgotten_after_three_minutes(world: World, node: Node) -> None:
    node.service.fleet.roster.close()
    written: list[int] = []
    put_clients = world.store.put_clients
    world.store.put_clients = lambda rows: (written.append(len(rows)), put_clients(rows))[1]  # type: ignore[method-assign,func-returns-value]
    for number in range(500):
        report(node, f"c{number:03}", error="x")
        report(node, f"c{number:03}")
    assert not written
    assert rollout(node).count.reporting == 500
    assert written == [500]
    assert {client.error for client in clients(node)} == {""}
    pass_time(world, LIFE.total_seconds())
    assert rollout(node).count.reporting == 0
    node.service.fleet.keep_house(world.clock.now())
    assert not world.store.expire_clients(world.clock.now())


def test_what_could_not_be_written_is_written_later(world: World, node: Node) -> None:
    node.service.fleet.roster.close()
    put_clients = world.store.put_clients

    def fail(_: object) -> None:
        raise FailedPreconditionError("the store is away")

    world.store.put_clients = fail  # type: ignore[method-assign,assignment]
    report(node, "a", 1)
    with pytest.raises(FailedPreconditionError):
        node.service.fleet.roster.flush()
    report(node, "a", 2)
    report(node, "b", 2)
    world.store.put_clients = put_clients  # type: ignore[method-assign]
    assert [(client.id, client.revision) for client in clients(node)] == [("a", 2), ("b", 2)]


def test_a_closed_node_has_written_what_it_was_told(world: World) -> None:
    node, other = world.node(), world.node()
    node.commit(put("a"))
    other.service.catch_up()
    report(node, "c")
    node.service.close()
    assert len(clients(other)) == 1


def test_a_child_of_a_fork_has_clients_of_its_own_and_ends_none_of_its_parents(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.service.reporting", f"sqlite:{tmp_path / 'store.db'}"]
    done = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# Reports.


def test_lag_is_the_time_from_the_commit_until_the_client_had_applied_it(world: World, node: Node) -> None:
    committed = node.revision
    pass_time(world, 10)
    for id_, age in (("a", 9.75), ("b", 9.0), ("c", 10.5), ("d", 3600.0), ("e", None), ("f", -5.0)):
        report(node, id_, committed, age=age)
    lags = {client.id: client.lag for client in clients(node)}
    # That of somebody whose clock was set is none, and one whose age is of another change has none.
    assert lags == {"a": 0.25, "b": 1.0, "c": 0.0, "d": None, "e": None, "f": 10.0}


def test_lag_is_measured_against_the_newest_change_of_the_environment(world: World, node: Node) -> None:
    changed = node.revision
    pass_time(world, 5)
    node.add_environment("staging")
    pass_time(world, 1)
    report(node, "a", changed, age=5.5)
    report(node, "b", node.revision, age=5.5)
    assert [client.lag for client in clients(node)] == [0.5, 0.5]
    # Of a history that there was before, or that this node knows nothing of.
    for generation, revision in ((2, changed), (0, changed), (1, 2**64 - 1), (1, 1)):
        made = ClientReport("a", generation=generation, revision=revision, age=1.0)
        node.service.fleet.report(PROJECT, PRODUCTION, [made], "")
        assert clients(node)[0].lag is None


def test_lag_is_known_of_commits_that_another_node_made_or_this_one_before_it_started(world: World) -> None:
    node, other = world.node(), world.node()
    node.commit(put("a"))
    pass_time(world, 2)
    report(other, "a", 2, age=1.5)
    late = world.node()
    report(late, "b", 2, age=1.0)
    assert [client.lag for client in (*clients(other), *clients(late))] == [0.5, 0.5, 1.0]


def test_a_relay_tells_when_its_clients_reported(world: World, node: Node) -> None:
    now = world.clock.now()
    reports = [
        ClientReport("a", generation=1, revision=node.revision, reported_at=now - SECOND, age=0.0),
        ClientReport("b", reported_at=now + 60 * SECOND),
        ClientReport("c", reported_at=now - 3600 * SECOND),
        ClientReport(""),
    ]
    pass_time(world, 3)
    node.service.fleet.report(PROJECT, PRODUCTION, reports, "", relayed=True)
    seen = clients(node)
    assert [client.id for client in seen] == ["a", "b"]
    assert seen[0].reported_at == now - SECOND
    assert seen[1].reported_at == world.clock.now()
    node.service.fleet.report(PROJECT, PRODUCTION, reports, "")
    assert {client.reported_at for client in clients(node)} == {world.clock.now()}


def test_what_makes_no_sense_in_a_report_is_no_error(world: World, node: Node) -> None:
    made = ClientReport(
        "a\0", "n\0", generation=2**64 - 1, revision=2**64 - 1, types=b"short", age=1e300, error="\0"
    )
    assert node.service.fleet.report(PROJECT, PRODUCTION, [made], "") == ["a\0"]
    (client,) = clients(node)
    assert (client.id, client.error, client.lag) == ("a\ufffd", "\ufffd", None)
    assert client.types == b""


def test_clients_whose_declarations_are_unknown_are_told_to_declare_again(world: World, node: Node) -> None:
    known = declare(node, "a", ("limit", "int"))
    assert report(node, "a", types=known) == []
    assert report(node, "b", types=b"") == []
    assert report(node, "c", types=bytes(32)) == ["c"]
    # Another node reads it from the store, and keeps it there for as long as it is reported.
    other = world.node()
    for _ in range(20):
        pass_time(world, 600)
        assert report(other, "a", types=known) == []
        other.service.fleet.keep_house(world.clock.now())
    pass_time(world, 3600)
    other.service.fleet.keep_house(world.clock.now())
    assert report(world.node(), "a", types=known) == ["a"]


# Declared types.


def test_equal_declarations_have_one_hash_whatever_their_order(node: Node) -> None:
    first = declare(node, "a", ("limit", "int"), ("mode", 'Enum["a", "b"]'))
    assert declare(node, "b", ("mode", 'Enum["b","a"]'), ("limit", "int")) == first
    assert len(first) == 32
    assert declare(node, "c", ("mode", "str"), ("limit", "int")) != first
    assert len(node.service.store.records("types")) == 2


def test_a_client_that_declares_in_several_calls_has_declared_all_of_it(node: Node) -> None:
    whole = declare(node, "a", ("limit", "int"), ("mode", "str"))
    first = declare(node, "b", ("limit", "int"))
    assert declare(node, "b", ("mode", "str"), continued=first) == whole
    # What stands in both is as it was said last.
    first = declare(node, "c", ("limit", "str"))
    assert declare(node, "c", ("limit", "int"), ("mode", "str"), continued=first) == whole
    assert declare(node, "c", ("mode", "str"), continued=bytes(32)) == b""


def test_the_declarations_of_one_client_are_bounded(node: Node) -> None:
    held = b""
    with pytest.raises(LimitExceededError) as caught:
        for batch in range(3):
            held = declare(node, "a", *((f"s{batch}.{i}", "int") for i in range(9_000)), continued=held)
    assert caught.value.limit == "max_declared"


def test_what_a_client_continues_is_kept_for_a_short_time_and_what_it_reports_for_longer(
    world: World, node: Node
) -> None:
    first = declare(node, "a", ("limit", "int"))
    whole = declare(node, "a", ("mode", "str"), continued=first)
    pass_time(world, 60)
    for _ in range(5):
        assert report(node, "a", types=whole) == []
        pass_time(world, 360)
        node.service.fleet.keep_house(world.clock.now())
    assert [bytes.fromhex(each.key.rpartition("/")[2]) for each in world.store.records("types")] == [whole]
    # Who would go on from there begins anew.
    assert declare(world.node(), "b", ("mode", "str"), continued=first) == b""


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (Limits(max_type_sets=3), "max_type_sets"),
        (Limits(max_type_bytes=3 * len('[["int","s0"]]') + 5), "max_type_bytes"),
    ],
)
def test_what_clients_of_a_key_declare_is_bounded_and_takes_nothing_from_others(
    world: World, limits: Limits, limit: str
) -> None:
    node = world.node(limits=limits)
    kept = declare(node, "first", ("s0", "int"), actor="flood")
    for number in (1, 2):
        declare(node, "a", (f"s{number}", "int"), actor="flood")
    for _ in range(10):
        with pytest.raises(LimitExceededError) as caught:
            declare(node, "a", ("s3", "int"), actor="flood")
        assert (caught.value.limit, caught.value.retry_after) == (limit, 60.0)
    assert len(world.store.records("types")) == 3
    # What it has declared already it may declare again, and others, and it elsewhere, what they like.
    assert declare(node, "b", ("s0", "int"), actor="flood") == kept
    declare(node, "c", ("s3", "int"), actor="other")
    node.add_environment("staging")
    declare(node, "c", ("s3", "int"), actor="flood", environment="staging")
    # What is not reported makes room.
    for _ in range(6):
        pass_time(world, 240)
        assert report(node, "first", types=kept, actor="flood") == []
    declare(node, "a", ("s3", "int"), actor="flood")
    declare(node, "a", ("s4", "int"), actor="flood")
    with pytest.raises(LimitExceededError):
        declare(node, "a", ("s5", "int"), actor="flood")


def test_a_node_holds_few_sets_of_types_in_memory_and_judges_by_all(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rheostat.service.declared._CACHED_CHARACTERS", 100)
    node.commit(put("any", "Json", 1))
    held = [declare(node, f"c{number}", ("any", "int"), (f"s{number}", "int")) for number in range(20)]
    types = node.service.fleet._types
    assert sum(each.size for each in types._held.values()) == types._characters <= 100
    assert 0 < len(types._held) < 20
    error = refusal(node, SetValue("any", "x"))
    assert len(json.loads(error.metadata["clients"])) == 20
    assert report(node, "c0", types=held[0]) == []


def test_a_key_has_so_many_clients_and_further_ones_are_not_written_down(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    node = world.node(limits=Limits(max_clients_per_key=3))
    node.commit(put("any", "Json", 1))
    for number in range(10):
        assert report(node, f"c{number}", actor="flood", types=bytes(32)) == ["c0"][number:]
        with node.service.fleet.connected(PROJECT, PRODUCTION, ClientReport(f"d{number}"), "flood"):
            pass
        declare(node, f"e{number}", ("any", "int"), actor="flood")
    # Those that are known already, and those of others, are still heard.
    report(node, "c0", actor="flood", error="broken")
    report(node, "f", actor="other")
    seen = {client.id: client.error for client in clients(node)}
    assert seen == {"c0": "broken", "d0": "", "e0": "", "f": ""}


# The gate.


def test_a_value_that_a_connected_client_could_not_decode_is_refused_with_its_name(node: Node) -> None:
    node.commit(put("limit", "float", 1.0))
    declare(node, "c1", ("limit", "int"), name="checkout@web-7")
    node.commit(SetValue("limit", 2.0))
    error = refusal(node, SetValue("limit", 2.5))
    assert "2.5 (the environment's value) of the setting 'limit' in 'production'" in error.message
    assert "does not fit the type int" in error.message
    assert "checkout@web-7 (c1)" in error.message
    assert error.metadata["setting"] == "limit"
    assert error.metadata["environment"] == PRODUCTION
    assert json.loads(error.metadata["clients"]) == ["c1"]


def test_force_commits_it_and_the_history_names_the_clients(node: Node) -> None:
    for id_ in ("c2", "c1"):
        declare(node, id_, ("limit", "int"))
    declare(node, "d", ("limit", "float"))
    node.commit(put("limit", "float", 1.0))
    refusal(node, SetValue("limit", 2.5), dry_run=True)
    planned = node.commit(SetValue("limit", 2.5), dry_run=True, force=True)
    assert [warning.code for warning in planned.change_set.warnings] == ["CLIENTS_WOULD_BREAK"]
    outcome = node.commit(SetValue("limit", 2.5), force=True)
    assert outcome.change_set.forced_clients == ("c1", "c2")
    assert node.service.change_set(PROJECT, outcome.revision).forced_clients == ("c1", "c2")
    # The value is there now, and no change of something else gives it to anybody anew.
    assert node.commit(PutSetting("limit", {"description": "x"})).change_set.forced_clients == ()
    # Force without need leaves no trace.
    assert node.commit(SetValue("limit", 3.0), force=True).change_set.forced_clients == ()


@pytest.mark.parametrize(
    ("type_", "fits", "misfits"),
    [
        ("int", 2.0, 2.5),
        ("float", 7, "7"),
        ("bool", True, 1),
        ('Enum["a","b"]', "b", "c"),
        ('Flags["a","b"]', ["b"], ["b", "c"]),
        ("Sequence<int>", [1, 2.0], [1, "x"]),
        ("Mapping<str>", {"a": "b"}, {"a": 1}),
        ('Json[{"type":"object"}]', {}, []),
        ("Json", [None], None),
    ],
)
def test_values_are_judged_as_clients_read_them(
    node: Node, type_: str, fits: object, misfits: object
) -> None:
    node.commit(put("any", "Json", freeze(fits)))
    declare(node, "c", ("any", type_))
    node.commit(SetValue("any", freeze(fits)))
    if misfits is None:
        node.commit(SetValue("any", None))
    else:
        # What would only be dropped is refused, too.
        refusal(node, SetValue("any", freeze(misfits)))


def test_every_place_of_a_value_is_judged(node: Node) -> None:
    node.commit(put("any", "Json", 1))
    declare(node, "c", ("any", "int"))
    for mutation in (
        put("any", "Json", "x"),
        SetValue("any", "x"),
        PutSetting("any", {"off": "x"}),
        put_rule("any", rule("r", "x")),
        put_rule("any", rule("r", "x", enabled=False)),
        put_rule("any", Rule("r", split(50_000, 50_000, values=(1, "x")))),
    ):
        refusal(node, mutation)
        node.commit(mutation, force=True)
        node.commit(DeleteSetting("any"))
        node.commit(put("any", "Json", 1))


def test_a_setting_is_judged_for_clients_that_know_it_by_an_alias(node: Node) -> None:
    node.commit(put("any", "Json", 1))
    declare(node, "old", ("any", "int"))
    node.commit(RenameSetting("any", "new"))
    refusal(node, SetValue("new", "x"))
    # A name that comes to mean a setting gives all of its values to whoever reads by it.
    declare(node, "other", ("limit2", "str"))
    refusal(node, RenameSetting("limit", "limit2"))
    node.commit(RenameSetting("limit", "limit3"))
    # A setting that is made where a client reads something else.
    declare(node, "third", ("absent", "str"))
    refusal(node, put("absent", "int", 3))


def test_the_gate_looks_at_the_environment_of_the_change_only(node: Node) -> None:
    node.add_environment("staging")
    node.commit(put("any", "Json", 1), put("any", "Json", 1, "staging"))
    declare(node, "c", ("any", "int"), environment="staging")
    node.commit(SetValue("any", "x"))
    refusal(node, SetValue("any", "x", "staging"))


def test_clients_of_other_nodes_count_until_they_are_gone(world: World, node: Node) -> None:
    other = world.node()
    node.commit(put("any", "Json", 1))
    other.service.catch_up()
    with other.service.fleet.connected(PROJECT, PRODUCTION, ClientReport("c"), ""):
        declare(other, "c", ("any", "int"))
        other.service.fleet.roster.flush()
        # What others declare is noticed in a moment, what this node is told at once.
        pass_time(world, 0.2)
        refusal(node, SetValue("any", "x"))
    other.service.fleet.roster.flush()
    pass_time(world, GRACE.total_seconds())
    node.commit(SetValue("any", "x"))


def test_a_new_client_of_the_same_id_is_judged_by_what_it_declared_last(node: Node) -> None:
    node.commit(put("any", "Json", 1))
    held = declare(node, "c", ("any", "int"))
    report(node, "c", types=held)
    node.service.fleet.roster.flush()
    declare(node, "c", ("any", "Json"))
    node.commit(SetValue("any", "x"))


def test_many_clients_are_counted_and_ten_of_them_named(node: Node) -> None:
    node.commit(put("any", "Json", 1))
    held = declare(node, "c000", ("any", "int"))
    for number in range(1, 150):
        report(node, f"c{number:03}", types=held)
    node.service.fleet.roster.flush()
    error = refusal(node, SetValue("any", "x"), SetValue("limit", 1))
    assert "c009 and 140 more" in error.message
    assert len(json.loads(error.metadata["clients"])) == 100
    outcome = node.commit(SetValue("any", "x"), force=True)
    assert len(outcome.change_set.forced_clients) == 150


def test_a_revert_to_values_that_a_client_cannot_decode_takes_force(node: Node) -> None:
    node.commit(put("any", "Json", "x"))
    away = node.commit(put("any", "Json", 1)).revision
    declare(node, "c", ("any", "int"))
    with pytest.raises(FailedPreconditionError) as caught:
        node.service.revert(NOBODY, PROJECT, revision=away)
    assert caught.value.reason == "CLIENTS_WOULD_BREAK"
    assert node.service.revert(NOBODY, PROJECT, revision=away, force=True).change_set.forced_clients == ("c",)


def test_a_draft_is_judged_when_it_is_written_and_again_when_it_is_published(node: Node) -> None:
    drafts = node.service.drafts
    node.commit(put("any", "Json", 1))
    breaking = [SetValue("any", "x")]
    early = drafts.create(NOBODY, PROJECT, PRODUCTION, breaking).draft
    declare(node, "c", ("any", "int"))
    for attempt in (
        lambda: drafts.create(NOBODY, PROJECT, PRODUCTION, breaking),
        lambda: drafts.publish(NOBODY, PROJECT, early.id),
    ):
        with pytest.raises(FailedPreconditionError) as caught:
            attempt()
        assert caught.value.reason == "CLIENTS_WOULD_BREAK"
    assert "'any'" in drafts.get(NOBODY.principal, PROJECT, early.id).problem
    forced = drafts.create(NOBODY, PROJECT, PRODUCTION, breaking, force=True).draft
    published = drafts.publish(NOBODY, PROJECT, forced.id)
    change_set = node.service.change_set(PROJECT, published.draft.revision)
    assert (change_set.draft, change_set.forced_clients) == (forced.id, ("c",))


def test_who_was_rejected_because_of_others_declares_again_after_a_while(world: World, node: Node) -> None:
    node.service.fleet.note_rejected(PROJECT, PRODUCTION, "new")
    node.service.fleet.note_rejected(PROJECT, PRODUCTION, "")
    pass_time(world, 20)
    assert report(node, "new") == []
    pass_time(world, 20)
    assert report(node, "other") == []
    assert report(node, "new") == ["new"]
    assert report(node, "new") == []


def test_an_upgrade_that_running_clients_could_not_decode_is_rejected_and_the_rest_accepted(
    node: Node,
) -> None:
    first = [declaration("a", "int"), declaration("b", "int")]
    node.service.declare(NOBODY, PROJECT, PRODUCTION, first)
    declare(node, "old", ("a", "int"), ("b", "int"), name="shop")
    second = [
        declaration("a", "str", "x", "2.0"),
        declaration("b", "float", 2.0, "2.0"),
        declaration("c", "int"),
    ]
    client = ClientReport("new")
    node.service.fleet.declare(PROJECT, PRODUCTION, second, continued=b"", client=client, actor="")
    writer = replace(NOBODY, request_id="r", payload=b"p")
    outcome = node.service.declare(writer, PROJECT, PRODUCTION, second)
    assert [result.outcome for result in outcome.results] == [
        DeclarationOutcome.REJECTED,
        DeclarationOutcome.UPGRADED,
        DeclarationOutcome.CREATED,
    ]
    rejected = outcome.results[0]
    assert rejected.blocking_clients == ("old",)
    assert "shop (old)" in rejected.message
    assert str(rejected.stored_version) == "1.0"
    settings = node.service.view(PROJECT, PRODUCTION).snapshot.settings
    assert (str(settings["a"].type), str(settings["b"].type)) == ("int", "float")
    # The repeat is answered alike, and once the old client is gone a new call is accepted.
    assert node.service.declare(writer, PROJECT, PRODUCTION, second).results == outcome.results
    node.service.store.end_clients([(PROJECT, PRODUCTION, "old")], "one", node.world.clock.now())
    replayed = node.service.declare(writer, PROJECT, PRODUCTION, second)
    assert replayed.replayed
    assert [result.outcome for result in replayed.results] == [result.outcome for result in outcome.results]
    again = node.service.declare(NOBODY, PROJECT, PRODUCTION, second)
    assert again.results[0].outcome is DeclarationOutcome.UPGRADED


def test_a_gate_that_nobody_stands_in_reads_no_types(
    world: World, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "records", None)
        patched.setattr(world.store, "record", None)
        node.commit(SetValue("limit", 5))
        node.commit(SetValue("mode", "b"))


# Rollouts.


def test_a_rollout_counts_who_has_reached_it_and_names_who_has_not(world: World, node: Node) -> None:
    before = node.revision
    for id_ in ("a", "b", "c"):
        report(node, id_)
    after = node.commit(SetValue("limit", 1)).revision
    pass_time(world, 1)
    report(node, "b", age=0.75)
    with node.service.fleet.connected(PROJECT, PRODUCTION, ClientReport("silent"), ""):
        found = rollout(node)
    assert (found.revision, found.generation) == (after, 1)
    assert found.committed_at == world.clock.now() - SECOND
    count = found.count
    assert (count.reporting, count.reached, count.diverged, count.silent) == (3, 1, 0, 1)
    assert count.lags == (0.25, 0.25, 0.25)
    assert [client.id for client in found.laggards] == ["a", "c"]
    assert [client.id for client in rollout(node, max_laggards=1).laggards] == ["a"]
    assert rollout(node, before).count.reached == 3
    for revision in (after + 1, 2**63 - 1, 2**64 - 1):
        with pytest.raises(NotFoundError):
            rollout(node, revision)


def test_a_revision_of_another_environment_is_reached_by_who_has_all_before_it(node: Node) -> None:
    report(node, "a")
    held = node.revision
    node.add_environment("staging")
    elsewhere = node.commit(put("x"), environment="staging").revision
    assert elsewhere > held
    assert rollout(node, elsewhere).count.reached == 1
    assert rollout(node).revision == held
    node.commit(SetValue("limit", 3))
    assert rollout(node).count.reached == 0


@pytest.fixture
def watching(node: Node) -> Watch:
    return node.watch().opened()


def asks(watch: Watch) -> list[float | None]:
    """What the bookmarks of the next step say of reports."""
    return [event.report_within for event in watch.step().events if isinstance(event, Bookmark)]


def test_while_somebody_waits_clients_are_asked_at_once_and_after_each_change(
    world: World, node: Node, watching: Watch
) -> None:
    assert asks(watching) == []
    bell = node.service.hub.bell
    rollout(node, ask=True)
    assert node.service.hub.bell > bell
    assert asks(watching) == [0.1]
    assert asks(watching) == []
    rollout(node, ask=True)
    assert asks(watching) == []
    node.commit(SetValue("limit", 1))
    pass_time(world, 0.2)
    assert asks(watching) == [0.1]
    # Changes that come faster than reports are due are asked about together.
    for value in (2, 3):
        node.commit(SetValue("limit", value))
        step = watching.step()
        assert not any(isinstance(event, Bookmark) for event in step.events)
    assert step.wake_at == pytest.approx(world.clock.monotonic() + 0.1)
    pass_time(world, 0.1)
    assert asks(watching) == [0.1]
    watching.check()
    pass_time(world, 30)
    assert asks(watching) == [None]


def test_a_watch_that_opens_meanwhile_is_asked_too(node: Node) -> None:
    rollout(node, ask=True)
    held = node.watch().opened().replica
    for watch in (node.watch(), node.watch(held)):
        (bookmark,) = [event for event in watch.step().events if isinstance(event, Bookmark)]
        assert bookmark.report_within == 0.1


def test_all_nodes_ask_their_clients(world: World, node: Node) -> None:
    other = world.node()
    other.service.catch_up()
    watching = other.watch().opened()
    for number in range(2_500):
        report(node, f"c{number}")
    rollout(node, ask=True)
    other.service.fleet.follow()
    assert asks(watching) == [2.5]
    pass_time(world, 2.5)
    # Who asks again is asked for again, so that a report that was lost does not count as a laggard for long.
    pass_time(world, 5)
    rollout(node, ask=True)
    other.service.fleet.follow()
    assert asks(watching) == [2.5]
    pass_time(world, 21)
    other.service.fleet.follow()
    other.service.fleet.keep_house(world.clock.now())
    assert world.store.records("rollout") == ()
    assert asks(watching) == [None]
