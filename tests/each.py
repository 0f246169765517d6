"""Many inputs in one test, where a test for each would cost more than what it looks at."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["each"]

Test = Callable[..., None]


def each(names: str | tuple[str, ...], inputs: Sequence[Any]) -> Callable[[Test], Test]:
    """Run a test with each of *inputs*, as ``pytest.mark.parametrize`` does, but as one test.

    Args:
        names: Of one argument of the test, or of several, which each input then has a value for.
        inputs: The first that fails ends the test, and is named by it.
    """
    several = (names,) if isinstance(names, str) else names

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        def run(**fixtures: Any) -> None:
            for given in inputs:
                arguments = dict(zip(several, (given,) if isinstance(names, str) else given, strict=True))
                try:
                    test(**fixtures, **arguments)
                except BaseException as exc:
                    exc.add_note(f"with {arguments}")
                    raise

        signature = inspect.signature(test)
        left = [parameter for name, parameter in signature.parameters.items() if name not in several]
        run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return run

    return decorate
