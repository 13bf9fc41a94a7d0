"""The trainer's folders on its store: artifacts, and what a training needs to be gone on with by another trainer.

    STORE/MODEL/versions/             the artifacts
    STORE/MODEL/trainings/ID/job.json what the ranks of a training were told, so that whoever goes on tells the same
    STORE/MODEL/trainings/ID/         their checkpoints and their outcome

Every call blocks, and raises StoreError when the store can't be reached.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.model import store
from headrace.model.store import StoreError
from headrace.training.ranks.job import Job


class TrainingStore:
    """The folders of model ``name`` below ``base``, a path or any fsspec URI."""

    def __init__(self, base: str, name: str) -> None:
        # A path becomes absolute: a worker that loads the artifact runs elsewhere.
        uri = base if "://" in base else Path(base).absolute().as_uri()
        self._base = f"{uri.rstrip('/')}/{name}"

    @property
    def versions(self) -> str:
        """The folder of the artifacts, as a URI."""
        return f"{self._base}/versions"

    def training(self, training_id: str) -> str:
        """The folder of one training, as a URI. Raises StoreError for an id that no trainer gave, such as a path."""
        if not training_id.isalnum():
            raise StoreError(
                f"{training_id!r} is no id of a training, so it gets no folder in {self._base}/trainings: its record "
                "on the models topic was written by somebody else than a trainer"
            )
        return f"{self._base}/trainings/{training_id}"

    def write_job(self, job: Job) -> None:
        """Keep what the ranks are told."""
        store.write(self._job(job.id), msgspec.json.encode(job), job.id)

    def read_job(self, training_id: str) -> Job | None:
        """What the ranks of a training were told, None when its trainer died before it could keep that."""
        data = store.read_if_there(self._job(training_id))
        return None if data is None else msgspec.json.decode(data, type=Job)

    def remove_trainings_but(self, training_id: str) -> None:
        """Remove the folders of all other trainings of this model."""
        for folder in store.folders(f"{self._base}/trainings"):
            if folder != training_id:
                store.remove_folder(f"{self._base}/trainings/{folder}")

    def _job(self, training_id: str) -> str:
        return f"{self.training(training_id)}/job.json"
