"""`hecompile passes`: list the passes, or describe one."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import json_option, load_option

if TYPE_CHECKING:
    from hecompile.passbase import Pass


@click.command("passes")
@click.argument("name", required=False)
@load_option
@json_option
def command(name: str | None, load: tuple[Path, ...], as_json: bool) -> None:
    """List the passes, plug-ins included, or print the contract and options of the pass NAME."""
    from hecompile.passbase import find_pass, load_file, registered_passes

    for path in load:
        load_file(path)
    if name is not None:
        cls = find_pass(name)
        console.result(describe(cls), _page(cls), as_json)
        return
    known = registered_passes().values()
    rows = [(cls.name, _summary(cls)) for cls in known]
    console.result(
        {"passes": [describe(cls) for cls in known]}, console.table(rows, indent=""), as_json
    )


def describe(cls: type[Pass]) -> dict[str, object]:
    """A pass as JSON values: name, summary, contract, options, and where it runs."""
    return {
        "name": cls.name,
        "summary": _summary(cls),
        "contract": inspect.cleandoc(cls.__doc__ or ""),
        "stage": cls.stage,
        "after": list(cls.after),
        "tolerance": cls.tolerance,
        "options": _options(cls),
        "module": cls.__module__,
    }


def _summary(cls: type[Pass]) -> str:
    paragraph = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).partition(". ")[0].rstrip(".")


def _options(cls: type[Pass]) -> list[dict[str, object]]:
    hints = typing.get_type_hints(cls)
    found: list[dict[str, object]] = []
    for option in dataclasses.fields(cls):
        required = option.default is dataclasses.MISSING
        found.append(
            {
                "name": option.name,
                "type": getattr(hints[option.name], "__name__", str(hints[option.name])),
                "required": required,
                "default": None if required else option.default,
            }
        )
    return found


def _page(cls: type[Pass]) -> str:
    meaning = "changes" if cls.tolerance is None else f"kept to {cls.tolerance:g}"
    rows: list[tuple[str, object]] = [("meaning", meaning), ("stage", cls.stage)]
    if cls.after:
        rows.append(("after", ", ".join(cls.after)))
    for option in _options(cls):
        default = "required" if option["required"] else f"default {option['default']}"
        rows.append((f"{option['name']}=", f"{option['type']}, {default}"))
    contract = inspect.cleandoc(cls.__doc__ or "")
    return f"{cls.name}\n\n{contract}\n\n{console.table(rows)}"
