"""Options and kinds of values that several commands share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hecompile.errors import AccessDeniedError, InputError

if TYPE_CHECKING:
    from hecompile.cli.door import Door
    from hecompile.runtime.guard import PolicyGuard
    from hecompile.runtime.inspection import Inspector

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


@dataclass(frozen=True)
class Access:
    """Who acts, whom to believe, and where it is taken down.

    Attributes:
        user: The user named with --as, or None.
        trust: Further files of public keys.
        audit_log: Where decisions are logged; None for the user's own log.
        purpose: What it is done for, or empty.
        users: A newer users document than the bundle's, or None.
    """

    user: str | None
    trust: tuple[Path, ...]
    audit_log: Path | None
    purpose: str = ""
    users: Path | None = None

    def door(self, bundle: Path) -> Door:
        """Read and check the manifest and the users of a bundle, and nothing else of it."""
        from hecompile.cli.door import open_door

        return open_door(bundle, self.trust, self.audit_log, self.users)

    def guard(self, door: Door) -> PolicyGuard:
        """What asks the policy for the user."""
        return door.guard(self.user, self.purpose)

    def inspector(self, guard: PolicyGuard) -> Inspector:
        """What looks at the envelopes that others sent.

        Raises:
            AccessDeniedError: The bundle has no users document.
        """
        from hecompile.access.state import State
        from hecompile.runtime.inspection import Inspector

        if guard.users is None:
            raise AccessDeniedError(
                "Access Denied: the bundle has no users document, so nobody may send anything"
            )
        return Inspector(guard.manifest, guard.users, State(), guard.gate)


def access_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--as`, `--purpose`, `--users`, `--trust`, `--audit-log`: one `Access` named `access`."""

    @functools.wraps(function)
    def wrapped(
        *args: Any,
        user: str | None,
        trust: tuple[Path, ...],
        audit_log: Path | None,
        purpose: str,
        users: Path | None,
        **more: Any,
    ) -> Any:
        return function(*args, access=Access(user, trust, audit_log, purpose, users), **more)

    with_log = click.option(
        "--audit-log",
        type=PATH,
        metavar="FILE",
        help="Where decisions are logged; by default in the settings folder.",
    )(wrapped)
    with_users = click.option(
        "--users",
        type=PATH,
        metavar="USERS.json",
        help="A newer signed users document than the bundle's.",
    )(with_log)
    with_purpose = click.option(
        "--purpose",
        default="",
        metavar="TEXT",
        help="What for, where the policy's permissions name purposes.",
    )(with_users)
    return click.option(
        "--as",
        "user",
        metavar="USER",
        help="The user who acts, whose identity must be on this machine; may be left out where"
        " only one may.",
    )(trust_option(with_purpose))


def _size(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Bytes, from a number with or without K, M or G."""
    if value is None:
        return None
    number = value.upper().removesuffix("IB").removesuffix("B")
    shift = {"K": 10, "M": 20, "G": 30}.get(number[-1:], 0)
    digits = number[:-1] if shift else number
    if not digits.isascii() or not digits.isdigit() or not int(digits):
        raise click.BadParameter(f"'{value}' is no size; write a number of bytes, or 512M or 4G")
    return int(digits) << shift


def limit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--memory-limit` and `--cpu-limit`: one `Allowance` named `allowed`."""

    @functools.wraps(function)
    def wrapped(*args: Any, memory_limit: int | None, cpu_limit: int | None, **more: Any) -> Any:
        from hecompile.runtime.allowance import Allowance

        return function(*args, allowed=Allowance(memory_limit, cpu_limit), **more)

    with_cpu = click.option(
        "--cpu-limit",
        type=click.IntRange(min=1),
        metavar="SECONDS",
        help="Most processor seconds of each evaluating process; by default one hour for loading"
        " and one for each evaluation.",
    )(wrapped)
    return click.option(
        "--memory-limit",
        callback=_size,
        metavar="SIZE",
        help="Most address space of each evaluating process, such as 4G; by default 1 GiB and"
        " twice what is predicted.",
    )(with_cpu)


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


def workers_option(function: F) -> F:
    """`--workers N`: how many processes share the work."""
    return click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=processors,
        metavar="N",
        help="Most processes that compute at a time; by default one for each processor.",
    )(function)


def weights_cache_option(function: F) -> F:
    """`--weights-cache DIR`: where encoded weights are kept."""
    return click.option(
        "--weights-cache",
        type=PATH,
        metavar="DIR",
        help="Keep encoded weights there, in clear and for you alone, so that later calls load"
        " them instead of encoding them.",
    )(function)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def only_option(function: F) -> F:
    """`--only NAME`: which outputs to decrypt."""
    return click.option(
        "--only",
        multiple=True,
        metavar="NAME",
        help="Decrypt this output; may be repeated. By default all that USER may decrypt.",
    )(function)


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


def cost_model_option(function: F) -> F:
    """`--cost-model FILE`: what predicted times are computed from."""
    return click.option(
        "--cost-model",
        type=PATH,
        metavar="COST.json",
        help="What hecompile calibrate wrote; by default what it wrote in the settings folder.",
    )(function)


def observer_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--print-after-all`, `--print-after`, `--dump-dir`, `--timing`, as one `WatchOptions`."""

    @functools.wraps(function)
    def wrapped(
        *args: Any,
        print_after_all: bool,
        print_after: tuple[str, ...],
        dump_dir: Path | None,
        timing: bool,
        **more: Any,
    ) -> Any:
        from hecompile.cli.watching import WatchOptions

        asked = WatchOptions(print_after_all, print_after, dump_dir, timing)
        return function(*args, watch=asked, **more)

    found = click.option(
        "--timing", is_flag=True, help="Tell the seconds of every pass on stderr."
    )(wrapped)
    found = click.option(
        "--dump-dir", type=PATH, metavar="DIR", help="Write the program after every pass there."
    )(found)
    found = click.option(
        "--print-after",
        metavar="PASS",
        multiple=True,
        help="Print the program after this pass on stderr.",
    )(found)
    return click.option(
        "--print-after-all", is_flag=True, help="Print the program after every pass on stderr."
    )(found)


def check_output(path: Path | None) -> None:
    """Refuse a file that could not be written, before long work is done for it.

    Raises:
        InputError: Its folder does not exist, or it is a folder itself.
    """
    if path is None:
        return
    if not path.parent.is_dir():
        raise InputError(f"folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
