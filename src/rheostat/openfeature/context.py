"""What a context of OpenFeature is here: attributes, with the targeting key as one of them, and subjects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from openfeature.evaluation_context import EvaluationContext

from rheostat.errors import InvalidArgumentError
from rheostat.evaluation.context import Context
from rheostat.model.setting import FEATURE_NAME
from rheostat.model.subject import KEY_NAME, RESERVED_KINDS, SUBJECT_KIND

__all__ = ["TargetingKey", "checked_path", "naming", "subject_paths", "subjects_of"]

_PARAMETERS: Final = frozenset({"attributes", "event", "quantity", "self"})
"""What `Client.track` takes beside subjects by their kinds."""


class TargetingKey:
    """The attribute that the targeting key is.

    Attributes:
        path: As conditions name it.
    """

    __slots__ = ("_kind", "_name", "path")

    def __init__(self, path: str) -> None:
        """Take the *path*.

        Raises:
            InvalidArgumentError: It cannot be that of an attribute.
        """
        self.path = checked_path("targeting_key", path)
        # Empty where it is no key of a subject, which a mapping by its kind names.
        self._kind, self._name = "", ""
        if path.count(".") == 1:
            self._kind, _, self._name = path.partition(".")

    def attributes(self, context: EvaluationContext | None) -> Mapping[str, object] | None:
        """Return the attributes of *context*, with its targeting key as one of them, if it has one.

        The key wins over an attribute of the same path, however that is written. What is no mapping is returned as it
        is, for the evaluator to say so.
        """
        if context is None:
            return None
        attributes = context.attributes
        key = context.targeting_key
        if key is None:
            return attributes
        kind = self._kind
        if type(attributes) is dict and kind and kind not in attributes and self.path not in attributes:
            return {**attributes, kind: {self._name: key}}
        return self._merged(attributes, key)

    def _merged(self, attributes: Mapping[str, object], key: str) -> Mapping[str, object]:
        if not isinstance(attributes, Mapping):
            return attributes
        said = attributes.get(self._kind)
        if not self._kind or not (said is None or isinstance(said, Mapping)):
            return {**attributes, self.path: key}
        found = {**attributes, self._kind: {**(said or {}), self._name: key}}
        # The flat name would be looked up before mappings are walked through.
        found.pop(self.path, None)
        return found


def subjects_of(attributes: Mapping[str, object], keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return by kind the keys of the subjects that *attributes* name; *keys* are paths such as ``user.id``."""
    context = Context(attributes)
    found: dict[str, dict[str, str]] = {}
    for path in keys:
        value = context.lookup(path)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            continue
        kind, _, key = path.partition(".")
        found.setdefault(kind, {})[key] = str(value)
    return found


def naming(attributes: Mapping[str, object], subjects: Mapping[str, Mapping[str, str]]) -> dict[str, object]:
    """Return *attributes* with the keys of *subjects* in mappings by their kinds, where clients look for them."""
    found = dict(attributes)
    for kind, keys in subjects.items():
        said = found.get(kind)
        if said is None or isinstance(said, Mapping):
            found[kind] = {**(said or {}), **keys}
    return found


def checked_path(option: str, path: str) -> str:
    """Return *path*.

    Raises:
        InvalidArgumentError: It cannot be that of an attribute.
    """
    if not isinstance(path, str) or FEATURE_NAME.fullmatch(path) is None:
        raise InvalidArgumentError(f"the option {option} is {path!r}, which is no attribute's path")
    return path


def subject_paths(targeting_key: str, subject_keys: Iterable[str]) -> tuple[str, ...]:
    """Return the paths that name subjects: *subject_keys*, and before them the targeting key, if it can.

    Raises:
        InvalidArgumentError: One of *subject_keys* does not consist of a kind and a key.
    """
    paths = dict.fromkeys([targeting_key] if _names_subject(targeting_key) else [])
    for path in subject_keys:
        if not _names_subject(checked_path("subject_keys", path)):
            raise InvalidArgumentError(
                f"the option subject_keys has {path!r}, which is not a kind of subjects and a key, such as user.id"
            )
        paths[path] = None
    return tuple(paths)


def _names_subject(path: str) -> bool:
    kind, _, key = path.partition(".")
    return (
        SUBJECT_KIND.fullmatch(kind) is not None
        and KEY_NAME.fullmatch(key) is not None
        and kind not in RESERVED_KINDS
        and kind not in _PARAMETERS
    )
