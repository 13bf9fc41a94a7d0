"""Signatures of versions and certificates: ed25519 (RFC 8032) over what a record says.

A signature covers the model's name, the version, and the artifact's SHA-256, size and labels: nobody can publish a
signed file again under another name or with its labels swapped. The SHA-256 covers all that the file holds. A second
signature also covers the path below the store, so a store may be moved as a whole; the first one stays for workers that
know no other. Aliases are not signed, so whoever may write the models topic can go back to any signed version.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from headrace.core.errors import UserError
from headrace.model.errors import ArtifactError
from headrace.security.keys import (
    SIGNING,
    key_id,
    public_key_bytes,
    public_key_text,
    read_private_key,
    write_private_key,
)
from headrace_schemas.records import Certificate, ModelVersion

CONTEXT = "headrace/version/1"
"""What a signature is for: one made for anything else never fits a version."""

PATH_CONTEXT = "headrace/version/2"
"""The same for the signature that also covers a version's path below its store."""

CERTIFICATE_CONTEXT = "headrace/certificate/1"
"""The same for the certificate of a threshold."""

JOB_CONTEXT = "headrace/job/1"
"""The same for the job of a training."""

Sign = Callable[[ModelVersion], ModelVersion]
"""From a version's record to the same record, signed."""


class SignatureError(ArtifactError):
    """A version is not signed by a key that is trusted here, so its file is not even read."""


class SigningKeyError(UserError):
    """There is no private key to sign with, or none that can be used."""


def signed_with_path(record: ModelVersion) -> bytes:
    """What the second signature covers: as :func:`signed_bytes`, with :data:`PATH_CONTEXT` and the path at the end."""
    return msgspec.json.encode(
        (PATH_CONTEXT, record.name, record.version, record.sha256, record.size, record.labels, record.path),
    )


def signed_bytes(record: ModelVersion) -> bytes:
    """What a signature covers: a JSON array, in UTF-8 and without spaces, of :data:`CONTEXT`, the model's name, the
    version, the SHA-256, the size and the array of labels.
    """
    return msgspec.json.encode(
        (CONTEXT, record.name, record.version, record.sha256, record.size, record.labels),
    )


def certificate_bytes(record: Certificate) -> bytes:
    """What the signature of a certificate covers, as :class:`~headrace_schemas.records.Certificate` says."""
    return msgspec.json.encode(
        (
            *(CERTIFICATE_CONTEXT, record.name, record.version, record.threshold, record.disagree, record.confidence),
            *(record.rows, record.accepted, record.errors, record.certified_at_ms),
        ),
    )


def signer(key_file: str | None, trusted: Collection[str]) -> Sign:
    """A function that signs records with the private key in ``key_file``; without one it leaves them unsigned.

    Raises SigningKeyError when the file can't be used, and when the ``trusted`` public keys would refuse a signature.
    """
    key = _signing_key(key_file, trusted)
    if key is None:
        return lambda record: record
    known = key

    def sign(record: ModelVersion) -> ModelVersion:
        signature, signed_by = _signature(known, signed_bytes(record))
        second = None if record.path is None else _signature(known, signed_with_path(record))[0]
        return msgspec.structs.replace(record, signature=signature, signed_by=signed_by, path_signature=second)

    return sign


def certificate_signer(key_file: str | None, trusted: Collection[str]) -> Callable[[Certificate], Certificate]:
    """As :func:`signer`, for certificates."""
    key = _signing_key(key_file, trusted)
    if key is None:
        return lambda record: record
    known = key

    def sign(record: Certificate) -> Certificate:
        signature, signed_by = _signature(known, certificate_bytes(record))
        return msgspec.structs.replace(record, signature=signature, signed_by=signed_by)

    return sign


def _signature(key: Ed25519PrivateKey, signed: bytes) -> tuple[str, str]:
    """The signature in base64, and the key's id."""
    return base64.b64encode(key.sign(signed)).decode(), key_id(key.public_key().public_bytes_raw())


def _signing_key(key_file: str | None, trusted: Collection[str]) -> Ed25519PrivateKey | None:
    if key_file is None:
        if trusted:
            raise SigningKeyError(
                "signing.trusted is set, so a version that is not signed would be refused. Set signing.key_file to the "
                "private key to sign with; `headrace models keygen --out FILE` makes one."
            )
        return None
    key: Ed25519PrivateKey = read_private_key(
        Path(key_file), Ed25519PrivateKey, SIGNING, named="signing.key_file", refused=SigningKeyError
    )
    public = key.public_key().public_bytes_raw()
    if trusted and public_key_text(SIGNING, public) not in trusted:
        raise SigningKeyError(
            f"signing.key_file {key_file} holds the key {key_id(public)}, which signing.trusted has not, so what it "
            f"signs would be refused. Add {public_key_text(SIGNING, public)} to signing.trusted, here and of every "
            "worker."
        )
    return key


def verify_certificate(record: Certificate, trusted: Collection[str]) -> None:
    """Check a certificate's signature against ``trusted``, as :func:`verify` does. Raises SignatureError."""
    if not trusted:
        return
    what = f"The certificate of version {record.version} of model {record.name!r}"
    keys = {key_id(key): key for key in (public_key_bytes(SIGNING, text) for text in trusted)}
    if record.signature is None or record.signed_by not in keys:
        raise SignatureError(f"{what} is not signed by a key that is trusted here (signing.trusted: {', '.join(keys)})")
    try:
        public = Ed25519PublicKey.from_public_bytes(keys[record.signed_by])
        public.verify(base64.b64decode(record.signature, validate=True), certificate_bytes(record))
    except (InvalidSignature, ValueError, OverflowError) as error:
        raise SignatureError(f"{what}: its signature by the key {record.signed_by} does not fit it") from error


def verify(record: ModelVersion, trusted: Collection[str]) -> None:
    """Check a record's signatures against ``trusted``, public keys as settings write them; without any, check nothing.

    The second, which covers the path, is checked where there is one: older records have none. Raises SignatureError
    when the record is not signed, signed by another key, altered since, or lies at another path than the one signed.
    """
    if not trusted:
        return
    what = f"Version {record.version} of model {record.name!r}"
    if record.signature is None or record.signed_by is None:
        raise SignatureError(
            f"{what} is not signed, and signing.trusted asks for a signature. If it is yours, sign it: `headrace "
            "models publish URI` with signing.key_file set"
        )
    keys = {key_id(key): key for key in (public_key_bytes(SIGNING, text) for text in trusted)}
    if record.signed_by not in keys:
        raise SignatureError(
            f"{what} is signed by the key {record.signed_by!r}, which is not trusted here (signing.trusted: "
            f"{', '.join(keys)})"
        )
    public = Ed25519PublicKey.from_public_bytes(keys[record.signed_by])
    placed = record.path is not None or record.path_signature is not None
    try:
        public.verify(base64.b64decode(record.signature, validate=True), signed_bytes(record))
        if placed:
            public.verify(base64.b64decode(record.path_signature or "", validate=True), signed_with_path(record))
    # OverflowError: a size beyond 64 bits.
    except (InvalidSignature, ValueError, OverflowError) as error:
        raise SignatureError(
            f"{what}: its signature by the key {record.signed_by} does not fit its record, so its name, version, "
            "SHA-256, size, labels or path were altered after it was signed"
        ) from error
    if placed and not record.uri.endswith(f"/{record.path}"):
        raise SignatureError(
            f"{what} lies at another path than {record.path}, the one that was signed: publish it again if you moved it"
        )


class Seals(msgspec.Struct, frozen=True):
    """The keys of jobs: ``key`` signs those made here; ``trusted``, public keys by id, may have signed those of others.

    Where both are empty, jobs are not signed and need no signature.
    """

    key: Ed25519PrivateKey | None = None
    trusted: dict[str, bytes] = {}

    def seal(self, name: str, training_id: str, job: bytes) -> tuple[str | None, str | None]:
        """The signature of a job's exact bytes, as one of model ``name`` and that training, and the key's id."""
        if self.key is None:
            return None, None
        signature = self.key.sign(_job_bytes(name, training_id, job))
        return base64.b64encode(signature).decode(), key_id(self.key.public_key().public_bytes_raw())

    def check(self, name: str, training_id: str, job: bytes, signature: str | None, signed_by: str | None) -> None:
        """Raises SignatureError for a job that none of the keys has signed for this model and training."""
        if not self.trusted:
            return
        what = f"The job of training {training_id} of model {name!r}"
        if signature is None or signed_by not in self.trusted:
            raise SignatureError(
                f"{what} is not signed by a key of this trainer ({', '.join(self.trusted)}): somebody else wrote it, "
                "or a trainer with another signing.key_file"
            )
        try:
            public = Ed25519PublicKey.from_public_bytes(self.trusted[signed_by])
            public.verify(base64.b64decode(signature, validate=True), _job_bytes(name, training_id, job))
        except (InvalidSignature, ValueError) as error:
            raise SignatureError(f"{what}: its signature by the key {signed_by} does not fit it") from error


def seals(key_file: str | None, trusted: Collection[str]) -> Seals:
    """Seals that sign jobs with the private key in ``key_file`` and accept those that it or one of ``trusted`` signed.

    Raises SigningKeyError when the file can't be used.
    """
    known = [public_key_bytes(SIGNING, text) for text in trusted]
    key: Ed25519PrivateKey | None = None
    if key_file is not None:
        key = read_private_key(
            Path(key_file), Ed25519PrivateKey, SIGNING, named="signing.key_file", refused=SigningKeyError
        )
        known.append(key.public_key().public_bytes_raw())
    return Seals(key, {key_id(one): one for one in known})


def _job_bytes(name: str, training_id: str, job: bytes) -> bytes:
    return msgspec.json.encode((JOB_CONTEXT, name, training_id, hashlib.sha256(job).hexdigest()))


def write_new_key(path: Path) -> str:
    """Make a private key, write it to ``path`` as PEM for its owner's eyes alone, and give the public key as a setting.

    Raises SigningKeyError when there is a file already, or it can't be written.
    """
    key = Ed25519PrivateKey.generate()
    write_private_key(path, key, refused=SigningKeyError)
    return public_key_text(SIGNING, key.public_key().public_bytes_raw())
