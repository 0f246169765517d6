"""Rheostat: typed settings, rules and live changes over Connect RPC.

The public names are imported when they are first used, so that a program pays for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rheostat.errors import (
        AlreadyExistsError,
        AuthenticationError,
        ClientClosedError,
        DeadlineExceededError,
        FailedPreconditionError,
        InvalidArgumentError,
        InvalidConditionError,
        InvalidSettingError,
        LimitExceededError,
        MissingDependencyError,
        NotFoundError,
        PermissionDeniedError,
        RevisionCompactedError,
        RevisionConflictError,
        RheostatError,
        SettingNotFoundError,
        TypeMismatchError,
        UnavailableError,
    )
    from rheostat.evaluation.explain import Explanation
    from rheostat.evaluation.result import ErrorCode, Evaluation, Reason
    from rheostat.model.position import Position
    from rheostat.model.value import ABSENT, thaw
    from rheostat.sdk.aio import AsyncClient
    from rheostat.sdk.ambient import ambient
    from rheostat.sdk.call import CallResult
    from rheostat.sdk.core import ALL
    from rheostat.sdk.reader import Reader
    from rheostat.sdk.redis_source import RedisSource
    from rheostat.sdk.setting import Setting
    from rheostat.sdk.shared_cache import RedisCache
    from rheostat.sdk.status import Status
    from rheostat.sdk.subscription import SettingChange
    from rheostat.sdk.sync import Client

_HOMES: Final = {
    "rheostat.errors": (
        "AlreadyExistsError",
        "AuthenticationError",
        "ClientClosedError",
        "DeadlineExceededError",
        "FailedPreconditionError",
        "InvalidArgumentError",
        "InvalidConditionError",
        "InvalidSettingError",
        "LimitExceededError",
        "MissingDependencyError",
        "NotFoundError",
        "PermissionDeniedError",
        "RevisionCompactedError",
        "RevisionConflictError",
        "RheostatError",
        "SettingNotFoundError",
        "TypeMismatchError",
        "UnavailableError",
    ),
    "rheostat.evaluation.explain": ("Explanation",),
    "rheostat.evaluation.result": ("ErrorCode", "Evaluation", "Reason"),
    "rheostat.model.position": ("Position",),
    "rheostat.model.value": ("ABSENT", "thaw"),
    "rheostat.sdk.aio": ("AsyncClient",),
    "rheostat.sdk.ambient": ("ambient",),
    "rheostat.sdk.call": ("CallResult",),
    "rheostat.sdk.core": ("ALL",),
    "rheostat.sdk.reader": ("Reader",),
    "rheostat.sdk.redis_source": ("RedisSource",),
    "rheostat.sdk.setting": ("Setting",),
    "rheostat.sdk.shared_cache": ("RedisCache",),
    "rheostat.sdk.status": ("Status",),
    "rheostat.sdk.subscription": ("SettingChange",),
    "rheostat.sdk.sync": ("Client",),
}

_MODULES: Final = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ABSENT",
    "ALL",
    "AlreadyExistsError",
    "AsyncClient",
    "AuthenticationError",
    "CallResult",
    "Client",
    "ClientClosedError",
    "DeadlineExceededError",
    "ErrorCode",
    "Evaluation",
    "Explanation",
    "FailedPreconditionError",
    "InvalidArgumentError",
    "InvalidConditionError",
    "InvalidSettingError",
    "LimitExceededError",
    "MissingDependencyError",
    "NotFoundError",
    "PermissionDeniedError",
    "Position",
    "Reader",
    "Reason",
    "RedisCache",
    "RedisSource",
    "RevisionCompactedError",
    "RevisionConflictError",
    "RheostatError",
    "Setting",
    "SettingChange",
    "SettingNotFoundError",
    "Status",
    "TypeMismatchError",
    "UnavailableError",
    "ambient",
    "thaw",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
