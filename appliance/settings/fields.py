"""How one setting is declared: default, words, unit, limits, format. Checks, reference and default file read it."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeVar

from appliance.settings.formats import Format
from appliance.settings.secret import Secret

__all__ = ["Field", "Shape", "fields_of", "setting"]

T = TypeVar("T")
_SPEC: Final = "edgecall.setting"
TEXT_LIMIT: Final = 512
"""Characters of a text where its declaration says nothing else."""
LIST_LIMIT: Final = 64
"""Entries of a list where its declaration says nothing else."""


class Shape(Enum):
    """What stands after the ``=``. The values are the words of the reference."""

    BOOLEAN = "true or false"
    INTEGER = "whole number"
    NUMBER = "number"
    TEXT = "text"
    TEXTS = "list of texts"
    SECRET = "file of a secret"  # noqa: S105 - a word, no secret
    SECTION = "section"
    SECTIONS = "list of sections"


@dataclass(frozen=True, slots=True)
class _Spec:
    help: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    format: Format | None = None
    required: bool = False
    restart: bool = False
    example: str = ""
    computed: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One declared setting. ``minimum``/``maximum``: of a number, else the length of a text or list.

    ``restart``: a change takes effect at the next start. ``computed``: words for a default found at load time.
    ``element``: the section class of SECTION and SECTIONS. ``alone``: a text may stand for a list of it alone.
    """

    name: str
    shape: Shape
    default: Any
    help: str
    unit: str
    minimum: float
    maximum: float
    choices: tuple[str, ...]
    format: Format | None
    required: bool
    restart: bool
    example: str
    computed: str
    element: type[Any] = object
    alone: bool = False

    @property
    def key(self) -> str:
        """The key in the file: a secret is named by the file that holds it."""
        return f"{self.name}_file" if self.shape is Shape.SECRET else self.name

    @property
    def limits(self) -> str:
        """Range, choices or format, in words; empty where there is nothing to say."""
        if self.choices:
            return ", ".join(self.choices)
        if self.shape in {Shape.INTEGER, Shape.NUMBER}:
            return f"{self.minimum:.12g} to {self.maximum:.12g}{f' {self.unit}' if self.unit else ''}"
        if self.shape is Shape.SECRET:
            return "path, or credential:NAME"
        if self.format is not None:
            return self.format.says
        if self.shape is Shape.TEXT:
            return f"at most {self.maximum:g} characters"
        return f"at most {self.maximum:g} entries" if self.shape in {Shape.TEXTS, Shape.SECTIONS} else ""


def setting(
    default: T, words: str, *, unit: str = "", minimum: float | None = None, maximum: float | None = None,
    choices: tuple[str, ...] = (), format: Format | None = None, required: bool = False, restart: bool = False,
    example: str = "", computed: str = "", alone: bool = False,
) -> T:
    """Declare one field of a section class; every number needs ``minimum`` and ``maximum``.

    ``example`` is a TOML value for the commented default file, shown where the default alone says little.
    """
    spec = _Spec(words, unit, minimum, maximum, choices, format, required, restart, example, computed, alone)
    declared: Any = field(default=default, metadata={_SPEC: spec})
    return declared  # type: ignore[no-any-return]  # a dataclass field stands for its type, as in dataclasses


_known: dict[type[Any], tuple[Field, ...]] = {}


def fields_of(section: type[Any]) -> tuple[Field, ...]:
    """The settings a section class declares, in order. Fields without a declaration are set by the loader."""
    if section not in _known:
        _known[section] = _declared(section)
    return _known[section]


def _declared(section: type[Any]) -> tuple[Field, ...]:
    hints = typing.get_type_hints(section)
    declared = []
    for one in dataclasses.fields(section):
        spec = one.metadata.get(_SPEC, _Spec(""))
        shape, element = _shape(hints[one.name])
        if shape is None:
            continue
        default = one.default_factory() if one.default_factory is not dataclasses.MISSING else one.default
        limit = TEXT_LIMIT if shape is Shape.TEXT else LIST_LIMIT
        declared.append(Field(
            one.name, shape, default, spec.help, spec.unit,
            spec.minimum if spec.minimum is not None else 0, spec.maximum if spec.maximum is not None else limit,
            spec.choices, spec.format, spec.required, spec.restart, spec.example, spec.computed, element, spec.alone,
        ))
    return tuple(declared)


_SHAPES: Final[dict[Any, Shape]] = {
    bool: Shape.BOOLEAN, int: Shape.INTEGER, float: Shape.NUMBER, str: Shape.TEXT, Secret: Shape.SECRET,
}


def _shape(hint: Any) -> tuple[Shape | None, type[Any]]:
    if hint in _SHAPES:
        return _SHAPES[hint], object
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return (Shape.TEXTS, object) if inner is str else (Shape.SECTIONS, inner)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return Shape.SECTION, hint
    return None, object
