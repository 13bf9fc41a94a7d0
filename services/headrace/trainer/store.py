"""The trainer's folders on its store: artifacts, and what another trainer needs to go on with a training.

    STORE/MODEL/versions/             the artifacts
    STORE/MODEL/trainings/ID/job.json what the ranks of a training were told, so that whoever goes on tells the same
    STORE/MODEL/trainings/ID/         their checkpoints and their outcome

Every call blocks, and raises StoreError when the store can't be reached.
"""

from __future__ import annotations

import msgspec

from headrace.files.output import OutputError
from headrace.learning.distributed.job import Job, Outcome, read_outcome
from headrace.model import store
from headrace.model.errors import StoreError, StoreFault
from headrace.model.places import Location, Places, place_of
from headrace.model.signing import Seals
from headrace.registry.versions import versions_folder


class _Kept(msgspec.Struct, frozen=True):
    """A job as it is kept: its exact bytes, which are JSON themselves, and who signed them."""

    job: msgspec.Raw
    signature: str | None = None
    signed_by: str | None = None


class TrainingStore:
    """The folders of model ``name`` below ``base``, a path or URI, which lies in one of ``places`` or is one.

    Without ``places`` it is the only one. ``seals`` signs jobs, and what it can't verify is no job. Raises StoreError
    for any other ``base``.
    """

    def __init__(self, base: str, name: str, places: Places | None = None, seals: Seals | None = None) -> None:
        self._name = name
        self._seals = seals or Seals()
        own = place_of(base)
        self._places = Places((own,), "trainer.store")
        # A path becomes absolute: a worker that loads the artifact runs elsewhere.
        self._base = self._places.locate(f"{own.uri.rstrip('/')}/{name}").uri
        if places is not None:
            places.locate(self._base)
        self._versions = versions_folder(base, name)

    def check(self) -> None:
        """Look whether files can be written here, before a training begins. Nothing is left by looking.

        Raises OutputError where they can't, and StoreError where the store does not answer, which may pass.
        """
        try:
            store.check_place(self._at(f"{self._base}/headrace.try"), force=True)
        except OutputError as error:
            cause = error.__cause__
            if isinstance(cause, StoreError) and cause.fault is StoreFault.AWAY:
                raise cause from None
            raise OutputError(f"trainer.store: {error}") from None

    @property
    def versions(self) -> str:
        """The folder of the artifacts, as a URI."""
        return self._versions

    def training(self, training_id: str) -> str:
        """The folder of one training, as a URI. Raises StoreError for an id that no trainer gave, such as a path."""
        if not training_id.isalnum():
            raise StoreError(
                f"{training_id!r} is no id of a training, so it gets no folder in {self._base}/trainings: its record "
                "on the models topic was written by somebody else than a trainer",
                StoreFault.REFUSED,
            )
        return f"{self._base}/trainings/{training_id}"

    def write_job(self, job: Job) -> None:
        """Keep what the ranks are told, signed where there is a key."""
        data = msgspec.json.encode(job)
        kept = _Kept(msgspec.Raw(data), *self._seals.seal(self._name, job.id, data))
        store.write(self._at(self._job(job.id)), msgspec.json.encode(kept), job.id)

    def read_job(self, training_id: str) -> Job | None:
        """What the ranks of a training were told, None when its trainer died before it could keep that.

        Raises SignatureError, where there is a key, when none that is known has signed it, and StoreError for a file
        that is no job.
        """
        where = self._at(self._job(training_id))
        data = store.read_if_there(where)
        if data is None:
            return None
        try:
            kept = msgspec.json.decode(data, type=_Kept)
            self._seals.check(self._name, training_id, bytes(kept.job), kept.signature, kept.signed_by)
            return msgspec.json.decode(kept.job, type=Job)
        except msgspec.DecodeError:
            raise StoreError(f"{where} is no job of a training of this release", StoreFault.FAILED) from None

    def remove_trainings_but(self, training_id: str) -> None:
        """Remove the folders of all other trainings of this model."""
        for folder in store.folders(self._at(f"{self._base}/trainings")):
            if folder != training_id:
                store.remove_folder(self._at(f"{self._base}/trainings/{folder}"))

    def read_outcome(self, job: Job) -> Outcome | None:
        """What came of ``job``, None when its ranks are not done. Raises msgspec.DecodeError for what is no outcome."""
        return read_outcome(job, self._places)

    def artifact(self, outcome: Outcome) -> Location:
        """Where the artifact of a training lies. Raises StoreError when it is not among those of this model."""
        where = Places((place_of(self.versions),), "the trainer's own folder of versions").locate(outcome.uri)
        # Told from the store, so that its path holds the model's folder too.
        return self._at(where.uri)

    def _at(self, uri: str) -> Location:
        return self._places.locate(uri)

    def _job(self, training_id: str) -> str:
        return f"{self.training(training_id)}/job.json"
