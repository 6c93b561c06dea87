"""The custodian: holds the secret key, refreshes, decrypts for its holders, releases for others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal

from hecompile.access.decide import Decision
from hecompile.access.identity import Identity
from hecompile.access.ledger import ReleaseLedger
from hecompile.access.objects import Scope
from hecompile.access.state import State
from hecompile.errors import AccessDeniedError, HecompileError, InputError, IntegrityError
from hecompile.ir.constants import Array
from hecompile.runtime.decrypted import Decrypted as Decrypted
from hecompile.runtime.decrypted import OutputWarning as OutputWarning
from hecompile.runtime.decrypted import WarnOutput, check_range, join_groups
from hecompile.runtime.envelope import (
    Admission,
    Envelope,
    check_envelope,
    output_fields,
    read_header,
    seal_envelope,
)
from hecompile.runtime.guard import Guard, OpenGuard, PolicyGuard
from hecompile.runtime.header import Batch, Header, Kind
from hecompile.runtime.inspection import Clock, admission_of, lifetime_of, purpose_of, utc_now
from hecompile.runtime.keycard import check_key
from hecompile.runtime.keys import SecretKey
from hecompile.runtime.packing import unpack
from hecompile.runtime.postprocess import Processed, post_process
from hecompile.runtime.ranges import no_warning
from hecompile.runtime.release import Release, Released, ReleaseRules
from hecompile.runtime.release import join_samples as join_samples
from hecompile.runtime.release_log import ReleaseLog
from hecompile.runtime.rounds import KeyHolder
from hecompile.runtime.serial import ciphertext_from_bytes
from hecompile.runtime.spec import CipherSpec, ClientSpec, OutputSpec
from hecompile.runtime.wire import ciphertext_bytes

_OUTPUT: Final = "the encrypted output"
_REQUEST: Final = "the refresh request"


class Custodian:
    """Uses one secret key for one program.

    A refresh never gives a plaintext away: its answer is encrypted under the same key. What it
    decrypts is masked by the evaluator, so that the custodian does not learn the model's
    intermediate values; `rounds` says exactly what it sees. Results are sent in full: SEAL takes
    longer to compress a ciphertext with a seed than to make it.

    Envelopes of a bundle's program are signed, and taken once; its inspector sees to that. Those
    of a program in no bundle are not: whoever can alter what is sent here can have any ciphertext
    under the key refreshed or decrypted as an output.

    `decrypt` gives raw values, from which whoever has the ciphertexts too computes the secret key:
    it is for holders of that key. `release` is for all others.

    Attributes:
        rounds: Number of refresh rounds answered so far.
        rules: What the manifest says of releases and of the key's age.
    """

    def __init__(
        self,
        spec: ClientSpec,
        key: SecretKey,
        guard: Guard | None = None,
        identity: Identity | None = None,
        inspector: Admission | None = None,
        ledger: ReleaseLedger | None = None,
        *,
        rules: ReleaseRules | None = None,
        log: ReleaseLog | None = None,
        lifetime: int | None = None,
        purpose: str | None = None,
        now: Clock = utc_now,
    ) -> None:
        """Prepare to refresh, decrypt and release.

        Args:
            spec: What is known of the program.
            key: Its secret key.
            guard: Asked before each use; None lets everything but releases pass.
            identity: Who signs the answers; None leaves them unsigned.
            inspector: Decides which envelopes are taken; needed for a program of a bundle.
            ledger: Counts releases; None takes the one in the key's folder.
            rules: What stands in the manifest; None takes the guard's.
            log: Takes down what was released; None for nobody.
            lifetime: Seconds for which answers hold; None for what the guard's policy says.
            purpose: What answers are sent for; None for the guard's purpose.
            now: The clock, by which keys grow old.

        Raises:
            IntegrityError: The key is another program's or bundle's, or for other parameters.
            UsageError: The program is a bundle's, and there is no inspector.
        """
        check_key(key.card, spec.program, spec.manifest, spec.parameters)
        self.spec = spec
        self.key_id = key.card.key_id
        self.rounds = 0
        self.rules = rules if rules is not None else _rules_of(guard)
        self._guard = guard if guard is not None else OpenGuard()
        self._identity = identity
        self._lifetime = lifetime if lifetime is not None else lifetime_of(guard)
        self._purpose = purpose if purpose is not None else purpose_of(guard)
        self._inspector = admission_of(inspector, spec.manifest)
        self._ledger = ledger
        if ledger is None and key.folder is not None:
            self._ledger = ReleaseLedger(key.folder, self.key_id, State())
        self._log = log
        self._now = now
        self._card = key.card
        self._context = key.context
        self._decryptor: Any = seal.Decryptor(key.context.seal, key.key)
        self._holder = KeyHolder(key.context, key.key)

    def refresh(self, request: bytes) -> bytes:
        """Decrypt masked ciphertexts and encrypt them anew at their full level.

        Args:
            request: Envelope of kind refresh-request.

        Returns:
            Envelope of kind refresh-response.

        Raises:
            AccessDeniedError: The policy does not grant it, or the key is to be replaced.
            IntegrityError: The request is for another program, bundle or key, was taken before, or
                does not hold what a round of the program has.
        """
        return self.refresh_all([request])[0]

    def refresh_all(self, requests: Iterable[bytes]) -> list[bytes]:
        """Answer the requests of several evaluations: all are checked, all are taken, then work.

        Raises:
            AccessDeniedError: The policy does not grant it, or the key is to be replaced.
            IntegrityError: A request is refused as in `refresh`, or is there twice; then none is
                used up.
        """
        self._guard.refresh()
        self._check_age()
        batch = Batch(_REQUEST)
        opened = []
        for request in requests:
            opened.append(self._open_request(request))
            batch.add(opened[-1].header)
        self._inspector.consume([envelope.header for envelope in opened], _REQUEST)
        return [self._answer(envelope) for envelope in opened]

    def _open_request(self, request: bytes) -> Envelope:
        """Check a refresh request without using it up."""
        stated = read_header(request, _REQUEST)
        return check_envelope(
            request,
            self._expected(Kind.REFRESH_REQUEST, stated.round),
            self.spec.refresh(stated.round).request,
            self.spec.parameters,
            _REQUEST,
            admission=self._inspector,
        )

    def _answer(self, envelope: Envelope) -> bytes:
        round_ = self.spec.refresh(envelope.header.round)
        values = [
            self._load(*pair) for pair in zip(envelope.ciphertexts, round_.request, strict=True)
        ]
        results = self._holder.answer(round_, values)
        blobs = [ciphertext_bytes(self._context, value) for value in results]
        self.rounds += 1
        answer = replace(envelope.header, kind=Kind.REFRESH_RESPONSE, purpose=self._purpose)
        return seal_envelope(answer, round_.response, blobs, self._identity, self._lifetime)

    def decrypt(
        self,
        envelope: bytes,
        labels: Collection[str] | None = None,
        warn: WarnOutput = no_warning,
    ) -> Decrypted:
        """Decrypt the outputs of one evaluation to raw values and post-process them.

        Args:
            envelope: Envelope of kind output.
            labels: The outputs to decrypt, by name; None for all that the policy grants.
            warn: Told of values outside the calibrated ranges, once an output.

        Raises:
            AccessDeniedError: The policy does not grant it, or the key is to be replaced.
            InputError: The model has no such output.
            IntegrityError: The envelope is for another program, bundle or key, or was changed.
        """
        return self.decrypt_all([envelope], labels, warn)

    def decrypt_all(
        self,
        envelopes: Iterable[bytes],
        labels: Collection[str] | None = None,
        warn: WarnOutput = no_warning,
    ) -> Decrypted:
        """Decrypt and post-process the outputs of one run's evaluations, samples joined in order.

        The same envelope may be decrypted again, as long as it holds.

        Args:
            envelopes: Envelopes of kind output, one or more.
            labels: The outputs to decrypt, by name; None for all that the policy grants.
            warn: Told of values outside the calibrated ranges, once an output. Only outputs that
                are decrypted are looked at.

        Raises:
            AccessDeniedError: The policy does not grant it, or the key is to be replaced.
            InputError: The model has no such output.
            IntegrityError: The envelope is for another program, bundle or key, or was changed.
        """
        asked = self._asked(labels)
        granted = self._guard.decrypt(asked, some=labels is None)
        wanted = [entry for entry in self.spec.outputs if entry.label in granted]
        self._check_age()
        opened = [self._open(envelope) for envelope in envelopes]
        found = join_groups([self._decrypted(envelope, wanted) for envelope in opened])
        for entry in wanted:
            check_range(entry, found.raw[entry.label], warn)
        return found

    def release(
        self,
        envelope: bytes,
        labels: Collection[str] | None = None,
        scope: Scope = Scope.PERSON,
    ) -> Released:
        """Let out what the policy grants of one evaluation; see `release_all`."""
        return self.release_all([envelope], labels, scope)

    def release_all(
        self,
        envelopes: Iterable[bytes],
        labels: Collection[str] | None = None,
        scope: Scope = Scope.PERSON,
    ) -> Released:
        """Let out what the policy grants of one run's evaluations: flooded, rounded, counted.

        Args:
            envelopes: Envelopes of kind output, one or more, none of which was released before.
            labels: The outputs to release, by name; None for all that the policy grants.
            scope: Whether each answer is about a person (a sample) or about all of them.

        Raises:
            AccessDeniedError: The policy does not grant it, a budget is exhausted, the key is to
                be replaced, a cohort is too small, or values lie outside the calibrated ranges.
            InputError: The model has no such output.
            IntegrityError: An envelope is for another program, bundle or key, was changed, or was
                taken before; or the ledger of releases is damaged or out of date.
        """
        asked = self._asked(labels)
        return self.release_granted(
            envelopes, self._guard.declassify(asked, scope, some=labels is None)
        )

    def release_granted(
        self, envelopes: Iterable[bytes], decisions: Sequence[Decision]
    ) -> Released:
        """Let out what a guard has granted already; the rest is as in `release_all`."""
        try:
            self._check_age()
            return self._released(envelopes, decisions)
        except HecompileError as refused:
            if self._log is not None:
                self._log.denied(decisions, str(refused))
            raise

    def _released(self, envelopes: Iterable[bytes], decisions: Sequence[Decision]) -> Released:
        releases = [Release(self.spec, decision, self.rules) for decision in decisions]
        if self._ledger is None:
            raise InputError(
                "releases must be counted, and this key has no folder with a ledger; make keys with"
                " hecompile keygen."
            )
        opened, batch = [], Batch(_OUTPUT)
        for data in envelopes:
            opened.append(self._open(data))
            batch.add(opened[-1].header)
        headers = [envelope.header for envelope in opened]
        charges = [one.charge(sum(header.samples for header in headers)) for one in releases]
        # Who has nothing left must not use the evaluations up for those who have.
        self._ledger.foresee(charges)
        # From here on the evaluations count as released, whatever happens.
        self._inspector.consume(headers, _OUTPUT)
        wanted = [one.entry for one in releases]
        parts = [self._values(envelope, wanted) for envelope in opened]
        numbers = self._ledger.spend_all(charges, headers[0].session)
        outputs = {}
        for one, number in zip(releases, numbers, strict=True):
            values = np.concatenate([part[one.entry.label] for part in parts])
            outputs[one.entry.label] = one.publish(values, number)
        released = Released(outputs)
        if self._log is not None:
            self._log.released(decisions, released, [header.digest for header in headers])
        return released

    def _open(self, data: bytes) -> Envelope:
        """Check an envelope of outputs without using it up."""
        return check_envelope(
            data,
            self._expected(Kind.OUTPUT),
            self.spec.output_ciphertexts,
            self.spec.parameters,
            _OUTPUT,
            admission=self._inspector,
            fields=output_fields(self.spec),
        )

    def _decrypted(self, opened: Envelope, wanted: Sequence[OutputSpec]) -> Decrypted:
        """The outputs of one evaluation that were granted, raw."""
        raw: dict[str, Array] = {}
        outputs: dict[str, Processed] = {}
        for label, values in self._values(opened, wanted).items():
            post = next(entry.post for entry in wanted if entry.label == label)
            raw[label] = np.asarray(join_samples(values))
            outputs[label] = join_samples(post_process(post, values))
        return Decrypted(raw, outputs)

    def _values(self, opened: Envelope, wanted: Sequence[OutputSpec]) -> dict[str, Array]:
        """Raw values of one evaluation by output, each of shape (samples, *dims)."""
        contract = self.spec.output_ciphertexts
        names = {cipher.name for entry in wanted for cipher in entry.ciphertexts}
        slots = {
            cipher.name: self._slots(data, cipher)
            for cipher, data in zip(contract, opened.ciphertexts, strict=True)
            if cipher.name in names
        }
        return {entry.label: self._unpack(entry, slots, opened.header.samples) for entry in wanted}

    def _asked(self, labels: Collection[str] | None) -> list[str]:
        """The outputs asked for, in the model's order."""
        known = [entry.label for entry in self.spec.outputs]
        for label in labels or ():
            if label not in known:
                raise InputError(
                    f"the model has no output '{label}'; its outputs are {', '.join(known)}."
                )
        return [label for label in known if labels is None or label in labels]

    def _check_age(self) -> None:
        most, age = self.rules.rotate_days, self._card.age_days(self._now())
        if most is not None and age > most:
            raise AccessDeniedError(
                f"Access Denied: the key was made {age:.0f} days ago, and the policy has it"
                f" replaced after {most}; make new keys with hecompile keygen"
            )

    def _expected(self, kind: Kind, round_: int = 0) -> Header:
        spec = self.spec
        return Header(kind, spec.program, self.key_id, "", spec.batch, round_, spec.manifest)

    def _slots(self, data: bytes, cipher: CipherSpec) -> Array:
        """Decrypt to one period of slots: the mean of the repetitions, which share a value."""
        plain = seal.Plaintext()
        self._decryptor.decrypt(self._load(data, cipher), plain)
        repetitions = self._context.decode(plain).reshape(-1, cipher.period)
        return np.asarray(repetitions.mean(axis=0))

    def _load(self, data: bytes, cipher: CipherSpec) -> Any:
        return ciphertext_from_bytes(
            self._context, data, cipher.level, cipher.scale, what=f"ciphertext {cipher.name}"
        )

    def _unpack(self, entry: OutputSpec, slots: dict[str, Array], samples: int) -> Array:
        """Put an output's elements together, shape (samples, *dims)."""
        parts = []
        for cipher in entry.ciphertexts:
            if cipher.layout is None:
                raise IntegrityError(f"the layout of {cipher.name} is missing; compile again.")
            parts.append(unpack(slots[cipher.name], cipher.layout, self.spec.batch))
        return np.concatenate(parts, axis=-1)[:samples].reshape(samples, *entry.dims)


def _rules_of(guard: Guard | None) -> ReleaseRules:
    return ReleaseRules.of(guard.manifest) if isinstance(guard, PolicyGuard) else ReleaseRules()
