"""Writes subjects.json from the scenarios below. The expectations are written by hand, from the documentation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

NOON = "2026-03-10T12:00:00Z"
"""A Tuesday."""


def setting(type_: str, default: object, *rules: tuple[str, str, object], **section: object) -> Json:
    """Return a setting of a document, each rule being its id, its condition, and its value."""
    made = [{"id": id_, "where": where, "value": value} for id_, where, value in rules]
    return {"type": type_, "default": default, "environments": {"production": {"rules": made, **section}}}


def flag(where: str) -> Json:
    """Return the settings of a case: a bool that is true where the condition holds."""
    return {"flag": setting("bool", False, ("yes", where, True))}


def value(plain: object) -> Json:
    match plain:
        case bool():
            return {"boolValue": plain}
        case int():
            return {"intValue": str(plain)}
        case float():
            return {"doubleValue": plain}
        case str():
            return {"stringValue": plain}
        case list():
            return {"listValue": {"values": [value(element) for element in plain]}}
        case dict():
            return {"mapValue": {"entries": {key: value(element) for key, element in plain.items()}}}
    raise TypeError(plain)


def ref(kind: str, /, **keys: str) -> Json:
    return {"kind": kind, "keys": keys}


def subject(reference: Json, traits: Json | None = None, **fields: object) -> Json:
    """Return a message SubjectUpsert."""
    made: Json = {"reference": reference}
    if traits:
        made["traits"] = {name: value(plain) for name, plain in traits.items()}
    return {**made, **fields}


def override(name: str, plain: object, expires_at: str = "") -> Json:
    return {"setting": name, "value": value(plain), **({"expiresAt": expires_at} if expires_at else {})}


def event(name: str, *subjects: Json, quantity: int | None = None, time: str = "", key: str = "") -> Json:
    """Return a message Event."""
    track: Json = {"name": name}
    if quantity is not None:
        track["quantity"] = str(quantity)
    made: Json = {"idempotencyKey": key, "subjects": list(subjects), "track": track}
    return {**made, "time": time} if time else made


# Steps.


def upsert(*subjects: Json, rejected: tuple[str | None, ...] = ()) -> Json:
    return _batch("upsert", subjects, rejected)


def record(*events: Json, rejected: tuple[str | None, ...] = ()) -> Json:
    return _batch("record", events, rejected)


def _batch(step: str, entries: tuple[Json, ...], rejected: tuple[str | None, ...]) -> Json:
    refused = [{"index": index, "reason": reason} for index, reason in enumerate(rejected) if reason]
    return {step: list(entries), "rejected": refused}


def delete(*references: Json, outcomes: tuple[str, ...] = ()) -> Json:
    return {
        "delete": [{"reference": reference} for reference in references],
        "outcomes": list(outcomes or ("FOUND",) * len(references)),
    }


def clock(instant: str) -> Json:
    return {"clock": instant}


def check(
    subjects: list[Json],
    expected: Json,
    *,
    name: str = "flag",
    context: Json | None = None,
    note: bool = False,
) -> Json:
    return {
        "check": {
            "setting": name,
            "subjects": subjects,
            "context": context or {},
            "expected": {**expected, "note": note},
        }
    }


YES: Json = {"value": True, "reason": "TARGETING_MATCH", "ruleId": "yes"}
NO: Json = {"value": False, "reason": "DEFAULT"}
CONFLICT: Json = {"reason": "ERROR", "errorCode": "INVALID_CONTEXT"}


def forced(plain: object) -> Json:
    return {"value": plain, "reason": "TARGETING_MATCH", "variant": "override"}


def case(name: str, settings: Json, *steps: Json) -> Json:
    events = [entry for step in steps for entry in step.get("record", ())]
    for number, entry in enumerate(events):
        entry["idempotencyKey"] = entry["idempotencyKey"] or f"event-{number}"
    return {"name": name, "clock": NOON, "settings": settings, "steps": list(steps)}


ACME = ref("company", id="acme")
GLOBEX = ref("company", id="globex")
ADA = ref("user", id="u1")
PRO = flag('company.plan == "pro"')
PRO_ACME = upsert(subject(ACME, {"plan": "pro"}))


def lookups() -> Iterator[Json]:
    yield case("lookup: by its only key", PRO, PRO_ACME, check([ACME], YES))
    yield case(
        "lookup: by any of its keys, or several",
        PRO,
        upsert(subject(ref("company", id="acme", domain="acme.example"), {"plan": "pro"})),
        check([ref("company", domain="acme.example")], YES),
        check([ACME], YES),
        check([ref("company", id="acme", domain="acme.example")], YES),
        check([ref("company", id="acme", domain="unheard.example")], YES),
    )
    yield case(
        "lookup: the case of a key's letters does not matter",
        PRO,
        upsert(subject(ref("company", id="Straße"), {"plan": "pro"})),
        check([ref("company", id="STRASSE")], YES),
        check([ref("company", id="straße")], YES),
    )
    yield case(
        "lookup: a key with separators in it is not two keys",
        flag('company.plan == "joined"'),
        upsert(
            subject(ref("company", a="1;b=2"), {"plan": "joined"}),
            subject(ref("company", a="1", b="2"), {"plan": "apart"}),
        ),
        check([ref("company", a="1;b=2")], YES),
        check([ref("company", a="1", b="2")], NO),
    )
    yield case(
        "lookup: kinds have keys of their own",
        flag('company.plan == "pro" and user.plan == "free"'),
        upsert(
            subject(ref("company", id="1"), {"plan": "pro"}), subject(ref("user", id="1"), {"plan": "free"})
        ),
        check([ref("company", id="1"), ref("user", id="1")], YES),
        check([ref("company", id="1")], NO),
    )
    yield case(
        "lookup: the same value under another name is another key",
        PRO,
        PRO_ACME,
        check([ref("company", domain="acme")], NO, note=True),
    )
    yield case(
        "lookup: a key is an attribute where no trait has its name",
        flag('company.id == "acme" and company.domain == "trait.example"'),
        upsert(subject(ref("company", id="acme", domain="acme.example"), {"domain": "trait.example"})),
        check([ref("company", domain="acme.example")], YES),
    )


def unknown() -> Iterator[Json]:
    yield case(
        "unknown: the evaluation goes on, and its note says so",
        flag('region == "eu"'),
        PRO_ACME,
        check([GLOBEX], YES, context={"region": "eu"}, note=True),
        check([GLOBEX], NO, note=True),
    )
    yield case(
        "unknown: who is known joins beside one who is not",
        PRO,
        PRO_ACME,
        upsert(subject(ref("user", id="u2"))),
        check([ADA, ACME], YES, note=True),
    )
    yield case(
        "unknown: a subject that was deleted",
        PRO,
        PRO_ACME,
        upsert(subject(GLOBEX)),
        check([ACME], YES),
        delete(ACME, ref("company", id="nobody"), outcomes=("FOUND", "MISSING")),
        check([ACME], NO, note=True),
    )


def conflicts() -> Iterator[Json]:
    both = ref("company", id="acme", domain="globex.example")
    two = upsert(
        subject(ref("company", id="acme", domain="acme.example"), {"plan": "pro"}),
        subject(ref("company", id="globex", domain="globex.example"), {"plan": "pro"}),
    )
    yield case(
        "conflict: keys of two subjects decide nothing",
        PRO | {"fixed": {"type": "int", "default": 1}},
        two,
        check([both], CONFLICT),
        check([both], CONFLICT, name="fixed"),
        check([ADA, both], CONFLICT),
        check([ACME], YES),
    )
    yield case(
        "conflict: keys of two subjects change neither",
        PRO,
        two,
        upsert(
            subject(both, {"plan": "free"}),
            subject(GLOBEX, {"plan": "free"}),
            rejected=("SUBJECT_CONFLICT", None),
        ),
        check([ACME], YES),
        check([GLOBEX], NO),
    )


def merges() -> Iterator[Json]:
    yield case(
        "merge: traits are added and replaced, others stay",
        flag('company.plan == "pro" and company.seats == 5 and company.region == "eu"'),
        upsert(subject(ACME, {"plan": "free", "seats": 5})),
        upsert(subject(ACME, {"plan": "pro", "region": "eu"})),
        check([ACME], YES),
    )
    yield case(
        "merge: traits are removed",
        flag("exists(company.plan)"),
        PRO_ACME,
        check([ACME], YES),
        upsert(subject(ACME, removeTraits=["plan", "unheard"])),
        check([ACME], NO),
    )
    yield case(
        "merge: a subject that is found by one key gets the others",
        PRO,
        PRO_ACME,
        check([ref("company", domain="acme.example")], NO, note=True),
        upsert(subject(ref("company", id="acme", domain="acme.example"))),
        check([ref("company", domain="acme.example")], YES),
    )
    yield case(
        "merge: what the call says wins over a trait, and leaves the others",
        flag('company.plan == "pro" and company.region == "eu"'),
        upsert(subject(ACME, {"plan": "pro", "region": "us"})),
        check([ACME], NO),
        check([ACME], YES, context={"company": {"region": "eu"}}),
        check([ACME], YES, context={"company.region": "eu"}),
        check([ACME], NO, context={"company": {"region": "eu", "plan": "free"}}),
    )
    yield case(
        "merge: null in the call hides a trait",
        PRO,
        PRO_ACME,
        check([ACME], NO, context={"company": {"plan": None}}),
    )
    yield case(
        "merge: of two subjects of a kind the first one counts",
        PRO,
        PRO_ACME,
        upsert(subject(GLOBEX, {"plan": "free"})),
        check([ACME, GLOBEX], YES),
        check([GLOBEX, ACME], NO),
    )


def remaps() -> Iterator[Json]:
    mail = flag('user.plan == "pro"')
    yield case(
        "remap: a key's new value takes the place of the old one",
        mail,
        upsert(subject(ref("user", id="u1", email="old@example.com"), {"plan": "pro"})),
        upsert(subject(ref("user", id="u1", email="new@example.com"))),
        check([ref("user", email="new@example.com")], YES),
        check([ref("user", email="old@example.com")], NO, note=True),
    )
    yield case(
        "remap: a key that was given up is free for another subject",
        mail,
        upsert(subject(ref("user", id="u1", email="a@example.com"), {"plan": "pro"})),
        upsert(subject(ref("user", id="u1", email="b@example.com"))),
        upsert(subject(ref("user", id="u2", email="A@example.com"), {"plan": "free"})),
        check([ref("user", email="a@example.com")], NO),
        check([ref("user", email="b@example.com")], YES),
    )


def memberships() -> Iterator[Json]:
    member = upsert(subject(ADA, memberOf=[ACME]))
    yield case(
        "membership: a member of one company brings it",
        PRO,
        PRO_ACME,
        upsert(subject(ADA)),
        check([ADA], NO),
        member,
        check([ADA], YES),
        upsert(subject(ADA, removeMemberOf=[ACME])),
        check([ADA], NO),
    )
    yield case(
        "membership: a member of two brings neither, and may say which",
        PRO,
        PRO_ACME,
        upsert(subject(GLOBEX, {"plan": "pro"})),
        upsert(subject(ADA, memberOf=[ACME, GLOBEX])),
        check([ADA], NO),
        check([ADA, GLOBEX], YES),
    )
    yield case(
        "membership: the company that is named is the one",
        PRO,
        PRO_ACME,
        upsert(subject(GLOBEX, {"plan": "free"})),
        member,
        check([ADA, GLOBEX], NO),
        check([ADA, ref("company", id="unheard")], YES, note=True),
    )
    yield case(
        "membership: conditions see the ids of whom one is a member of",
        flag('user.member_of.company has_any ["acme"]'),
        upsert(subject(ACME), subject(GLOBEX)),
        upsert(subject(ADA, memberOf=[ACME, GLOBEX]), subject(ref("user", id="u2"), memberOf=[GLOBEX])),
        check([ADA], YES),
        check([ref("user", id="u2")], NO),
    )
    yield case(
        "membership: nobody becomes a member of what is not stored",
        PRO,
        upsert(subject(ADA, memberOf=[ACME]), subject(ACME), rejected=("UNKNOWN_SUBJECT", None)),
        check([ADA], NO, note=True),
    )
    yield case(
        "membership: it ends when the company is deleted",
        flag("exists(user.member_of.company)"),
        PRO_ACME,
        member,
        check([ADA], YES),
        delete(ACME),
        check([ADA], NO),
    )


def traits() -> Iterator[Json]:
    yield case(
        "trait: of each type",
        flag(
            'company.active == true and company.seats >= 5 and company.score < 0.75 and company.name == "Acme" '
            'and company.tags has_all ["a", "b"] and company.address.city == "Berlin"'
        ),
        upsert(
            subject(
                ACME,
                {
                    "active": True,
                    "seats": 5,
                    "score": 0.5,
                    "name": "Acme",
                    "tags": ["b", "a"],
                    "address": {"city": "Berlin"},
                },
            )
        ),
        check([ACME], YES),
    )
    yield case(
        "trait: compared with one of another subject",
        flag("user.spent < attr(company.budget)"),
        upsert(subject(ACME, {"budget": 100}), subject(ADA, {"spent": 99.5})),
        check([ADA, ACME], YES),
        upsert(subject(ADA, {"spent": 100})),
        check([ADA, ACME], NO),
        check([ADA], NO),
    )
    yield case(
        "trait: of a type that the condition does not take",
        flag("company.seats < 10"),
        upsert(subject(ACME, {"seats": "many"})),
        check([ACME], NO),
    )
    yield case(
        "trait: a key may be the unit of a split",
        {
            "flag": {
                "type": "str",
                "default": "none",
                "environments": {
                    "production": {
                        "rules": [
                            {
                                "id": "all",
                                "split": {
                                    "unit": "company.id",
                                    "salt": "s",
                                    "variants": [{"name": "on", "weight": "100%", "value": "on"}],
                                },
                            }
                        ]
                    }
                },
            }
        },
        upsert(
            subject(ref("company", id="acme", domain="acme.example")), subject(ref("company", domain="b"))
        ),
        check(
            [ref("company", domain="acme.example")],
            {"value": "on", "reason": "SPLIT", "variant": "on", "ruleId": "all"},
        ),
        check([ref("company", domain="b")], {"value": "none", "reason": "DEFAULT"}),
    )


FITS = flag("company.usage.api-call.month < attr(company.api-limit)")


def limits() -> Iterator[Json]:
    limited = upsert(subject(ACME, {"api-limit": 10}))
    yield case(
        "limit: from a trait, against what was counted",
        FITS,
        limited,
        record(event("api-call", ACME, quantity=9)),
        check([ACME], YES),
        record(event("api-call", ACME)),
        check([ACME], NO),
        upsert(subject(ACME, {"api-limit": 11})),
        check([ACME], YES),
    )
    yield case("limit: what was never counted is 0", FITS, limited, check([ACME], YES))
    yield case(
        "limit: a negative quantity takes back",
        FITS,
        limited,
        record(event("api-call", ACME, quantity=10), event("api-call", ACME, quantity=-1)),
        check([ACME], YES),
    )
    yield case(
        "limit: an event counts once however often it is sent",
        flag("company.usage.api-call.all == 2"),
        limited,
        record(event("api-call", ACME, key="a"), event("api-call", ACME, key="a")),
        record(event("api-call", ACME, key="a"), event("api-call", ACME, key="b")),
        check([ACME], YES),
    )
    yield case(
        "limit: an event counts for each of its subjects, and for one that is named twice once",
        flag("company.usage.api-call.day == 1 and user.usage.api-call.day == 1"),
        limited,
        upsert(subject(ADA)),
        record(event("api-call", ADA, ACME, ref("company", id="ACME"))),
        check([ADA, ACME], YES),
    )
    yield case(
        "limit: an event stores a subject that is not known",
        flag("company.usage.api.call.all == 3"),
        record(event("api.call", ref("company", id="new", domain="new.example"), quantity=3)),
        check([ref("company", domain="new.example")], YES),
    )
    yield case(
        "limit: events of other names, and a wrong one among right ones",
        flag("company.usage.api-call.all == 1 and company.usage.login.all == 2"),
        limited,
        record(
            event("api-call", ACME),
            event("no such name", ACME),
            event("login", ACME, quantity=2),
            event("login", ACME, time="2026-02-06T11:59:59Z"),
            rejected=(None, "INVALID_ARGUMENT", None, "EVENT_TOO_OLD"),
        ),
        check([ACME], YES),
    )
    yield case(
        "limit: would one more fit?",
        flag("company.usage.api-call.month <= attr(company.api-limit)"),
        limited,
        record(event("api-call", ACME, quantity=9)),
        check([ACME], YES),
        check([ACME], YES, context={"company.usage.api-call.month": 10}),
        check([ACME], NO, context={"company.usage.api-call.month": 11}),
    )


def periods() -> Iterator[Json]:
    def counted(period: str) -> Json:
        return flag(f"company.usage.login.{period} >= 1")

    once = record(event("login", ACME))
    yield case(
        "period: a day ends at midnight, UTC",
        counted("day"),
        once,
        check([ACME], YES),
        clock("2026-03-10T23:59:59Z"),
        check([ACME], YES),
        clock("2026-03-11T00:00:00Z"),
        check([ACME], NO),
    )
    yield case(
        "period: a week begins on Monday",
        counted("week"),
        once,
        clock("2026-03-15T23:59:59Z"),
        check([ACME], YES),
        clock("2026-03-16T00:00:00Z"),
        check([ACME], NO),
    )
    yield case(
        "period: a month begins on its first day",
        counted("month"),
        once,
        clock("2026-03-31T23:59:59Z"),
        check([ACME], YES),
        clock("2026-04-01T00:00:00Z"),
        check([ACME], NO),
    )
    yield case(
        "period: a month begins on the subject's day",
        counted("month"),
        upsert(subject(ACME, monthDay=15)),
        once,
        clock("2026-03-14T23:59:59Z"),
        check([ACME], YES),
        clock("2026-03-15T00:00:00Z"),
        check([ACME], NO),
    )
    yield case(
        "period: in a shorter month it is the last day",
        counted("month"),
        upsert(subject(ACME, monthDay=31)),
        once,
        clock("2026-03-30T23:59:59Z"),
        check([ACME], YES),
        clock("2026-03-31T00:00:00Z"),
        check([ACME], NO),
        record(event("login", ACME)),
        check([ACME], YES),
        clock("2026-04-29T23:59:59Z"),
        check([ACME], YES),
        clock("2026-04-30T00:00:00Z"),
        check([ACME], NO),
    )
    yield case(
        "period: all time does not end",
        counted("all"),
        once,
        clock("2036-03-10T12:00:00Z"),
        check([ACME], YES),
    )
    yield case(
        "period: an event counts in the periods in which it happened",
        {
            "flag": setting("bool", False, ("yes", "company.usage.login.month == 2", True)),
            "today": setting("bool", False, ("yes", "company.usage.login.day == 1", True)),
        },
        record(
            event("login", ACME, time="2026-03-09T23:59:59Z"),
            event("login", ACME, time="2026-02-28T23:59:59Z"),
            event("login", ACME, time="2026-03-11T00:00:00Z"),
        ),
        check([ACME], YES),
        check([ACME], YES, name="today"),
    )


def overrides() -> Iterator[Json]:
    limit = {"limit": setting("int", 1, ("more", 'company.plan == "pro"', 2))}
    yield case(
        "override: it comes before the rules, and goes when it is removed",
        limit,
        PRO_ACME,
        check([ACME], {"value": 2, "reason": "TARGETING_MATCH", "ruleId": "more"}, name="limit"),
        upsert(subject(ACME, overrides=[override("limit", 7)])),
        check([ACME], forced(7), name="limit"),
        check([], {"value": 1, "reason": "DEFAULT"}, name="limit"),
        upsert(subject(ACME, removeOverrides=["limit"])),
        check([ACME], {"value": 2, "reason": "TARGETING_MATCH", "ruleId": "more"}, name="limit"),
    )
    yield case(
        "override: it ends at its instant",
        limit,
        upsert(subject(ACME, overrides=[override("limit", 7, "2026-03-11T00:00:00Z")])),
        check([ACME], forced(7), name="limit"),
        clock("2026-03-10T23:59:59Z"),
        check([ACME], forced(7), name="limit"),
        clock("2026-03-11T00:00:00Z"),
        check([ACME], {"value": 1, "reason": "DEFAULT"}, name="limit"),
    )
    yield case(
        "override: of a setting that there is, and of its type",
        limit,
        upsert(
            subject(ACME, overrides=[override("unheard", 1)]),
            subject(GLOBEX, overrides=[override("limit", "many")]),
            subject(ref("company", id="third"), overrides=[override("limit", 3)]),
            rejected=("UNKNOWN_SETTING", "TYPE_MISMATCH", None),
        ),
        check([ACME], {"value": 1, "reason": "DEFAULT"}, name="limit", note=True),
        check([ref("company", id="third")], forced(3), name="limit"),
    )
    yield case(
        "override: the one of the subject that is named first wins, and a member has the company's",
        limit,
        upsert(subject(ACME, overrides=[override("limit", 7)])),
        upsert(subject(ADA, overrides=[override("limit", 8)], memberOf=[ACME])),
        upsert(subject(ref("user", id="u2"), memberOf=[ACME])),
        check([ADA, ACME], forced(8), name="limit"),
        check([ACME, ADA], forced(7), name="limit"),
        check([ref("user", id="u2")], forced(7), name="limit"),
    )
    yield case(
        "override: a setting that is off stays so",
        {"limit": setting("int", 1, ("more", 'company.plan == "pro"', 2), enabled=False)},
        upsert(subject(ACME, {"plan": "pro"}, overrides=[override("limit", 7)])),
        check([ACME], {"value": 1, "reason": "DISABLED"}, name="limit"),
    )


def cases() -> Iterator[Json]:
    yield from lookups()
    yield from unknown()
    yield from conflicts()
    yield from merges()
    yield from remaps()
    yield from memberships()
    yield from traits()
    yield from limits()
    yield from periods()
    yield from overrides()


def document() -> str:
    """Return the text of subjects.json: one case a line, so that differences are easy to read."""
    lines = [json.dumps(one, ensure_ascii=True, separators=(",", ":")) for one in cases()]
    return '{"cases":[\n' + ",\n".join(lines) + "\n]}\n"


if __name__ == "__main__":
    Path(__file__).with_name("subjects.json").write_text(document(), encoding="ascii")
