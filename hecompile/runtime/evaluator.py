"""The evaluator: runs a program on ciphertexts with public evaluation keys only."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hecompile.errors import IntegrityError, ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program
from hecompile.runtime.admission import check_program
from hecompile.runtime.checkpoint import Checkpoint, checkpoint_from_bytes
from hecompile.runtime.envelope import Header, Kind, open_envelope, seal_envelope
from hecompile.runtime.guard import Guard, OpenGuard
from hecompile.runtime.keycard import check_key
from hecompile.runtime.keys import EvaluationKeys, Progress, no_progress
from hecompile.runtime.machine import Machine, Timing
from hecompile.runtime.masks import MaskSource
from hecompile.runtime.model_weights import open_model
from hecompile.runtime.pair import Pair, start_pair
from hecompile.runtime.rounds import MaskedRounds
from hecompile.runtime.serial import ciphertext_from_bytes
from hecompile.runtime.spec import UNBOUND, CipherSpec, RefreshSpec, spec_from_program
from hecompile.runtime.weight_cache import WeightCache
from hecompile.runtime.weights import WeightCounts, Weights
from hecompile.runtime.wire import ciphertext_bytes

_TELL_SECONDS: Final = 0.1


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

        Raises:
            ProgramError: The program cannot run on its parameters.
            InputError: The program needs a model and there is none, or the other way round.
            IntegrityError: The keys or the model are another program's or bundle's, or the keys
                lack a rotation, or the weights' cache is damaged.
        """
        parameters = check_program(program)
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
        ciphertexts = open_model(model, program, self.key_id, manifest, keys.context, progress)
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
            AccessDeniedError: The policy does not grant it.
            IntegrityError: The envelope is for another program or key, or was changed.
        """
        self._guard.evaluate()
        spec = self.spec
        expected = Header(
            Kind.INPUT, spec.program, self.key_id, "", spec.batch, manifest=spec.manifest
        )
        contract = self.spec.input_ciphertexts
        envelope = open_envelope(
            data, expected, contract, self.spec.parameters, "the encrypted input"
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


class Evaluation:
    """One run of a program: call `advance` and `accept` in turn until there is no request."""

    def __init__(
        self,
        evaluator: Evaluator,
        checkpoint: Checkpoint,
        live: dict[str, Any],
        outputs: list[bytes],
    ) -> None:
        """Continue at a checkpoint; use `Evaluator.start` or `Evaluator.resume`."""
        self._evaluator = evaluator
        self._checkpoint = checkpoint
        self._position = checkpoint.position
        self._live = live
        self._outputs = outputs
        self._waiting: RefreshSpec | None = None
        if self._position:
            op = evaluator.program.operations[self._position]
            if isinstance(op, he.Refresh):
                self._waiting = evaluator.spec.refresh(op.group)

    @property
    def done(self) -> bool:
        """Whether the whole program has run."""
        return self._position == len(self._evaluator.program.operations)

    def advance(self) -> bytes | None:
        """Run up to the next refresh or to the end.

        Returns:
            The refresh request, with masked ciphertexts; None at the end.

        Raises:
            ProgramError: An operation cannot run, or a response is still missing.
        """
        if self._waiting is not None:
            raise ProgramError("the evaluation waits for the response to its refresh request.")
        operations = self._evaluator.program.operations
        total = len(operations)
        told = 0.0
        while self._position < total:
            op = operations[self._position]
            if isinstance(op, he.Refresh):
                return self._request(op.group)
            if (end := self._shared(self._position)) is not None:
                self._position = end
            else:
                self._run(op)
                self._position += 1
            # Telling takes a message between processes, so it is not done for every operation.
            if (now := time.monotonic()) - told >= _TELL_SECONDS or self._position == total:
                self._evaluator.progress("evaluating", self._position, total)
                told = now
        return None

    def accept(self, response: bytes) -> None:
        """Take the fresh ciphertexts in and remove their masks.

        Raises:
            IntegrityError: The response is another one's, or was changed.
            ProgramError: Nothing was asked.
        """
        waiting = self._waiting
        if waiting is None:
            raise ProgramError("the evaluation has asked for no refresh.")
        evaluator = self._evaluator
        header = self._header(Kind.REFRESH_RESPONSE, waiting.group)
        envelope = open_envelope(
            response, header, waiting.response, evaluator.spec.parameters, "the refresh response"
        )
        unmasks = evaluator.rounds.unmasks(self._checkpoint.masks, waiting.group)
        for cipher, data, mask in zip(waiting.response, envelope.ciphertexts, unmasks, strict=True):
            value = evaluator.load(data, cipher)
            evaluator.machine.remove_mask(value, mask)
            self._live[cipher.name] = value
        self._position += len(waiting.response)
        self._waiting = None
        self._checkpoint = self._checkpoint.with_new_masks()

    def output(self) -> bytes:
        """The output envelope.

        Raises:
            ProgramError: The program has not run to its end.
        """
        if not self.done:
            raise ProgramError("the evaluation is not finished; it has no output yet.")
        contract = self._evaluator.spec.output_ciphertexts
        return seal_envelope(self._header(Kind.OUTPUT), contract, self._outputs)

    def checkpoint(self) -> bytes:
        """Write the state of an evaluation that waits for a refresh.

        The bytes hold the seed of the request's masks: keep them from the key holder (file mode
        0600).

        Raises:
            ProgramError: The evaluation does not wait.
        """
        if self._waiting is None:
            raise ProgramError("only an evaluation that waits for a refresh can be set aside.")
        return self._checkpoint.at(self._position).to_bytes(
            self._evaluator.context, self._live, self._outputs
        )

    def _shared(self, position: int) -> int | None:
        """Run the segment that begins here together with the helper; return its end."""
        pair = self._evaluator.pair
        segment = pair.segment(position) if pair is not None else None
        if pair is None or segment is None:
            return None
        pair.run(segment, self._live)
        for self._position in range(segment.start, segment.end):
            op = self._evaluator.program.operations[self._position]
            if isinstance(op, he.Output):
                self._run(op)
        return segment.end

    def _run(self, op: Any) -> None:
        match op:
            case he.Input() | he.Encode():
                return
            case he.Output():
                context = self._evaluator.context
                self._outputs += [ciphertext_bytes(context, self._live[x.name]) for x in op.xs]
                self._evaluator.machine.release(op, self._position, self._live)
            case _:
                self._evaluator.machine.run(op, self._position, self._live)

    def _request(self, group: int) -> bytes:
        evaluator = self._evaluator
        self._waiting = waiting = evaluator.spec.refresh(group)
        blobs = []
        masks = evaluator.rounds.masks(self._checkpoint.masks, group)
        packed = evaluator.rounds.packed(self._live, group)
        for cipher, value, mask in zip(waiting.request, packed, masks, strict=True):
            masked = evaluator.machine.add_mask(value, mask)
            evaluator.rounds.hide(group, cipher, masked)
            blobs.append(ciphertext_bytes(evaluator.context, masked))
        for position, op in enumerate(self._refreshes(), start=self._position):
            evaluator.machine.release(op, position, self._live)
        header = self._header(Kind.REFRESH_REQUEST, group)
        return seal_envelope(header, waiting.request, blobs)

    def _refreshes(self) -> list[he.Refresh]:
        """The refreshes of the group at the present position."""
        found: list[he.Refresh] = []
        for op in self._evaluator.program.operations[self._position :]:
            if not isinstance(op, he.Refresh) or (found and op.group != found[0].group):
                break
            found.append(op)
        return found

    def _header(self, kind: Kind, group: int = 0) -> Header:
        at = self._checkpoint
        manifest = self._evaluator.spec.manifest
        return Header(kind, at.program, at.key_id, at.session, at.samples, group, manifest)
