"""`rheostat keys`: who may call."""

from __future__ import annotations

import datetime
from typing import Final

import click

from rheo.v1 import admin_service_pb2 as admin
from rheo.v1 import key_pb2
from rheostat.cli.command import Command
from rheostat.cli.connection import Connection, new_request_id
from rheostat.cli.instant import parse_duration
from rheostat.cli.option import Target, WriteOptions, target_options, write_options
from rheostat.cli.output import Output
from rheostat.cli.record import instant_text, key_record
from rheostat.model.key import Key, KeyKind, Role
from rheostat.wire.instant import instant_from_proto, instant_to_proto
from rheostat.wire.key import key_from_proto, key_kind_to_proto, role_to_proto

__all__ = ["keys"]

_KEY_ANSWER: Final = """
selector, kind, role, project, environments, declare, subjects, description
created_at, expires_at, revoked_at      RFC 3339 or null
last_used_at                            RFC 3339, to within a few minutes; null when it is not known
revision
"""


@click.group("keys")
def keys() -> None:
    """Create, list, rotate and revoke keys."""


@keys.command(
    "create",
    cls=Command,
    examples=[
        ("rheostat keys create --kind user --role admin", "for a person; all environments of the project"),
        ("rheostat keys create --kind server -e production --description checkout", "for a service"),
        (
            "export RHEOSTAT_KEY=$(rheostat keys create --kind user --role editor)",
            "standard output is the key",
        ),
        (
            "rheostat keys create --kind user --role admin --store sqlite:rheostat.db",
            "the first key, before any server runs",
        ),
    ],
    answer="secret                                  the whole key, shown this once\n"
    + _KEY_ANSWER.lstrip("\n"),
)
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in KeyKind]),
    required=True,
    help="public: browsers may evaluate. server: services may watch. relay: relays. user: people, by their role.",
)
@click.option("--role", type=click.Choice([role.value for role in Role]), help="Of a user key.")
@click.option(
    "--environment",
    "-e",
    "environments",
    multiple=True,
    help="For this environment; may be repeated. [default: all for a user key, else the only one]",
)
@click.option("--store-wide", is_flag=True, help="A user key for all projects.")
@click.option("--declare/--no-declare", default=None, help="Whether a server key may declare settings.")
@click.option("--subjects", is_flag=True, help="A public key may name stored subjects.")
@click.option("--description", default="", help="What it is used for.")
@click.option("--expires", metavar="DURATION", help="When it ends: 90d, 12h. [default: never]")
@click.option(
    "--store", metavar="URL", help="Write to this store directly: the first key, before any server runs."
)
@write_options(dry_run=False)
@target_options(environment=False)
def create(
    kind: str,
    role: str | None,
    environments: tuple[str, ...],
    store_wide: bool,
    declare: bool | None,
    subjects: bool,
    description: str,
    expires: str | None,
    store: str | None,
    how: WriteOptions,
    target: Target,
    output: Output,
) -> None:
    """Create a key, and print it: it is stored nowhere and never shown again.

    The first key is made while the server is open, or with --store. A server without keys asks for one from its
    next start on.
    """
    if (kind == KeyKind.USER.value) != (role is not None):
        raise click.UsageError("--role is for user keys, which need one")
    expires_at = (
        None
        if expires is None
        else datetime.datetime.now(datetime.UTC) + parse_duration(expires, "--expires")
    )
    if store is not None:
        secret, key = _create_in_store(
            store,
            target,
            how,
            kind,
            role,
            environments,
            store_wide,
            declare,
            subjects,
            description,
            expires_at,
        )
    else:
        with Connection(target) as connection:
            if not environments and kind != KeyKind.USER.value:
                environments = (connection.environment,)
            request = admin.CreateKeyRequest(
                project="" if store_wide else connection.project,
                environments=environments,
                kind=key_kind_to_proto(KeyKind(kind)),
                role=role_to_proto(None if role is None else Role(role)),
                store_wide=store_wide,
                subjects=subjects,
                description=description,
                expires_at=None if expires_at is None else instant_to_proto(expires_at),
                message=how.message,
                author=how.author,
                # Never repeated: the answer to a repeat has no secret.
                request_id=new_request_id(),
            )
            if declare is not None:
                request.declare = declare
            answer = connection.call(connection.admin.create_key, request)
            secret, key = answer.secret, key_from_proto(answer.key)
    if output.json:
        output.answer({"secret": secret, **key_record(key)})
        return
    output.note(f"key {key.selector}, {_access(key)}; shown this once:")
    click.echo(secret)


@keys.command(
    "list",
    cls=Command,
    examples=[("rheostat keys list", "all keys of the project, without their secrets")],
    answer="project\nkeys   [{selector, kind, role, project, environments, declare, subjects, description, "
    "created_at,\n        expires_at, revoked_at, last_used_at, revision}]",
)
@target_options()
def list_(target: Target, output: Output) -> None:
    """List the keys of a project, or of one environment."""
    with Connection(target) as connection:
        project = connection.project
        found: list[tuple[Key, datetime.datetime | None]] = []
        request = admin.ListKeysRequest(project=project, environment=target.environment)
        for page in connection.pages(connection.admin.list_keys, request):
            found += [(key_from_proto(message), _used_at(message)) for message in page.keys]
    if output.json:
        output.answer({"project": project, "keys": [key_record(key, used_at) for key, used_at in found]})
        return
    output.place(project, target.environment)
    output.table(
        ["selector", "access", "description", "created", "last used", ""],
        [
            (
                key.selector,
                _access(key),
                key.description,
                (instant_text(key.created_at) or "")[:10],
                (instant_text(used_at) or "never")[:16].replace("T", " "),
                _state(key),
            )
            for key, used_at in found
        ],
    )
    if not found:
        output.note("there are no keys")


@keys.command(
    "show",
    cls=Command,
    examples=[("rheostat keys show 1f2e3d4c5b6a7988", "what a key may do, and when it was last used")],
    answer=_KEY_ANSWER,
)
@click.argument("selector")
@target_options(environment=False)
def show(selector: str, target: Target, output: Output) -> None:
    """Show a key, named by its selector, without its secret."""
    with Connection(target) as connection:
        project = connection.project
        request = admin.GetKeyRequest(project=project, selector=selector)
        message = connection.call(connection.admin.get_key, request).key
        key, used_at = key_from_proto(message), _used_at(message)
    if output.json:
        output.answer(key_record(key, used_at))
        return
    output.place(project)
    output.print(key.selector, style="bold")
    for label, text in (
        ("access", _access(key)),
        ("description", key.description),
        ("created", instant_text(key.created_at)),
        ("last used", instant_text(used_at) or "never, as far as is known"),
        ("", _state(key)),
    ):
        if text:
            output.print(f"  {label:<12} {text}")


@keys.command(
    "rotate",
    cls=Command,
    examples=[
        ("rheostat keys rotate 1f2e3d4c5b6a7988", "a successor; the old key ends in 24 hours"),
        ("rheostat keys rotate 1f2e3d4c5b6a7988 --overlap 7d --expires 90d", "a week to deploy the new one"),
    ],
    answer="secret                                  the whole new key, shown this once\n"
    + _KEY_ANSWER.lstrip("\n")
    + "old_key                                 the old one, with the same fields but `secret`\n",
)
@click.argument("selector")
@click.option(
    "--overlap",
    metavar="DURATION",
    default="24h",
    show_default=True,
    help="For how long the old key stays in force: 30m, 12h, 7d; at most 90d. 0 ends it at once.",
)
@click.option(
    "--expires",
    metavar="DURATION",
    help="When the new key ends: 90d, 12h. [default: after as long a life as the old key was made for]",
)
@write_options(dry_run=False)
@target_options(environment=False)
def rotate(
    selector: str, overlap: str, expires: str | None, how: WriteOptions, target: Target, output: Output
) -> None:
    """Make a successor of a key, with the same access, and print it: it is never shown again.

    Both are in force until the old one ends; its open streams then end within seconds. A key that ends sooner by
    itself does so all the same. Where changes need approvals, both are one person.
    """
    with Connection(target) as connection:
        request = admin.RotateKeyRequest(
            project=connection.project,
            selector=selector,
            overlap=datetime.timedelta() if overlap == "0" else parse_duration(overlap, "--overlap"),
            message=how.message,
            author=how.author,
            # Never repeated: the answer to a repeat has no secret.
            request_id=new_request_id(),
        )
        if expires is not None:
            ends_at = datetime.datetime.now(datetime.UTC) + parse_duration(expires, "--expires")
            request.expires_at.CopyFrom(instant_to_proto(ends_at))
        answer = connection.call(connection.admin.rotate_key, request)
        key, old = key_from_proto(answer.key), key_from_proto(answer.old_key)
    if output.json:
        output.answer({"secret": answer.secret, **key_record(key), "old_key": key_record(old)})
        return
    output.note(f"key {key.selector}, {_access(key)}, replaces {old.selector}")
    output.note(f"the old key ends at {instant_text(old.expires_at)}; the new one is shown this once:")
    click.echo(answer.secret)


@keys.command(
    "revoke",
    cls=Command,
    examples=[("rheostat keys revoke 1f2e3d4c5b6a7988", "for good; its open streams end within seconds")],
    answer=_KEY_ANSWER,
)
@click.argument("selector")
@write_options(dry_run=False)
@target_options(environment=False)
def revoke(selector: str, how: WriteOptions, target: Target, output: Output) -> None:
    """Revoke a key, named by its selector: the letters and digits after the kind."""
    with Connection(target) as connection:
        request = admin.RevokeKeyRequest(
            project=target.project,
            selector=selector,
            message=how.message,
            author=how.author,
            request_id=new_request_id(),
        )
        answer = connection.write(connection.admin.revoke_key, request)
        key = key_from_proto(answer.key)
    if output.json:
        output.answer(key_record(key))
    else:
        output.print(f"revoked {key.selector}, {_access(key)}")


def _create_in_store(
    store: str,
    target: Target,
    how: WriteOptions,
    kind: str,
    role: str | None,
    environments: tuple[str, ...],
    store_wide: bool,
    declare: bool | None,
    subjects: bool,
    description: str,
    expires_at: datetime.datetime | None,
) -> tuple[str, Key]:
    from rheostat.service import Service
    from rheostat.service.access import OPEN, resolve, resolve_project
    from rheostat.service.service import Writer
    from rheostat.store import open_store

    with Service(open_store(store)) as service:
        state = service.head.state
        project = "" if store_wide else resolve_project(state, OPEN, target.project).project.slug
        if not store_wide and kind != KeyKind.USER.value and not environments:
            environments = (resolve(state, OPEN, project, "")[1],)
        for environment in environments:
            resolve(state, OPEN, project, environment)
        key, secret, _ = service.create_key(
            Writer(OPEN, author=how.author, message=how.message),
            kind=KeyKind(kind),
            project=project,
            environments=environments,
            role=None if role is None else Role(role),
            declare=declare,
            subjects=subjects,
            description=description,
            expires_at=expires_at,
        )
    return secret, key


def _used_at(message: key_pb2.Key) -> datetime.datetime | None:
    return instant_from_proto(message.last_used_at) if message.HasField("last_used_at") else None


def _access(key: Key) -> str:
    kind = key.kind.value if key.role is None else f"{key.role.value} ({key.kind.value})"
    if not key.project:
        return f"{kind} of the whole store"
    return f"{kind} of {key.project}: {', '.join(key.environments) or 'all environments'}"


def _state(key: Key) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None:
        over = key.expires_at <= datetime.datetime.now(datetime.UTC)
        return "expired" if over else f"until {(instant_text(key.expires_at) or '')[:10]}"
    return ""
