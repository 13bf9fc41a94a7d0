"""The trainer's folders on its store: artifacts, and what a training needs to be gone on with by another trainer.

    STORE/MODEL/versions/             the artifacts
    STORE/MODEL/trainings/ID/job.json what the ranks of a training were told, so that whoever goes on tells the same
    STORE/MODEL/trainings/ID/         their checkpoints and their outcome

Every call blocks, and raises OSError or what the file system raises when the store can't be reached.
"""

from __future__ import annotations

import fsspec
import msgspec

from headrace.training.ranks.job import Job, Outcome, outcome_uri


class TrainingStore:
    """The folders of model ``name`` below ``store``, a path or any fsspec URI."""

    def __init__(self, store: str, name: str) -> None:
        files, path = fsspec.url_to_fs(store)
        # A path becomes absolute: a worker that loads the artifact runs elsewhere.
        self._files = files
        self._base = f"{files.unstrip_protocol(path).rstrip('/')}/{name}"

    @property
    def versions(self) -> str:
        """The folder of the artifacts, as a URI."""
        return f"{self._base}/versions"

    def training(self, training_id: str) -> str:
        """The folder of one training, as a URI."""
        return f"{self._base}/trainings/{training_id}"

    def write_job(self, job: Job) -> None:
        """Keep what the ranks are told, under a temporary name first."""
        folder = self._path(self.training(job.id))
        self._files.makedirs(folder, exist_ok=True)
        self._files.pipe_file(f"{folder}/job.json.partial", msgspec.json.encode(job))
        self._files.mv(f"{folder}/job.json.partial", f"{folder}/job.json")

    def read_job(self, training_id: str) -> Job | None:
        """What the ranks of a training were told, None when its trainer died before it could keep that."""
        path = self._path(f"{self.training(training_id)}/job.json")
        return msgspec.json.decode(self._files.cat_file(path), type=Job) if self._files.exists(path) else None

    def read_outcome(self, job: Job) -> Outcome | None:
        """What came of a training whose ranks are done, None when they are not."""
        path = self._path(outcome_uri(job))
        return msgspec.json.decode(self._files.cat_file(path), type=Outcome) if self._files.exists(path) else None

    def remove_trainings_but(self, training_id: str) -> None:
        """Remove the folders of all other trainings of this model."""
        folder = self._path(f"{self._base}/trainings")
        for path in self._files.ls(folder, detail=False) if self._files.exists(folder) else ():
            if path.rstrip("/").rpartition("/")[2] != training_id:
                self._files.rm(path, recursive=True)

    def _path(self, uri: str) -> str:
        path: str = self._files._strip_protocol(uri)  # noqa: SLF001 - fsspec has no public name for it
        return path
