"""The evaluator's front: looks at what comes, signs what goes, and computes nothing.

It has neither the evaluation keys nor a ciphertext library's context; the process that has them
has neither the users document nor a signing key, and gets only what was looked at here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime

from hecompile.access.identity import Identity
from hecompile.errors import IntegrityError
from hecompile.runtime.envelope import (
    LIFETIME,
    Admission,
    check_envelope,
    input_fields,
    output_fields,
    read_header,
    seal_envelope,
)
from hecompile.runtime.header import Batch, Header, Kind
from hecompile.runtime.inspection import OpenInspector, admission_of
from hecompile.runtime.spec import ClientSpec

_INPUT, _RESPONSE = "the encrypted input", "the refresh response"
_MADE = "what the evaluator process made"


class Gateway:
    """Stands between the other parties and the process that evaluates."""

    def __init__(
        self,
        spec: ClientSpec,
        key_id: str,
        identity: Identity | None = None,
        inspector: Admission | None = None,
        lifetime: int = LIFETIME,
        purpose: str = "",
    ) -> None:
        """Prepare to look and sign.

        Args:
            spec: Of the program.
            key_id: Identifier of the key whose ciphertexts are taken.
            identity: Who signs outputs and requests; None leaves them unsigned.
            inspector: Knows the senders; a program of a bundle must have one.
            lifetime: Seconds for which outputs and requests hold.
            purpose: What they are sent for, where permissions name purposes.

        Raises:
            UsageError: A program of a bundle has no inspector.
        """
        self._spec = spec
        self._key_id = key_id
        self._identity = identity
        self._inspector = admission_of(inspector, spec.manifest)
        self._lifetime = lifetime
        self._purpose = purpose

    def check_input(self, data: bytes) -> Header:
        """Look at an input envelope; it is not taken yet.

        Raises:
            AccessDeniedError: Its sender may not submit the inputs.
            IntegrityError: It is refused.
        """
        spec = self._spec
        found = check_envelope(
            data,
            self._expected(Kind.INPUT, spec.batch),
            spec.input_ciphertexts,
            spec.parameters,
            _INPUT,
            admission=self._inspector,
            fields=input_fields(spec),
        )
        return found.header

    def check_inputs(self, parts: Iterable[bytes]) -> Iterator[tuple[bytes, Header]]:
        """Look at input envelopes that are to be taken together, one after the other.

        Yields:
            Each with its header, before the next is read.

        Raises:
            AccessDeniedError: A sender may not submit the inputs.
            IntegrityError: One is refused, or is there twice.
        """
        batch = Batch(_INPUT)
        for data in parts:
            yield data, batch.add(self.check_input(data))

    def check_responses(
        self, answers: Iterable[bytes], sessions: Sequence[str]
    ) -> Iterator[tuple[bytes, Header]]:
        """Look at the answers to requests of as many sessions, as `check_inputs` does at inputs.

        Raises:
            AccessDeniedError: A sender may not refresh.
            IntegrityError: One is refused, or is there twice.
        """
        batch = Batch(_RESPONSE)
        for data, session in zip(answers, sessions, strict=True):
            yield data, batch.add(self.check_response(data, session))

    def check_response(self, data: bytes, session: str) -> Header:
        """Look at the answer to a refresh request; it is not taken yet.

        Args:
            data: The envelope.
            session: The evaluation that waits for it.

        Raises:
            AccessDeniedError: Its sender may not refresh.
            IntegrityError: It is refused.
        """
        spec = self._spec
        stated = read_header(data, _RESPONSE)
        expected = self._expected(Kind.REFRESH_RESPONSE, spec.batch, session, stated.round)
        contract = spec.refresh(stated.round).response if stated.kind is expected.kind else ()
        found = check_envelope(
            data, expected, contract, spec.parameters, _RESPONSE, admission=self._inspector
        )
        return found.header

    def take(self, *headers: Header) -> None:
        """Take envelopes of one kind that were looked at, for good: all of them or none.

        Raises:
            IntegrityError: One was taken before.
        """
        inputs = any(header.kind is Kind.INPUT for header in headers)
        self._inspector.consume(headers, _INPUT if inputs else _RESPONSE)

    def sign(self, data: bytes, of: Header, now: datetime | None = None) -> bytes:
        """Sign a request or an output of the evaluating process.

        Args:
            data: The unsigned envelope.
            of: Header of the input or response that it follows from.
            now: When; None for the clock's time.

        Raises:
            IntegrityError: It is nothing that the program makes.
        """
        spec = self._spec
        stated = read_header(data, _MADE)
        if stated.kind is Kind.OUTPUT:
            contract, fields = spec.output_ciphertexts, output_fields(spec)
        elif stated.kind is Kind.REFRESH_REQUEST:
            contract, fields = spec.refresh(stated.round).request, None
        else:
            raise IntegrityError(f"{_MADE} is of kind {stated.kind}; nothing was sent.")
        expected = self._expected(stated.kind, of.samples, of.session, stated.round)
        opened = check_envelope(
            data,
            expected,
            contract,
            spec.parameters,
            _MADE,
            admission=OpenInspector(),
            fields=fields,
        )
        return seal_envelope(
            replace(opened.header, purpose=self._purpose),
            contract,
            opened.ciphertexts,
            self._identity,
            self._lifetime,
            fields=fields,
            now=now,
        )

    def _expected(self, kind: Kind, samples: int, session: str = "", round_: int = 0) -> Header:
        spec = self._spec
        return Header(kind, spec.program, self._key_id, session, samples, round_, spec.manifest)
