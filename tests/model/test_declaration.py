from __future__ import annotations

import pytest

from rheostat.model.declaration import Declaration
from rheostat.model.setting import Version
from rheostat.model.type import FLOAT


def test_versions_are_compared_as_numbers() -> None:
    assert Version.parse("1.0") == Version.parse("1.00") == Version.parse("01.0") == Version()
    assert Version.parse("1.9") < Version.parse("1.10") < Version.parse("2.0") < Version.parse("10.0")
    assert str(Version.parse("2.010")) == "2.10"


@pytest.mark.parametrize(
    "text", ["", "1", "1.", ".1", "1.0.0", "v1.0", "-1.0", "1.0 ", "1,0", "\u0661.\u0660", "1.0\n"]
)
def test_anything_but_two_numbers_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match=r"major\.minor"):
        Version.parse(text)


def test_declarations_of_equal_content_are_equal_however_the_version_is_written() -> None:
    first = Declaration("x", FLOAT, 1.0, version=Version.parse("1.0"))
    assert first == Declaration("x", FLOAT, 1.0, version=Version.parse("1.00"))
    assert first != Declaration("x", FLOAT, 1.0, version=Version.parse("1.1"))
