"""The evaluator: runs a program on ciphertexts with public evaluation keys only."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hecompile.access.identity import Identity
from hecompile.errors import IntegrityError
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.runtime.admission import check_program
from hecompile.runtime.checkpoint import Checkpoint, checkpoint_from_bytes
from hecompile.runtime.envelope import Admission, input_fields, open_envelope
from hecompile.runtime.evaluation import Evaluation as Evaluation
from hecompile.runtime.guard import Guard, OpenGuard
from hecompile.runtime.header import Header, Kind
from hecompile.runtime.inspection import admission_of, lifetime_of, purpose_of
from hecompile.runtime.keycard import check_key
from hecompile.runtime.keys import EvaluationKeys, Progress, no_progress
from hecompile.runtime.machine import Machine, Timing
from hecompile.runtime.masks import MaskSource
from hecompile.runtime.model_weights import open_model
from hecompile.runtime.pair import Pair, start_pair
from hecompile.runtime.rounds import MaskedRounds
from hecompile.runtime.serial import ciphertext_from_bytes
from hecompile.runtime.spec import UNBOUND, CipherSpec, spec_from_program
from hecompile.runtime.weight_cache import WeightCache
from hecompile.runtime.weights import WeightCounts, Weights


def galois_steps(program: Program) -> tuple[int, ...]:
    """Rotations that a program uses, each once, ascending: the Galois keys it needs."""
    return tuple(sorted({op.steps for op in program.select(he.Rotate)}))


class Evaluator:
    """A program with its keys and encoded weights, ready to be run on any number of inputs."""

    def __init__(
        self,
        program: Program,
        keys: EvaluationKeys,
        *,
        memory_limit: int | None = None,
        progress: Progress = no_progress,
        guard: Guard | None = None,
        manifest: str = UNBOUND,
        model: bytes | None = None,
        weights_cache: str | Path | None = None,
        identity: Identity | None = None,
        inspector: Admission | None = None,
    ) -> None:
        """Check the program and encode its weights.

        Sums of scalar products are matrix products, whose threads compete with other processes
        for nothing gained: set OPENBLAS_NUM_THREADS=1 before numpy is imported.

        Args:
            program: Finished program, with levels and scales.
            keys: Evaluation keys made for it.
            memory_limit: Most bytes that encoded weights may take; weights beyond are encoded at
                every use. None for half of the machine's memory.
            progress: Called while weights are encoded and operations run.
            guard: Asked before each evaluation.
            manifest: Digest of the manifest of the program's bundle.
            model: Envelope of the encrypted weights, for a program that has some.
            weights_cache: Folder where encoded weights are kept, in clear, from one load to the
                next; None keeps none.
            identity: Who signs outputs and requests; None leaves them unsigned.
            inspector: Looks at the envelopes that come; a program of a bundle must have one.

        Raises:
            ProgramError: The program cannot run on its parameters.
            UsageError: A program of a bundle has no inspector.
            InputError: The program needs a model and there is none, or the other way round.
            IntegrityError: The keys or the model are another program's or bundle's, or the keys
                lack a rotation, or the weights' cache is damaged.
        """
        parameters = check_program(program)
        self.inspector = admission_of(inspector, manifest)
        self.identity = identity
        self.lifetime = lifetime_of(guard)
        self.purpose = purpose_of(guard)
        self.program = program
        self.spec = replace(spec_from_program(program), manifest=manifest)
        self.key_id = keys.card.key_id
        check_key(keys.card, self.spec.program, manifest, parameters)
        if missing := set(galois_steps(program)) - set(keys.galois):
            raise IntegrityError(
                f"the evaluation keys lack rotations by {sorted(missing)[:5]}; make keys for this"
                " bundle with hecompile keygen."
            )
        self.context = keys.context
        self.rounds = MaskedRounds(program, self.spec.refreshes, keys.context, keys.relin)
        self.progress = progress
        self.pair: Pair | None = None
        self._guard = guard if guard is not None else OpenGuard()
        self._weights = self._loaded_weights(memory_limit, weights_cache)
        ciphertexts = open_model(
            model, program, self.key_id, manifest, keys.context, progress, admission=self.inspector
        )
        self.machine = Machine(program, keys, self._weights, ciphertexts)

    def _loaded_weights(self, memory_limit: int | None, folder: str | Path | None) -> Weights:
        if folder is None:
            return Weights(self.program, self.context, memory_limit, self.progress)
        with contextlib.closing(WeightCache(folder, self.spec.program, self.context)) as cache:
            return Weights(self.program, self.context, memory_limit, self.progress, cache)

    @property
    def weights(self) -> WeightCounts:
        """How the weights are held in memory."""
        return self._weights.counts

    @property
    def timings(self) -> Mapping[str, Timing]:
        """Time per operation name, over all evaluations so far."""
        return self.machine.timings

    def start_helper(self) -> bool:
        """Share every evaluation from now on with a forked process, if that is quicker."""
        if self.pair is None:
            self.pair = start_pair(self.program, self.context, self.machine)
        return self.pair is not None

    def rehearse(self) -> None:
        """Run operations of every kind once, so that the first evaluation is as quick as others.

        It takes about as long as an evaluation, half a second at most: worth it for whoever waits
        for inputs. Call it after `start_helper`.
        """
        if self.pair is not None:
            self.pair.rehearse()
        else:
            self.machine.rehearse()

    @property
    def helper_seconds(self) -> float:
        """CPU seconds of the helper so far."""
        return self.pair.helper_seconds if self.pair is not None else 0.0

    def close(self) -> None:
        """End the helper."""
        if self.pair is not None:
            self.pair.close()
            self.pair = None

    def start(self, data: bytes) -> Evaluation:
        """Begin the evaluation of an input envelope.

        Raises:
            AccessDeniedError: The policy does not grant it, or not to who sent the envelope.
            IntegrityError: The envelope is for another program or key, was changed, or is refused
                by the inspector.
        """
        self._guard.evaluate()
        spec = self.spec
        expected = Header(
            Kind.INPUT, spec.program, self.key_id, "", spec.batch, manifest=spec.manifest
        )
        contract = spec.input_ciphertexts
        envelope = open_envelope(
            data,
            expected,
            contract,
            spec.parameters,
            "the encrypted input",
            admission=self.inspector,
            fields=input_fields(spec),
        )
        live = {
            c.name: self.load(b, c) for c, b in zip(contract, envelope.ciphertexts, strict=True)
        }
        header = envelope.header
        checkpoint = Checkpoint(
            header.program, self.key_id, header.session, header.samples, 0, MaskSource()
        )
        return Evaluation(self, checkpoint, live, [])

    def resume(self, data: bytes) -> Evaluation:
        """Take up an evaluation that waits for a refresh, from what `checkpoint` gave.

        Raises:
            AccessDeniedError: The policy does not grant it.
            IntegrityError: The bytes are for another program or key, or were changed.
        """
        self._guard.evaluate()
        checkpoint, live, outputs = checkpoint_from_bytes(
            data, self.program, self.context, self.spec.program, self.key_id
        )
        return Evaluation(self, checkpoint, live, outputs)

    def evaluate(self, data: bytes) -> Generator[bytes, bytes, bytes]:
        """Evaluate an input envelope.

        Yields:
            Refresh requests; send the key holder's response to each back in.

        Returns:
            The output envelope.

        Raises:
            IntegrityError: An envelope is for another program or key, or was changed.
        """
        evaluation = self.start(data)
        while (request := evaluation.advance()) is not None:
            evaluation.accept((yield request))
        return evaluation.output()

    def load(self, data: bytes, cipher: CipherSpec) -> Any:
        """Read one ciphertext that must be as the program declares it."""
        return ciphertext_from_bytes(
            self.context, data, cipher.level, cipher.scale, what=f"ciphertext {cipher.name}"
        )
