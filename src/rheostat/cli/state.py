"""A project as the server exports it, as model values."""

from __future__ import annotations

from rheo.v1 import admin_service_pb2 as admin
from rheostat.cli.connection import Connection
from rheostat.errors import PermissionDeniedError
from rheostat.model.state import EnvironmentState, ProjectState
from rheostat.wire.project import environment_from_proto, project_from_proto
from rheostat.wire.setting import segment_from_proto, setting_from_proto

__all__ = ["export_state", "find_state"]


def export_state(
    connection: Connection, project: str, environments: tuple[str, ...] = ()
) -> tuple[ProjectState, int]:
    """Return a project with *environments*, or all that the key sees, and the revision of that state.

    Raises:
        RheostatError: As `Connection.call`.
    """
    request = admin.ExportRequest(project=project, environments=environments)
    answer = connection.call(connection.admin.export, request)
    state = ProjectState(
        project=project_from_proto(answer.project),
        environments={
            entry.environment.name: EnvironmentState(
                environment_from_proto(entry.environment),
                {message.name: setting_from_proto(message) for message in entry.settings},
            )
            for entry in answer.environments
        },
        segments={message.name: segment_from_proto(message) for message in answer.segments},
    )
    return state, answer.revision


def find_state(connection: Connection, project: str) -> tuple[ProjectState | None, int | None]:
    """Return a project and its revision, or None twice when there is none that the key sees.

    Raises:
        RheostatError: As `Connection.call`.
    """
    try:
        return export_state(connection, project)
    except PermissionDeniedError as error:
        if error.reason != "UNKNOWN_PROJECT":
            raise
        return None, None
