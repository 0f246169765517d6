"""All that a store holds at one revision, as immutable values that share what did not change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from rheostat.errors import StoreError
from rheostat.model.change import Change, Environment, Project
from rheostat.model.key import Key
from rheostat.model.setting import Segment, Setting
from rheostat.model.snapshot import Snapshot
from rheostat.model.webhook import Webhook

__all__ = ["EnvironmentState", "ProjectState", "State"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EnvironmentState:
    """One environment: itself and its settings by current name."""

    environment: Environment
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def setting(self, name: str) -> Setting | None:
        """Return the setting whose name or alias is *name*, or None."""
        found = self.settings.get(name)
        if found is not None:
            return found
        return next((s for s in self.settings.values() if name in s.aliases), None)


@dataclass(frozen=True, slots=True)
class ProjectState:
    """One project: itself, its environments by slug and its segments by name."""

    project: Project
    environments: Mapping[str, EnvironmentState] = field(default_factory=dict)
    segments: Mapping[str, Segment] = field(default_factory=dict)

    def snapshot(self, environment: str, revision: int) -> Snapshot:
        """Return what evaluation and watchers of *environment* see; KeyError when there is no such one."""
        return Snapshot(
            revision,
            self.environments[environment].settings,
            self.segments,
            self.project.features,
        )


@dataclass(frozen=True, slots=True)
class State:
    """The whole store: projects by slug, keys by selector and webhooks by id.

    Attributes:
        revision: The newest revision that is in it.
        rule_number: The highest rule number given so far.
    """

    projects: Mapping[str, ProjectState] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    revision: int = 0
    rule_number: int = 0
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)

    def apply(self, changes: Iterable[Change], revision: int, rule_number: int) -> State:
        """Return the next state: each change's ``after`` in the place of what was there."""
        projects = dict(self.projects)
        keys = dict(self.keys)
        webhooks = dict(self.webhooks)
        by_project: dict[str, list[Change]] = {}
        for change in changes:
            if change.kind == "key":
                _put(keys, change.key, _typed(change, Key))
            elif change.kind == "webhook":
                _put(webhooks, change.key, _typed(change, Webhook))
            else:
                by_project.setdefault(change.project, []).append(change)
        for slug, its_changes in by_project.items():
            state = _applied(projects.get(slug), its_changes)
            _put(projects, slug, state)
        return State(projects, keys, revision, rule_number, webhooks)


def _applied(state: ProjectState | None, changes: Iterable[Change]) -> ProjectState | None:
    """Return the next state of a project; None when a change removed the project itself."""
    project = None if state is None else state.project
    environments = {} if state is None else dict(state.environments)
    segments: dict[str, Segment] | None = None
    settings: dict[str, dict[str, Setting]] = {}
    for change in changes:
        match change.kind:
            case "project":
                project = _typed(change, Project)
            case "environment":
                environment = _typed(change, Environment)
                old = environments.get(change.key)
                entry = None
                if environment is not None:
                    entry = EnvironmentState(environment, {} if old is None else old.settings)
                _put(environments, change.key, entry)
            case "segment":
                if segments is None:
                    segments = {} if state is None else dict(state.segments)
                _put(segments, change.key, _typed(change, Segment))
            case "setting":
                if change.environment not in settings:
                    settings[change.environment] = dict(environments[change.environment].settings)
                _put(settings[change.environment], change.key, _typed(change, Setting))
            case kind:
                raise StoreError(f"the history holds a change of the unknown kind {kind!r}")
    if project is None:
        return None
    for slug, items in settings.items():
        if slug in environments:
            environments[slug] = replace(environments[slug], settings=items)
    if segments is None:
        return ProjectState(project, environments, {} if state is None else state.segments)
    return ProjectState(project, environments, segments)


def _put(items: dict[str, T], key: str, item: T | None) -> None:
    if item is None:
        items.pop(key, None)
    else:
        items[key] = item


def _typed(change: Change, kind: type[T]) -> T | None:
    if change.after is None:
        return None
    if not isinstance(change.after, kind):
        raise StoreError(f"the history holds a {type(change.after).__name__} as {change.kind} {change.key!r}")
    return change.after
