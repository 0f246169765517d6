"""What settings and segments refer to, through any number of references: cycles and nesting."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, TypeAlias

from rheostat.model.condition import (
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Not,
    SegmentReference,
    SettingReference,
)
from rheostat.model.rule import Rule
from rheostat.model.snapshot import Snapshot

__all__ = ["MAX_NESTING", "Dependencies", "Node"]

MAX_NESTING: Final = 64
"""The deepest nesting that is evaluated, counting the segments and settings that a condition refers to.

Twice what a server accepts for one condition. Part of the semantics: it keeps every interpreter, in any
language, inside its stack.
"""

Node: TypeAlias = tuple[Literal["setting", "segment"], str]
"""A setting by its current name, or a segment."""


class Dependencies:
    """The references among the settings and segments of one snapshot, followed lazily and remembered.

    Disabled settings and rules count, so that enabling one never closes a cycle. Nothing here recurses.
    Safe from any thread: what is remembered is the same whoever computes it.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        """Follow the references of *snapshot*."""
        self._snapshot = snapshot
        self._direct: dict[Node, tuple[Node, ...]] = {}
        # Nodes that lead to no cycle.
        self._clear: set[Node] = set()
        self._cycles: dict[Node, tuple[Node, ...] | None] = {}
        self._nesting: dict[Node, int] = {}

    def node(self, reference: SettingReference | SegmentReference) -> Node:
        """Return what *reference* leads to, which need not exist; an alias leads to the current name."""
        if isinstance(reference, SegmentReference):
            return "segment", reference.name
        setting = self._snapshot.setting(reference.name)
        return "setting", reference.name if setting is None else setting.name

    def exists(self, node: Node) -> bool:
        """Tell whether the snapshot has *node*."""
        return node[1] in (self._snapshot.segments if node[0] == "segment" else self._snapshot.settings)

    def rules(self, node: Node) -> tuple[Rule, ...]:
        """Return the rules of a setting; none of a segment or of what does not exist."""
        setting = self._snapshot.settings.get(node[1]) if node[0] == "setting" else None
        return () if setting is None else setting.rules

    def conditions(self, node: Node) -> tuple[Condition, ...]:
        """Return the conditions of a segment or of a setting's rules; none when it does not exist."""
        segment = self._snapshot.segments.get(node[1]) if node[0] == "segment" else None
        if segment is not None:
            return (segment.condition,)
        return tuple(rule.condition for rule in self.rules(node) if rule.condition is not None)

    def of_conditions(self, conditions: Iterable[Condition]) -> tuple[Node, ...]:
        """Return what *conditions* refer to directly, sorted."""
        return tuple(
            sorted(
                {
                    self.node(reference)
                    for condition in conditions
                    for reference, _ in _parts(condition)
                    if reference is not None
                }
            )
        )

    def direct(self, node: Node) -> tuple[Node, ...]:
        """Return what *node* refers to directly, sorted."""
        if node not in self._direct:
            self._direct[node] = self.of_conditions(self.conditions(node))
        return self._direct[node]

    def reachable(self, starts: Iterable[Node]) -> set[Node]:
        """Return *starts* and all that they refer to, directly or not."""
        found = set(starts)
        stack = list(found)
        while stack:
            for after in self.direct(stack.pop()):
                if after not in found:
                    found.add(after)
                    stack.append(after)
        return found

    def cycle(self, node: Node) -> tuple[Node, ...] | None:
        """Return a shortest cycle through *node*, beginning and ending with it, or None."""
        if self.leads_to_cycle(node) is None:
            return None
        if node not in self._cycles:
            self._cycles[node] = self._find_cycle(node)
        return self._cycles[node]

    def leads_to_cycle(self, start: Node) -> tuple[Node, ...] | None:
        """Return a cycle that *start* leads to, beginning and ending with the same node, or None."""
        if start in self._clear:
            return None
        # The path walked from the start, each node with those that are still to be followed from it.
        path: dict[Node, Iterator[Node]] = {start: iter(self.direct(start))}
        while path:
            node = next(reversed(path))
            for after in path[node]:
                if after in path:
                    walked = list(path)
                    return (*walked[walked.index(after) :], after)
                if after not in self._clear:
                    path[after] = iter(self.direct(after))
                    break
            else:
                self._clear.add(node)
                del path[node]
        return None

    def _find_cycle(self, node: Node) -> tuple[Node, ...] | None:
        came_from: dict[Node, Node] = {}
        queue = [node]
        for current in queue:
            for after in self.direct(current):
                if after == node:
                    return (*_path(came_from, node, current), node)
                if after not in came_from:
                    came_from[after] = current
                    queue.append(after)
        return None

    def nesting(self, condition: Condition) -> int:
        """Return how deep *condition* nests: 1 for a leaf, and a reference goes on below itself.

        A reference to what is on a cycle does not go on, as it is UNKNOWN there.
        """
        deepest = 0
        for reference, level in _parts(condition):
            below = 0
            if reference is not None:
                node = self.node(reference)
                below = 0 if self.cycle(node) else self._node_nesting(node)
            deepest = max(deepest, level + below)
        return deepest

    def _node_nesting(self, start: Node) -> int:
        stack = [start]
        while stack:
            node = stack[-1]
            if node in self._nesting:
                stack.pop()
                continue
            pending = [
                after for after in self.direct(node) if after not in self._nesting and not self.cycle(after)
            ]
            if pending:
                stack.extend(pending)
            else:
                self._nesting[node] = max(map(self.nesting, self.conditions(node)), default=0)
        return self._nesting[start]


def _path(came_from: dict[Node, Node], start: Node, end: Node) -> tuple[Node, ...]:
    path = [end]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))


def _parts(condition: Condition) -> Iterator[tuple[SegmentReference | SettingReference | None, int]]:
    stack: list[tuple[Condition, int]] = [(condition, 1)]
    while stack:
        current, level = stack.pop()
        yield None, level
        match current:
            case AllOf(parts) | AnyOf(parts):
                stack.extend((part, level + 1) for part in parts)
            case Not(inner):
                stack.append((inner, level + 1))
            case SegmentReference():
                yield current, level
            case Comparison(left, _, right):
                for operand in (left, right):
                    if isinstance(operand, SettingReference):
                        yield operand, level
            case _:
                pass
