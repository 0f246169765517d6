"""Write `docs/reference/api/` from the docstrings of the public interface, or check that it is up to date.

Usage: `python tools/api.py [--check]`

Signatures are the text of the source, so that every version of Python writes the same.
"""

from __future__ import annotations

import argparse
import ast
import enum
import functools
import importlib
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs/reference/api"

_NOTE = "<!-- Written by `just api` from the docstrings; a test compares the two. -->"

_RESOLVING = {
    f"resolve_{kind}_details{way}"
    for kind in ("boolean", "float", "integer", "object", "string")
    for way in ("", "_async")
}

_INTERNAL = {
    "AiohttpTransport": {"disown"},
    "AsyncChanges": {"put"},
    "AsyncRheostatProvider": {
        *_RESOLVING,
        "attach",
        "get_metadata",
        "get_provider_hooks",
        "initialize",
        "shutdown",
        "track",
    },
    "CancelScope": {"dismiss", "enroll"},
    "Changes": {"put"},
    "ExposureHook": {"finally_after"},
    "Position": {"token"},
    "Reader": {"evaluate_setting", "forget_context", "read_setting", "subscribe_setting", "value_in"},
    "RheostatProvider": {*_RESOLVING, "get_metadata", "get_provider_hooks"},
    "RedisCache": {"bind", "drop", "look_up", "put"},
    "RedisSource": {"async_connection", "connection"},
    "Setting": {"declaration", "localise"},
    "TracedReader": {"evaluate_setting"},
    "Urllib3Transport": {"await_message", "disown"},
}
"""What other modules of the package call, or OpenFeature's SDK, and nobody else; so is `after_fork` everywhere."""

_HANDED_OUT = {"AsyncChanges", "AsyncStream", "Changes", "Reader", "Stream", "TracedReader"}
"""Classes whose objects others make."""

_SPELLED = {
    "__call__": "()",
    "__contains__": ": in",
    "__getitem__": "[name]",
    "__iter__": ": for",
    "__setitem__": "[name] = value",
}
"""Headings of the methods that syntax calls."""

Function = ast.FunctionDef | ast.AsyncFunctionDef

_SECTIONS = ("Args", "Attributes", "Raises", "Returns", "Yields")


@dataclass
class Page:
    """A page of the reference.

    Attributes:
        file: Its name.
        title: Its heading.
        text: What stands below that.
        homes: For each module that is shown, the names, in order; none means its `__all__`.
    """

    file: str
    title: str
    text: str
    homes: dict[str, Sequence[str]]
    entries: list[Entry] = field(default_factory=list)


@dataclass(frozen=True)
class Entry:
    """A public name: its heading, where it is imported from, what it is, and the source that says so."""

    heading: str

    shown_in: str
    name: str
    thing: object
    source: Source
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | None
    docstring: str


class Source:
    """The text of a module and its parts."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self._text = inspect.getsource(module)
        self.tree = ast.parse(self._text)

    def definition(self, name: str) -> ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | None:
        """Return the last definition of *name* at the top of the module: overloads stand before it."""
        found = None
        for node in self.tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
                found = node
        return found

    def text(self, node: ast.AST) -> str:
        """Return the text of *node* in one line, private aliases written out."""
        found = re.sub(r"\s+", " ", ast.get_source_segment(self._text, node) or "")
        return re.sub(r"\b_[A-Z]\w*", lambda match: self._aliased(match[0]), found)

    def _aliased(self, name: str) -> str:
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                return self.text(node.value)
        return name


@functools.cache
def source_of(module: str) -> Source:
    return Source(importlib.import_module(module))


def documented(body: Sequence[ast.stmt]) -> Iterator[tuple[str, str]]:
    """Yield the names that are assigned in *body* and have a docstring behind them, with it."""
    for node, following in itertools.pairwise(body):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if (
            isinstance(target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            yield target.id, inspect.cleandoc(following.value.value)


def imported_from(module: ModuleType, name: str) -> str:
    """Return the module that *name* comes from, going by the imports of *module*, also those for type checkers."""
    for node in ast.walk(source_of(module.__name__).tree):
        if isinstance(node, ast.ImportFrom) and node.module and any(each.name == name for each in node.names):
            return node.module
    return module.__name__


def entries_of(page: Page) -> Iterator[Entry]:
    for name, listed in page.homes.items():
        module = importlib.import_module(name)
        for public in listed or module.__all__:
            thing = getattr(module, public)
            home = getattr(thing, "__module__", None)
            if not inspect.isclass(thing) and not inspect.isroutine(inspect.unwrap(thing)):
                # A constant, whose type has a module, but which itself has none.
                home = imported_from(module, public)
            source = source_of(home or name)
            node = source.definition(public)
            docstring = ast.get_docstring(node) if node else dict(documented(source.tree.body)).get(public)
            if not docstring:
                sys.exit(f"{name}.{public} has no docstring")
            # Frameworks have the same names in several modules.
            heading = f"{name.rpartition('.')[2]}.{public}" if "integrations" in name else public
            yield Entry(heading, name, public, thing, source, node, docstring)


# Markdown.


def prose(text: str) -> str:
    """Return a docstring's text as Markdown."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if not paragraph.strip():
            continue
        # All its lines are code, or none: a section's continuation lines were joined before.
        if all(line.startswith("    ") for line in paragraph.splitlines()):
            code = textwrap.dedent(paragraph)
            if lines and lines[-1] == "```":
                lines[-1:] = ["", code, "```"]
            else:
                language = "python" if re.search(r"[=(]|import|with ", code) else "text"
                lines += ["", f"```{language}", code, "```"]
        elif paragraph.strip() != "::":
            lines += ["", re.sub(r"::$", ":", paragraph)]
    joined = "\n".join(lines).strip("\n")
    return re.sub(r"(?<!`)``([^`]+)``(?!`)", r"`\1`", joined)


def described(docstring: str, types: Mapping[str, str] | None = None) -> str:
    """Return a docstring as Markdown, its sections as lists, with the *types* of attributes."""
    parts = re.split(rf"^({'|'.join(_SECTIONS)}):\n", docstring + "\n", flags=re.MULTILINE)
    found = [prose(parts[0])]
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        # What is not indented any more is no part of the section.
        match = re.match(r"(?:(?:    .*)?\n)*", body)
        inside = textwrap.dedent(match[0] if match else "")
        after = body[match.end() :] if match else ""
        items = re.split(r"\n(?! )", inside.strip("\n"))
        if title in {"Returns", "Yields"}:
            found.append(f"**{title}**: {prose(' '.join(' '.join(items).split()))}")
        else:
            known = types or {} if title == "Attributes" else {}
            found.append(
                f"**{title}**:\n\n" + "\n".join(item(" ".join(each.split()), known) for each in items)
            )
        if after.strip():
            found.append(prose(after))
    return "\n\n".join(part for part in found if part)


def item(text: str, types: Mapping[str, str]) -> str:
    name, _, rest = text.partition(": ")
    type_ = f" (`{types[name]}`)" if name in types else ""
    return f"- `{name}`{type_}: {prose(rest)}"


def signature(source: Source, node: ast.FunctionDef | ast.AsyncFunctionDef, *, bound: bool) -> str:
    """Return the parameters and the result as they stand in the source; *bound* ones have no `self`."""
    given = node.args
    plain = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(plain) - len(given.defaults)) + list(given.defaults)
    parameters: list[str] = []
    for i, (argument, default) in enumerate(zip(plain, defaults, strict=True)):
        if not (bound and i == 0):
            parameters.append(parameter(source, argument, default))
        if given.posonlyargs and i == len(given.posonlyargs) - 1 and not (bound and i == 0):
            parameters.append("/")
    if given.vararg:
        parameters.append("*" + parameter(source, given.vararg, None))
    elif given.kwonlyargs:
        parameters.append("*")
    parameters += [
        parameter(source, argument, default)
        for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    if given.kwarg:
        parameters.append("**" + parameter(source, given.kwarg, None))
    result = f" -> {source.text(node.returns)}" if node.returns else ""
    one_line = f"({', '.join(parameters)}){result}"
    if len(one_line) <= 88:
        return one_line
    return "(\n" + "".join(f"    {each},\n" for each in parameters) + f"){result}"


def parameter(source: Source, argument: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {source.text(argument.annotation)}" if argument.annotation else ""
    equals = "" if default is None else (" = " if annotation else "=") + source.text(default)
    return f"{argument.arg}{annotation}{equals}"


def entry_markdown(entry: Entry) -> str:
    node, name, source = entry.node, entry.name, entry.source
    if isinstance(node, ast.ClassDef):
        return "\n\n".join(class_markdown(entry, node))
    code = f"from {entry.shown_in} import {name}"
    if node is not None and any("fixture" in source.text(each) for each in node.decorator_list):
        code = f"def test_something({name}): ..."
    elif node is not None:
        code += f"\n\n{function(source, node, bound=False)}"
    return f"## {entry.heading}\n\n```python\n{code}\n```\n\n{described(entry.docstring)}"


def function(source: Source, node: Function, *, bound: bool) -> str:
    managers = [
        f"@{text}\n" for each in node.decorator_list if (text := source.text(each)).endswith("contextmanager")
    ]
    awaited = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{''.join(managers)}{awaited}def {node.name}{signature(source, node, bound=bound)}"


def class_markdown(entry: Entry, node: ast.ClassDef) -> Iterator[str]:
    thing = entry.thing
    assert inspect.isclass(thing)
    # What private bases have is shown as the class's own.
    private = [
        (source_of(base.__module__), base) for base in thing.__bases__ if base.__name__.startswith("_")
    ]
    nodes = [(entry.source, node)]
    for source, base in private:
        inherited = source.definition(base.__name__)
        assert isinstance(inherited, ast.ClassDef)
        nodes.append((source, inherited))

    code = f"from {entry.shown_in} import {entry.name}"
    constructors = [
        (source, each)
        for source, class_ in nodes
        for each in class_.body
        if isinstance(each, ast.FunctionDef) and each.name == "__init__"
    ]
    made = not issubclass(thing, (enum.Enum, BaseException)) and entry.name not in _HANDED_OUT
    if constructors and made:
        # The first of overloads is the one with types; the last has the docstring.
        source, first = constructors[0]
        code += f"\n\n{entry.name}{signature(source, first, bound=True).rpartition(' -> ')[0]}"
    yield f"## {entry.heading}"
    yield f"```python\n{code}\n```"
    bases = [base.__name__ for base in thing.__bases__ if is_shown(base)]
    if bases:
        yield "Bases: " + ", ".join(f"`{base}`" for base in bases)
    types = {
        each.target.id: entry.source.text(each.annotation)
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    yield described(entry.docstring, types)
    if constructors and made:
        sections = described(ast.get_docstring(constructors[-1][1]) or "").partition("\n\n")[2]
        if sections:
            yield sections
    if issubclass(thing, enum.Enum):
        said = dict(documented(node.body))
        yield "\n".join(
            f"- `{member.name}`" + (f": {prose(said[member.name])}" if member.name in said else "")
            for member in thing
        )
    shown: set[str] = set()
    for source, class_ in nodes:
        for method in members_of(class_, thing.__name__):
            if method.name not in shown:
                shown.add(method.name)
                yield method_markdown(entry, source, method)


def is_shown(base: type) -> bool:
    if base.__module__.startswith("rheostat."):
        return not base.__name__.startswith("_")
    return base.__module__ == "builtins" and base is not object


def method_markdown(entry: Entry, source: Source, method: Function) -> str:
    words = [source.text(each) for each in method.decorator_list]
    if "property" in words and method.returns is not None:
        code = f"{method.name}: {source.text(method.returns)}"
    else:
        code = function(source, method, bound="staticmethod" not in words)
    label = _SPELLED.get(method.name, f".{method.name}")
    return f"### {entry.heading}{label}\n\n```python\n{code}\n```\n\n{described(ast.get_docstring(method) or '')}"


def members_of(node: ast.ClassDef, name: str) -> list[Function]:
    found: dict[str, Function] = {}
    for each in node.body:
        if not isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef)) or each.name == "__init__":
            continue
        hidden = each.name.startswith("_") and not (each.name in _SPELLED and ast.get_docstring(each))
        if not hidden and each.name != "after_fork" and each.name not in _INTERNAL.get(name, ()):
            found[each.name] = each
    return list(found.values())


def linked(markdown: str, page: Page, pages: Sequence[Page]) -> str:
    """Return *markdown* with the names of entries leading to them, outside of code."""
    places = {
        entry.heading: (other.file if other is not page else "") + "#" + anchor(entry)
        for other in pages
        for entry in other.entries
    }

    def link(match: re.Match[str]) -> str:
        name = match[1].removeprefix("rheostat.").removeprefix("testing.")
        place = places.get(name)
        return match[0] if place is None else f"[`{match[1]}`]({place})"

    pieces = re.split(
        r"(^```.*?^```$|^#[^\n]*$|\[[^\]]*\]\([^)]*\))", markdown, flags=re.MULTILINE | re.DOTALL
    )
    return "".join(
        piece if i % 2 else re.sub(r"(?<!`)`([\w.]+)`(?!`)", link, piece) for i, piece in enumerate(pieces)
    )


PAGES = (
    Page(
        "rheostat.md",
        "rheostat",
        "The SDK. What reads settings is in `Reader`, what clients have beside that in `BaseClient`.",
        {
            "rheostat": (
                "Client",
                "AsyncClient",
                "Reader",
                "Setting",
                "ambient",
                "ALL",
                "SettingChange",
                "Status",
                "Evaluation",
                "Reason",
                "ErrorCode",
                "Explanation",
                "Position",
                "CallResult",
                "RedisCache",
                "RedisSource",
                "ABSENT",
                "thaw",
            ),
            "rheostat.sdk.client": ("BaseClient", "SettingInfo"),
            "rheostat.sdk.sync": ("Changes", "Stream"),
            "rheostat.sdk.aio": ("AsyncChanges", "AsyncStream"),
            "rheostat.sdk.codec": ("Coercion", "codec_for"),
            "rheostat.model.declaration": ("DeclarationResult", "DeclarationOutcome", "Difference"),
            "rheostat.evaluation.explain": ("RuleExplanation", "ConditionExplanation"),
        },
    ),
    Page(
        "errors.md",
        "Errors",
        "What is raised, one class for each reaction that a caller can have; those of the SDK can also be imported from "
        "`rheostat`. The words of `reason` are in [errors](../errors.md).",
        {"rheostat.errors": ()},
    ),
    Page(
        "testing.md",
        "rheostat.testing",
        "",
        {"rheostat.testing": (), "rheostat.testing.plugin": ()},
    ),
    Page(
        "integrations.md",
        "rheostat.integrations",
        "",
        {
            f"rheostat.integrations.{name}": ()
            for name in ("django", "flask", "starlette", "fastapi", "logging", "ndjson", "otel", "webhooks")
        }
        | {"rheostat.model.exposure": ()},
    ),
    Page("openfeature.md", "rheostat.openfeature", "", {"rheostat.openfeature": ()}),
    Page("transport.md", "rheostat.sdk.transport", "", {"rheostat.sdk.transport": ()}),
)


def rendered() -> dict[Path, str]:
    """Return all pages by their paths."""
    for page in PAGES:
        page.entries[:] = entries_of(page)
    found = {FOLDER / page.file: linked(page_markdown(page), page, PAGES) for page in PAGES}
    index = [
        "# The API",
        _NOTE,
        "Every public name, from its docstring. How to use them is in [the guide](../../README.md).",
        "What is not listed here is free to change.",
    ]
    for page in PAGES:
        index.append(f"## [{page.title}]({page.file})")
        rows = [
            f"| [`{entry.heading}`]({page.file}#{anchor(entry)}) | {summary(entry)} |"
            for entry in page.entries
        ]
        index.append("\n".join(["| | |", "|---|---|", *rows]))
    found[FOLDER / "README.md"] = "\n\n".join(index) + "\n"
    return found


def page_markdown(page: Page) -> str:
    parts = [f"# {page.title}", _NOTE]
    if page.text:
        parts.append(page.text)
    several = len(page.homes) > 1
    for name in page.homes:
        module = importlib.import_module(name)
        if (several and "." in name and page.file != "rheostat.md") or not page.text:
            if several and name != page.title:
                parts.append(f"# {name}")
            parts.append(described(inspect.cleandoc(module.__doc__ or "")))
        parts += [entry_markdown(entry) for entry in page.entries if entry.shown_in == name]
    return "\n\n".join(parts) + "\n"


def anchor(entry: Entry) -> str:
    return entry.heading.lower().replace(".", "")


def summary(entry: Entry) -> str:
    first = prose(entry.docstring.split("\n\n")[0].replace("\n", " "))
    return first.replace("|", "\\|")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file would change")
    check = parser.parse_args().check
    pages = rendered()
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
    stale += [path for path in sorted(FOLDER.glob("*")) if path not in pages]
    for path in stale:
        print(path.relative_to(ROOT))
        if not check and path in pages:
            FOLDER.mkdir(exist_ok=True)
            path.write_text(pages[path], "utf-8")
        elif not check:
            path.unlink()
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
