"""One run of a program, which stops where it needs the key holder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.runtime.checkpoint import Checkpoint
from hecompile.runtime.envelope import open_envelope, output_fields, seal_envelope
from hecompile.runtime.header import Header, Kind
from hecompile.runtime.spec import CipherSpec, RefreshSpec
from hecompile.runtime.wire import ciphertext_bytes

if TYPE_CHECKING:
    from hecompile.runtime.evaluator import Evaluator

_TELL_SECONDS: Final = 0.1


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
            response,
            header,
            waiting.response,
            evaluator.spec.parameters,
            "the refresh response",
            admission=evaluator.inspector,
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
        spec = self._evaluator.spec
        header = self._header(Kind.OUTPUT)
        fields = output_fields(spec)
        return self._seal(header, spec.output_ciphertexts, self._outputs, fields)

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
        return self._seal(header, waiting.request, blobs)

    def _refreshes(self) -> list[he.Refresh]:
        """The refreshes of the group at the present position."""
        found: list[he.Refresh] = []
        for op in self._evaluator.program.operations[self._position :]:
            if not isinstance(op, he.Refresh) or (found and op.group != found[0].group):
                break
            found.append(op)
        return found

    def _seal(
        self,
        header: Header,
        contract: Sequence[CipherSpec],
        blobs: Sequence[bytes],
        fields: Sequence[str] | None = None,
    ) -> bytes:
        by, lifetime = self._evaluator.identity, self._evaluator.lifetime
        return seal_envelope(header, contract, blobs, by, lifetime, fields=fields)

    def _header(self, kind: Kind, group: int = 0) -> Header:
        at = self._checkpoint
        manifest = self._evaluator.spec.manifest
        found = Header(kind, at.program, at.key_id, at.session, at.samples, group, manifest)
        return replace(found, purpose=self._evaluator.purpose)
