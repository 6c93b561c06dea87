"""What a pass is, what it may ask of the compilation, and how passes become known by name."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, TypeVar

from hecompile.access.terms import FieldLabels
from hecompile.errors import PassError, PipelineError
from hecompile.ir.constants import Array
from hecompile.ir.program import Program

Note = Callable[[str], None]

APPROXIMATION_SHARE = 0.25
"""Share of the precision that polynomials may use on the calibration samples."""

UNSEEN_FACTOR = 2.0
"""How much larger errors may be on samples that calibration did not see."""

NOISE_SHARE = 0.4
"""Share of the precision that ciphertext noise may use."""

DEFAULT_NOISE = 5e-4
"""Noise allowed on outputs up to 1 where the user asks for no precision; larger ones have more."""


def _silent(message: str) -> None:
    """Drop a note."""


@dataclass(frozen=True)
class Context:
    """What the compilation knows besides the program.

    Attributes:
        calibration: representative samples by input name, each (S, *shape of one sample); None if
            the user gave none.
        precision: largest end-to-end error allowed on the outputs; None for no promise.
        note: called with one sentence a fact worth telling (fit errors, choices, warnings).
        labels: what the policy says the fields of the inputs are about.
    """

    calibration: Mapping[str, Array] | None = None
    precision: float | None = None
    note: Note = field(default=_silent, compare=False)
    labels: tuple[FieldLabels, ...] = ()

    def samples(self, asking: str) -> Mapping[str, Array]:
        """The calibration samples.

        Raises:
            PassError: there are none; `asking` is the pass that needs them.
        """
        if not self.calibration:
            raise PassError(f"{asking} needs calibration samples; give them with --calibration")
        return self.calibration


@dataclass(frozen=True)
class Pass(ABC):
    """A rewrite of a program into a program of the same meaning.

    Subclasses are frozen dataclasses. Their fields are their options (int, float, str, bool, or
    None as default), their docstring is their contract: one sentence of effect, Requires, Ensures.

    Attributes:
        name: kebab-case name, equal to the file's name.
        after: names of passes that must not come later in a pipeline than this one.
        tolerance: largest difference of meaning, on the interpreters' outputs, relative to
            max(1, |output|); 0 for exact up to the last bits (1e-9). None where the pass changes
            meaning by design (approximations), which its own tests then bound.
        stage: where `hecompile.compile(passes=[...])` runs it: "tensor", before calibration, or
            "slots", before the slots are calibrated.
    """

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    tolerance: ClassVar[float | None] = 1e-9
    stage: ClassVar[str] = "tensor"

    @abstractmethod
    def run(self, program: Program, context: Context) -> Program:
        """Return the rewritten program; an equal one if there was nothing to do.

        Raises:
            PassError: the program lacks what the contract requires.
        """

    def __str__(self) -> str:
        """Write the pass with the options that differ from their defaults."""
        changed = []
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if value != option.default:
                changed.append(f"{option.name}={format_option(value)}")
        return f"{self.name}{{{' '.join(changed)}}}" if changed else self.name


def format_option(value: object) -> str:
    """Write an option's value as pipelines read it.

    Raises:
        PipelineError: the text holds what separates options or passes.
    """
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if re.search(r"[\s{}]", text):
        raise PipelineError(f"an option's value holds no spaces and no braces: '{text}'")
    return text


_REGISTRY: dict[str, type[Pass]] = {}
_loaded_entry_points = False
_P = TypeVar("_P", bound=type[Pass])
ENTRY_POINT_GROUP = "hecompile.passes"


def register_pass(cls: _P) -> _P:
    """Class decorator: check a pass class and make it known by its name.

    Raises:
        PipelineError: the name is not kebab-case or taken, the class is no frozen dataclass, or it
            has no docstring of its own.
    """
    name = getattr(cls, "name", "")
    where = f"{cls.__module__}.{cls.__qualname__}"
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise PipelineError(f"{where}: a pass is named in kebab-case, not '{name}'")
    # The base is a dataclass too, so ask the class itself.
    if "__dataclass_fields__" not in cls.__dict__:
        raise PipelineError(f"{where}: a pass is a frozen dataclass; add @dataclass(frozen=True)")
    # A dataclass without a docstring gets its signature for one.
    contract = cls.__dict__.get("__doc__") or ""
    if not contract or contract.startswith(f"{cls.__name__}("):
        raise PipelineError(f"{where}: a pass states its contract in its docstring")
    known = _REGISTRY.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (
        cls.__module__,
        cls.__qualname__,
    ):
        raise PipelineError(f"{where}: the pass name '{name}' is taken by {known.__module__}")
    _REGISTRY[name] = cls
    return cls


def load_entry_points() -> None:
    """Import every module of the entry-point group `hecompile.passes`, once.

    Raises:
        PipelineError: a plug-in cannot be imported.
    """
    global _loaded_entry_points
    if _loaded_entry_points:
        return
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except Exception as error:
            raise PipelineError(
                f"the plug-in '{entry.name}' ({entry.value}) cannot be imported: "
                f"{type(error).__name__}: {error}; mend or uninstall it"
            ) from error
    _loaded_entry_points = True


def load_file(path: Path) -> None:
    """Import a Python file that registers passes (`--load`).

    Raises:
        PipelineError: the file is missing or cannot be imported.
    """
    # First, so that a name taken twice is told of the loaded file.
    load_entry_points()
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"hecompile_loaded_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise PipelineError(f"{path} is no Python file; --load takes a .py file with passes")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up while the file is executed.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise PipelineError(
            f"{path} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def registered_passes() -> Mapping[str, type[Pass]]:
    """Every known pass by name, plug-ins included, in alphabetical order."""
    load_entry_points()
    return dict(sorted(_REGISTRY.items()))


def find_pass(name: str) -> type[Pass]:
    """The pass of this name.

    Raises:
        PipelineError: unknown; the nearest names are told.
    """
    from difflib import get_close_matches

    known = registered_passes()
    if name not in known:
        near = get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "see 'hecompile passes'"
        raise PipelineError(f"there is no pass '{name}'; {hint}")
    return known[name]
