"""States of a project, and applying documents to them with the real planner."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from rheostat.document import Document, parse_document, plan_apply
from rheostat.model.change import Environment, Mutation, Project
from rheostat.model.setting import Segment, Setting
from rheostat.model.state import EnvironmentState, ProjectState, State
from rheostat.service.plan import plan

__all__ = ["Shop", "project_state"]


def project_state(
    environments: Mapping[str, Sequence[Setting]],
    *,
    segments: Sequence[Segment] = (),
    features: tuple[str, ...] = (),
    slug: str = "shop",
) -> ProjectState:
    """Make the state of a project that holds these settings."""
    return ProjectState(
        Project(slug, features=features),
        {
            name: EnvironmentState(Environment(name), {setting.name: setting for setting in settings})
            for name, settings in environments.items()
        },
        {segment.name: segment for segment in segments},
    )


class Shop:
    """A project to which documents are applied one after another."""

    def __init__(self, state: ProjectState | None = None, *, slug: str = "shop") -> None:
        self._slug = slug
        self._ids = itertools.count(1)
        self.state = State() if state is None else State({state.project.slug: state}, rule_number=1000)

    @property
    def project(self) -> ProjectState | None:
        return self.state.projects.get(self._slug)

    def planned(
        self,
        document: Document | str,
        *,
        environments: Collection[str] | None = None,
        prune: bool | Literal["declared"] = False,
    ) -> Sequence[Mutation]:
        if isinstance(document, str):
            document = parse_document(document)
        return plan_apply(document, self.project, environments=environments, prune=prune)

    def apply(
        self,
        document: Document | str,
        *,
        environments: Collection[str] | None = None,
        prune: bool | Literal["declared"] = False,
    ) -> Sequence[Mutation]:
        """Apply *document*, and return the mutations that it took."""
        mutations = self.planned(document, environments=environments, prune=prune)
        self.commit(mutations)
        return mutations

    def commit(self, mutations: Sequence[Mutation]) -> None:
        revision = self.state.revision + 1
        made = plan(
            self.state, self._slug, "", mutations, revision=revision, new_id=lambda: f"new{next(self._ids)}"
        )
        self.state = self.state.apply(made.changes, revision, made.rule_number)

    def setting(self, name: str, environment: str = "production") -> Setting:
        assert self.project is not None
        found = self.project.environments[environment].setting(name)
        assert found is not None
        return found

    def names(self, environment: str = "production") -> set[str]:
        assert self.project is not None
        return set(self.project.environments[environment].settings)

    def features(self) -> tuple[str, ...]:
        assert self.project is not None
        return self.project.project.features

    def change(self, setting: Setting, environment: str = "production") -> None:
        """Put *setting* into the state past the planner, as if some other writer had."""
        assert self.project is not None
        settings = {**self.project.environments[environment].settings, setting.name: setting}
        entry = replace(self.project.environments[environment], settings=settings)
        project = replace(self.project, environments={**self.project.environments, environment: entry})
        self.state = replace(self.state, projects={**self.state.projects, self._slug: project})
