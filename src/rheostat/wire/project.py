"""Projects and environments as messages."""

from __future__ import annotations

from rheo.v1 import project_pb2
from rheostat.model.change import Environment, Project

__all__ = ["environment_from_proto", "environment_to_proto", "project_from_proto", "project_to_proto"]


def project_to_proto(project: Project) -> project_pb2.Project:
    """Return *project* with its features as a message."""
    return project_pb2.Project(
        name=project.slug,
        title=project.title,
        description=project.description,
        features=project.features,
        revision=project.revision,
    )


def project_from_proto(message: project_pb2.Project) -> Project:
    """Return the project of a peer's answer."""
    return Project(
        message.name, message.title, message.description, tuple(message.features), message.revision
    )


def environment_to_proto(environment: Environment) -> project_pb2.Environment:
    """Return *environment* as a message."""
    return project_pb2.Environment(
        name=environment.slug,
        title=environment.title,
        description=environment.description,
        protected=environment.protected,
        revision=environment.revision,
        required_approvals=environment.required_approvals,
        self_approval=environment.self_approval,
    )


def environment_from_proto(message: project_pb2.Environment) -> Environment:
    """Return the environment of a peer's answer."""
    return Environment(
        message.name,
        message.title,
        message.description,
        message.protected,
        message.revision,
        message.required_approvals,
        message.self_approval,
    )
