"""Content from outside as one of our records: the first mistake becomes one sentence with the key's name."""

from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from metanas.errors import MetanasError

T = TypeVar("T")
STRICT: ConfigDict = {"extra": "forbid", "allow_inf_nan": False}
"""What our dataclasses that a configuration fills accept: no other keys, and numbers that are ones."""


def parse(kind: type[T], content: Any, source: str) -> T:
    """Validates `content` as a model of pydantic or a dataclass. Raises MetanasError, which begins with `source`."""
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise first_mistake(error, source) from error


def first_mistake(error: ValidationError, source: str) -> MetanasError:
    """The sentence on the first of the mistakes."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    # Of a missing key the input is all that stands beside it.
    got = "" if first["type"] == "missing" else f"; got {first['input']!r}"
    return MetanasError(f"{source}: key '{key}': {first['msg']}{got}.")
