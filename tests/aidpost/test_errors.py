"""The error tree: documented, picklable, with an exit code and a stable code each."""

from __future__ import annotations

import pickle
import re

import pytest

from aidpost import errors
from aidpost.errors import AidpostError


def tree(kind: type[AidpostError] = AidpostError) -> list[type[AidpostError]]:
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(leaf for child in children for leaf in tree(child))]


def test_docstring_draws_every_class_in_order() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert drawn == [kind.__name__ for kind in tree()[1:]]


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_error_says_what_why_and_what_to_do_and_survives_a_pipe(kind: type[AidpostError]) -> None:
    error = kind(operation="reading", target="x.jpg", cause="it is empty", remedy="Take it again.")
    assert str(error) == "reading: x.jpg: it is empty. Take it again."
    assert error.to_dict() == {"code": kind.code, "message": "reading: x.jpg: it is empty", "remedy": "Take it again."}
    assert error.exit_code in {1, 2, 3, 4}
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert copy.to_dict() == error.to_dict()


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in tree()]
    assert len(set(codes)) == len(codes)
