"""A condition as somebody wrote it, beside one that is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rheostat.language.parser import parse_condition
from rheostat.model.condition import AllOf, AnyOf, Condition, Not, Percentage, walk
from rheostat.model.encoding import condition_key

__all__ = ["WrittenCondition"]


@dataclass(frozen=True, slots=True)
class WrittenCondition:
    """A condition whose percentages may leave open what a stored rule already says.

    Attributes:
        condition: With the empty salt, and MURMUR3, where the text had none.
        algorithms: For each percentage, outer first, whether its algorithm was written.
    """

    condition: Condition
    algorithms: tuple[bool, ...] = ()

    @classmethod
    def parse(cls, text: str) -> WrittenCondition:
        """Read *text*.

        Raises:
            InvalidConditionError: As `parse_condition`.
        """
        condition = parse_condition(text)
        return cls(condition, tuple(_algorithms(text)) if "percent" in text else ())

    @classmethod
    def of(cls, condition: Condition) -> WrittenCondition:
        """Take *condition* as fully written, but for empty salts."""
        return cls(condition, tuple(True for part in walk(condition) if isinstance(part, Percentage)))

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left open."""
        return all(self.algorithms) and all(
            part.salt for part in walk(self.condition) if isinstance(part, Percentage)
        )

    def equals(self, stored: Condition | None) -> bool:
        """Tell whether *stored* is this condition; an absent salt or algorithm equals any."""
        return stored is not None and condition_key(self._aligned(stored)) == condition_key(stored)

    def completed(self, stored: Condition | None) -> Condition:
        """Return the condition with absent salts and algorithms as in *stored*, which it shall replace.

        Where the two have different forms, a percentage takes after the first one of the same attribute. What
        *stored* does not know either stays open: the empty salt, which the server fills in, and MURMUR3.
        """
        if stored is None or self.is_complete:
            return self.condition
        if self.equals(stored):
            return self._aligned(stored)
        by_attribute: dict[str, Percentage] = {}
        for part in walk(stored):
            if isinstance(part, Percentage):
                by_attribute.setdefault(part.attribute, part)
        return self._filled(lambda _, part: by_attribute.get(part.attribute))

    def _aligned(self, stored: Condition) -> Condition:
        """Return the condition with what is open taken from the percentages of *stored*, one by one."""
        percentages = [part for part in walk(stored) if isinstance(part, Percentage)]
        return self._filled(lambda i, _: percentages[i] if i < len(percentages) else None)

    def _filled(self, source: Callable[[int, Percentage], Percentage | None]) -> Condition:
        seen = 0

        def fill(part: Condition) -> Condition:
            nonlocal seen
            match part:
                case Percentage(salt=salt):
                    index, seen = seen, seen + 1
                    known = source(index, part)
                    if known is None:
                        return part
                    written = self.algorithms[index]
                    return replace(
                        part,
                        salt=salt or known.salt,
                        algorithm=part.algorithm if written else known.algorithm,
                    )
                case AllOf(conditions):
                    return AllOf(tuple(fill(inner) for inner in conditions))
                case AnyOf(conditions):
                    return AnyOf(tuple(fill(inner) for inner in conditions))
                case Not(inner):
                    return Not(fill(inner))
                case _:
                    return part

        return fill(self.condition)


def _algorithms(text: str) -> list[bool]:
    """Return for each percentage, in the order of the text, which is that of `walk`, whether it names one."""
    # Late, as in `parse_condition`.
    from rheostat.language.token import tokens_of

    written: list[bool] = []
    open_ = False
    first = False
    for token in tokens_of(text):
        if token.type == "_PERCENT":
            written.append(False)
            open_ = True
        elif token.type == "_RPAR":
            open_ = False
        elif open_ and token.type == "PATH" and token == "algorithm":  # noqa: S105  # a token of the grammar
            # The path itself may be called so: then no equals sign follows, and the path comes first.
            written[-1] = written[-1] or not first
        first = token.type == "_LPAR"
    return written
