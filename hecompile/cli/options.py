"""Options and kinds of values that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(path_type=Path)


def json_option(function: F) -> F:
    """`--json`: the result as one JSON document."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print the result as one JSON document."
    )(function)


def bundle_argument(function: F) -> F:
    """The bundle that a command works on."""
    return click.argument("bundle", type=PATH)(function)


def trust_option(function: F) -> F:
    """`--trust KEY.pub`: further signers for this call."""
    return click.option(
        "--trust",
        "trust",
        type=PATH,
        multiple=True,
        metavar="KEY.pub",
        help="Also accept bundles signed with this key; may be repeated.",
    )(function)


def access_options(function: F) -> F:
    """`--as`, `--trust` and `--audit-log`: who acts, whom to believe, where it is taken down."""
    function = click.option(
        "--audit-log",
        type=PATH,
        metavar="FILE",
        help="Where decisions are logged; by default in the settings folder.",
    )(function)
    function = trust_option(function)
    return click.option(
        "--as",
        "user",
        metavar="USER",
        help="The user of the policy who acts; may be left out where only one may.",
    )(function)


def keys_option(what: str) -> Callable[[F], F]:
    """`--keys`: the folder of a party's key."""
    return click.option(
        "--keys",
        type=PATH,
        required=True,
        metavar=f"KEYS/{what}",
        help=f"The folder of the {what} key.",
    )


def output_option(
    help_text: str, required: bool = False, metavar: str = "FILE"
) -> Callable[[F], F]:
    """`-o`: where the result goes."""
    return click.option(
        "-o", "--output", type=PATH, required=required, metavar=metavar, help=help_text
    )


def load_option(function: F) -> F:
    """`--load my_passes.py`: files that register passes."""
    return click.option(
        "--load",
        "load",
        type=PATH,
        multiple=True,
        metavar="FILE.py",
        help="A Python file that registers passes; may be repeated.",
    )(function)


def observer_options(function: F) -> F:
    """`--print-after-all`, `--print-after`, `--dump-dir` and `--timing`."""
    function = click.option(
        "--timing", is_flag=True, help="Tell the seconds of every pass on stderr."
    )(function)
    function = click.option(
        "--dump-dir", type=PATH, metavar="DIR", help="Write the program after every pass there."
    )(function)
    function = click.option(
        "--print-after",
        metavar="PASS",
        multiple=True,
        help="Print the program after this pass on stderr.",
    )(function)
    return click.option(
        "--print-after-all", is_flag=True, help="Print the program after every pass on stderr."
    )(function)
