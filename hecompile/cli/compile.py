"""`hecompile compile`: from an ONNX model to a signed bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hecompile.cli import console
from hecompile.cli.options import (
    PATH,
    cost_model_option,
    json_option,
    load_option,
    observer_options,
    output_option,
)
from hecompile.cli.terms import TermsOptions, terms_options
from hecompile.errors import UsageError

if TYPE_CHECKING:
    from hecompile.access.policy import Policy
    from hecompile.access.signing import SigningKey
    from hecompile.cli.watching import WatchOptions
    from hecompile.compiler import Compiled
    from hecompile.config import CompileOptions
    from hecompile.numeric.cost import CostModel
    from hecompile.passbase import Pass
    from hecompile.preprocess import Step


ROUGH_SHARE = 0.1
"""Share of an output's range beyond which a predicted error is warned of."""


@click.command("compile")
@click.argument("model", type=PATH)
@click.option(
    "--calibration", type=PATH, required=True, metavar="CAL.npz", help="Samples, batch first."
)
@click.option("--policy", type=PATH, metavar="POLICY.toml", help="What each role may do.")
@click.option("--users", type=PATH, metavar="USERS.toml", help="Who has which role.")
@click.option("--precision", type=float, help="Largest error allowed on the raw outputs.")
@click.option(
    "--refresh",
    type=click.Choice(["auto", "never", "client"]),
    default="auto",
    show_default=True,
    help="Rounds with the key holder, who encrypts anew. auto: where a plan needs them or is "
    "cheaper with them. never: programs too deep for every ring are refused. client: as auto, "
    "with rounds and the key holder's work at no price.",
)
@click.option(
    "--optimize",
    type=click.Choice(["latency", "throughput", "client", "keys"]),
    default="latency",
    show_default=True,
    help="What plans are compared by: time to the answer, evaluator's work, client's work and "
    "bytes, or bytes of keys.",
)
@click.option(
    "--rtt",
    type=float,
    metavar="SECONDS",
    help="Time of one round trip to the key holder; by default 0.05.",
)
@click.option(
    "--bandwidth",
    metavar="RATE",
    help="Of the key holder's and client's line, in kbit, Mbit or Gbit a second; by default "
    "100Mbit.",
)
@click.option(
    "--max-refreshes",
    type=int,
    metavar="N",
    help="Most rounds with the key holder in one evaluation.",
)
@click.option(
    "--mask-bits",
    type=int,
    metavar="BITS",
    help="Refreshed values are masked so that all that the key holder sees of an evaluation "
    "depends on them by a statistical distance of 2^-BITS at most; by default 40. Below 20 it "
    "needs a policy under which whoever holds the secret key or refreshes owns the model.",
)
@click.option("--max-key-memory", metavar="SIZE", help="Most memory of evaluation keys: 500MB.")
@click.option(
    "--max-client-bytes", metavar="SIZE", help="Most that the client sends and gets, a run: 2MB."
)
@click.option("--encrypt-model", is_flag=True, help="Encrypt the weights too.")
@cost_model_option
@click.option("--batch", type=int, default=1, show_default=True, help="Samples in one evaluation.")
@click.option("--backend", default="tenseal", show_default=True, help="What executes the program.")
@output_option("A folder to make, or a .hec file.", True, "BUNDLE")
@click.option("--degree", type=int, help="Degree of every fitted polynomial.")
@click.option("--method", help="How polynomials are fitted: weighted, chebyshev, minimax.")
@click.option("--margin", type=float, help="Widening of observed ranges, as a fraction.")
@click.option("--max-degree", type=int, help="Largest degree that may be chosen.")
@click.option("--ring", type=int, help="Polynomial modulus degree.")
@click.option(
    "--input-shape",
    "input_shapes",
    multiple=True,
    metavar="NAME:1x4x32",
    help="Shape of an input whose axes the model leaves open; may be repeated.",
)
@click.option(
    "--preprocess",
    multiple=True,
    metavar="[NAME=]FILE.json",
    help="Steps that the client takes on an input before encryption; may be repeated.",
)
@click.option("--pass", "extra", multiple=True, metavar="TEXT", help="A further pass; repeatable.")
@load_option
@observer_options
@terms_options
@click.option("--sign-key", type=PATH, metavar="KEY.pem", help="Ed25519 key; by default your own.")
@click.option("-v", "--verbose", is_flag=True, help="Also tell each polynomial as it is chosen.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@json_option
def command(
    model: Path,
    calibration: Path,
    policy: Path | None,
    users: Path | None,
    precision: float | None,
    backend: str,
    output: Path,
    input_shapes: tuple[str, ...],
    preprocess: tuple[str, ...],
    extra: tuple[str, ...],
    load: tuple[Path, ...],
    cost_model: Path | None,
    watch: WatchOptions,
    sign_key: Path | None,
    terms: TermsOptions,
    verbose: bool,
    overwrite: bool,
    as_json: bool,
    **tuning: object,
) -> None:
    """Compile the trained model MODEL (ONNX) into an encrypted program with an access manifest.

    Arrays in CAL.npz are named as the model's inputs, samples first. Without --policy a built-in
    policy with a single owner applies and is printed. Without --users a bundle of a policy of your
    own lets nobody do anything until hecompile users sign adds a users document.
    """
    from hecompile.bundle.store import check_destination

    # Whatever can be refused is refused before the long work.
    check_destination(output, overwrite)
    if precision is not None and not 0 < precision < float("inf"):
        raise UsageError(f"--precision is a number above 0, not {precision}")
    options = _options(input_shapes, tuning)
    from hecompile.compiler import compile as compile_model
    from hecompile.npz import load_npz
    from hecompile.numeric.cost import using_cost_model

    costs = used_cost_model(cost_model)
    rules = _policy(policy)
    signing_key = _signing_key(sign_key)
    agreed = terms.read(sign_key)
    passes = _passes(extra, load)
    watching = watch.start()
    arrays = load_npz(calibration)
    steps = _preprocessing(preprocess, model)
    progress = console.Progress()
    with using_cost_model(costs):
        compiled = compile_model(
            model,
            calibration=arrays,
            policy=rules,
            users=users,
            backend=backend,
            precision=precision,
            passes=passes,
            options=options,
            preprocessing=steps,
            observers=watching.observers,
            note=console.say if verbose else _without_details,
            progress=progress,
        )
    watching.tell()
    compiled.save(
        output, signing_key=signing_key, overwrite=overwrite, terms=agreed, tell=console.say
    )
    if agreed.signers.threshold > 1:
        console.warn(
            f"the bundle bears 1 of {agreed.signers.threshold} signatures and cannot be opened "
            "before the others signed it: hecompile manifest sign"
        )
    tell(compiled, output, built_in=policy is None, as_json=as_json)


def _rough_outputs(compiled: Compiled) -> list[str]:
    """Warnings of outputs that their predicted error makes of little use."""
    found = []
    error = compiled.predicted_error
    for entry in compiled.spec.outputs:
        if entry.ranges is None:
            continue
        width = entry.ranges.whole.upper - entry.ranges.whole.lower
        steps = [p.step for p in compiled.releases if p.output == entry.label and p.step]
        if error > ROUGH_SHARE * width or any(error > step for step in steps):
            found.append(
                f"the predicted error of {error:.2g} is large beside output '{entry.label}', whose "
                f"values span {width:.2g}"
                + "".join(f" and are rounded to {step:g}" for step in steps)
                + ": ask for a --precision"
            )
    return found


def tell(compiled: Compiled, output: Path, built_in: bool, as_json: bool) -> None:
    """Print what was compiled; the built-in policy, which nobody wrote, goes to stderr."""
    from hecompile.access.policy_warnings import policy_warnings, work_warnings
    from hecompile.cli.describe import policy_document, policy_text, report_text

    report = compiled.report.to_json()
    warnings = [
        f"{fit.node}: {fit.outside:.2%} of the values on held-back calibration samples are "
        "outside the fitted range; give more calibration samples or a larger --margin"
        for fit in compiled.report.fits
        if fit.outside > 0
    ]
    warnings += _rough_outputs(compiled)
    warnings += policy_warnings(compiled.policy, compiled.users, compiled.facts)
    warnings += work_warnings(compiled.policy, compiled.users, compiled.facts)
    for warning in warnings:
        console.warn(warning)
    if built_in:
        console.say("no --policy was given; the built-in single-owner policy applies:")
        console.say(policy_text(compiled.policy, compiled.users).rstrip("\n"))
    document = {
        "bundle": str(output),
        **report,
        **policy_document(compiled.policy, compiled.users),
        "warnings": warnings,
    }
    console.result(document, f"wrote {output}\n{report_text(report)}", as_json)


def _without_details(note: str) -> None:
    """Tell a note, unless it describes one node, as the table of activations does."""
    if not note.startswith("approximate: '"):
        console.say(note)


def _options(shapes: Sequence[str], values: Mapping[str, object]) -> CompileOptions:
    from hecompile.config import CompileOptions, parse_bandwidth, parse_size

    given = {name: value for name, value in values.items() if value is not None}
    for name in ("max_key_memory", "max_client_bytes"):
        if name in given:
            given[name] = parse_size(f"--{name.replace('_', '-')}", str(given[name]))
    if "bandwidth" in given:
        given["bandwidth"] = parse_bandwidth("--bandwidth", str(given["bandwidth"]))
    return dataclasses.replace(CompileOptions(), **given, input_shapes=parse_shapes(shapes))  # type: ignore[arg-type]


def used_cost_model(path: Path | None) -> CostModel:
    """The cost model of a file, of the settings folder, or the shipped one; a file is told."""
    from hecompile.costs import find_cost_model

    model, source = find_cost_model(path)
    if source is not None:
        console.say(f"costs are those of {source}: {model.name}")
    return model


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Read shapes as in `x:1x4x32`.

    Raises:
        UsageError: Naming the text at fault.
    """
    found: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, colon, extents = text.rpartition(":")
        parts = extents.split("x")
        good = all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts)
        if not (name and colon and good):
            raise UsageError(f"--input-shape is NAME:1x4x32, not '{text}'")
        if name in found:
            raise UsageError(f"--input-shape gives '{name}' twice; keep one")
        found[name] = tuple(map(int, parts))
    return found


def _policy(path: Path | None) -> Policy | None:
    from hecompile.access.policy_io import read_policy

    return None if path is None else read_policy(path)


def _signing_key(path: Path | None) -> SigningKey | None:
    """The key, read now so that a bad one is told now; None has one made when the bundle is."""
    from hecompile.access.signing import SigningKey, default_key_path

    if path is None and not default_key_path().exists():
        return None
    return SigningKey.load(path if path is not None else default_key_path())


def _passes(texts: Sequence[str], files: Sequence[Path]) -> list[Pass]:
    from hecompile.passbase import load_file
    from hecompile.pipeline import parse_pipeline

    for path in files:
        load_file(path)
    return [one for text in texts for one in parse_pipeline(text).passes]


def _preprocessing(texts: Sequence[str], model: Path) -> Mapping[str, Sequence[Step]] | None:
    """Steps by input name; a file without a name is for the model's only input."""
    from hecompile.preprocess import load_steps

    found: dict[str, Sequence[Step]] = {}
    for text in texts:
        name, equals, file = text.partition("=")
        if not equals or Path(text).is_file():
            name, file = _only_input(model), text
        if name in found:
            raise UsageError(f"--preprocess gives steps for '{name}' twice; keep one")
        found[name] = load_steps(file)
    return found or None


def _only_input(model: Path) -> str:
    from hecompile.frontend import model_inputs

    names = [entry.name for entry in model_inputs(model)]
    if len(names) != 1:
        raise UsageError(
            f"--preprocess needs the input's name, one of {', '.join(names)}: NAME=FILE"
        )
    return names[0]
