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
    """The whole store: projects by slug and keys by selector.

    Attributes:
        revision: The newest revision that is in it.
        rule_number: The highest rule number given so far.
    """

    projects: Mapping[str, ProjectState] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    revision: int = 0
    rule_number: int = 0

    def apply(self, changes: Iterable[Change], revision: int, rule_number: int) -> State:
        """Return the next state: each change's ``after`` in the place of what was there."""
        projects = dict(self.projects)
        keys = self.keys
        for change in changes:
            match change.kind:
                case "key":
                    after = _typed(change, Key)
                    keys = _replaced(keys, change.key, after)
                case "project":
                    project = _typed(change, Project)
                    if project is None:
                        projects.pop(change.key, None)
                    elif change.key in projects:
                        projects[change.key] = replace(projects[change.key], project=project)
                    else:
                        projects[change.key] = ProjectState(project)
                case _:
                    projects[change.project] = _applied(projects[change.project], change)
        return State(projects, keys, revision, rule_number)


def _applied(state: ProjectState, change: Change) -> ProjectState:
    match change.kind:
        case "segment":
            return replace(state, segments=_replaced(state.segments, change.key, _typed(change, Segment)))
        case "environment":
            environment = _typed(change, Environment)
            old = state.environments.get(change.key)
            settings = {} if old is None else old.settings
            entry = None if environment is None else EnvironmentState(environment, settings)
            return replace(state, environments=_replaced(state.environments, change.key, entry))
        case "setting":
            old = state.environments[change.environment]
            entry = replace(old, settings=_replaced(old.settings, change.key, _typed(change, Setting)))
            return replace(state, environments=_replaced(state.environments, change.environment, entry))
        case kind:
            raise StoreError(f"the history holds a change of the unknown kind {kind!r}")


def _replaced(old: Mapping[str, T], key: str, new: T | None) -> Mapping[str, T]:
    merged = dict(old)
    if new is None:
        merged.pop(key, None)
    else:
        merged[key] = new
    return merged


def _typed(change: Change, kind: type[T]) -> T | None:
    if change.after is None:
        return None
    if not isinstance(change.after, kind):
        raise StoreError(f"the history holds a {type(change.after).__name__} as {change.kind} {change.key!r}")
    return change.after
