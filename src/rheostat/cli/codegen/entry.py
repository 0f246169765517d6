"""Settings with their forms, and the types in them that get names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from rheostat.cli.codegen.name import assign, type_candidates
from rheostat.cli.codegen.schema import form_of
from rheostat.cli.codegen.shape import (
    ArrayShape,
    Form,
    LiteralShape,
    MapShape,
    ObjectShape,
    ReferenceShape,
    Shape,
    UnionShape,
    options,
)
from rheostat.model.setting import Lifecycle, Setting

__all__ = [
    "ELEMENT",
    "VALUE",
    "Entry",
    "Path",
    "definition_path",
    "entries_of",
    "is_choice",
    "option_step",
    "property_step",
    "type_names",
]

Path: TypeAlias = tuple[str, ...]
"""The name of a setting, and steps from its type to a type within it."""

ELEMENT: Final = "[]"
VALUE: Final = "{}"


def property_step(key: str) -> str:
    """Return the step to the value of a key of an object."""
    return f".{key}"


def option_step(index: int) -> str:
    """Return the step to an option of a union."""
    return f"|{index}"


def definition_path(name: str, pointer: str) -> Path:
    """Return the path of an object that references in the setting *name* lead to."""
    return (name, pointer)


@dataclass(frozen=True, slots=True)
class Entry:
    """A setting, and what its values look like."""

    setting: Setting
    form: Form

    @property
    def is_deprecated(self) -> bool:
        """Whether the setting should no longer be read."""
        return self.setting.lifecycle is Lifecycle.DEPRECATED


def entries_of(settings: Sequence[Setting]) -> Sequence[Entry]:
    """Return the entries of *settings*."""
    return [Entry(setting, form_of(setting.type)) for setting in settings]


def is_choice(shape: Shape) -> bool:
    """Tell whether *shape* is a choice of literals."""
    return all(isinstance(option, LiteralShape) for option in options(shape))


def type_names(entries: Sequence[Entry], taken: Collection[str]) -> dict[Path, str]:
    """Return names for all objects in *entries*, and for the choices that their settings are about.

    Args:
        entries: All of the module's.
        taken: What no type may be called.
    """
    paths = [path for entry in entries for path in _paths(entry)]
    keys = {"\0".join(path): path for path in paths}
    names = assign({key: type_candidates(key, _words(path)) for key, path in keys.items()}, taken)
    return {path: names[key] for key, path in keys.items()}


def _paths(entry: Entry) -> Iterator[Path]:
    name = entry.setting.name
    reached: set[str] = set()

    def visit(shape: Shape, path: Path, *, is_spine: bool = False) -> Iterator[Path]:
        if is_spine and is_choice(shape):
            yield path
        match shape:
            case ObjectShape(properties):
                yield path
                for key, inner in properties.items():
                    yield from visit(inner.shape, (*path, property_step(key)))
            case ArrayShape(element):
                yield from visit(element, (*path, ELEMENT), is_spine=is_spine)
            case MapShape(element):
                yield from visit(element, (*path, VALUE), is_spine=is_spine)
            case UnionShape(parts):
                for index, part in enumerate(parts):
                    yield from visit(part, (*path, option_step(index)))
            case ReferenceShape(pointer) if pointer in entry.form.definitions and pointer not in reached:
                reached.add(pointer)
                yield from visit(entry.form.definitions[pointer], definition_path(name, pointer))
            case _:
                pass

    yield from visit(entry.form.shape, (name,), is_spine=True)


def _words(path: Path) -> Sequence[str]:
    words = [path[0]]
    for step in path[1:]:
        match step[0]:
            case "#":
                words.append(step.rpartition("/")[2].removeprefix("#"))
            case ".":
                words.append(step[1:])
            case "|":
                words.append(f"Option{int(step[1:]) + 1}")
            case "[":
                words.append("Item")
            case _:
                words.append("Value")
    return words
