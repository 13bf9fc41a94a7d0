"""What a trainer tells Prometheus, in seconds and counts."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from headrace.core.drift import Drift
from headrace.process.metrics import Metrics
from headrace_schemas.records import Training, TrainingState


class TrainerMetrics(Metrics):
    """The metrics of one trainer in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "headrace_trainer")
        self._leads = self.gauge("leads", "1 while this trainer leads, 0 while it stands by.")
        self._read = self.counter("labels_read", "Label records read, tombstones among them.")
        self._refused = self.counter("labels_refused", "Labels dead-lettered, by reason.", "reason")
        self._live = self.gauge("labels", "Usable labels that there are.")
        self._machine = self.gauge("machine_labels", "Usable labels of teachers that there are.")
        self._teachers = self.gauge("teachers", "Versions of teachers that have such labels.")
        self._machine_refused = self.counter(
            "machine_labels_refused", "Labels of teachers that train nothing.", "reason"
        )
        self._disagreements = self.gauge("machine_disagreements", "Labels of teachers that differ from a person's.")
        self._changes = self.gauge("label_changes", "Ids labelled or erased since the last snapshot.", "change")
        self._missing = self.gauge("labels_missing", "Labels that the next training lacks, 0 while it waits for none.")
        self._running = self.gauge("training_running", "1 while a training runs.")
        self._trainings = self.counter("trainings", "Trainings that ended, by how.", "state")
        self._seconds = self.gauge("training_seconds", "How long the last training took.")
        self._verdicts = self.counter("verdicts", "Versions judged by the gate, by what became of them.", "promoted")
        self._disagreement = Gauge(
            "headrace_cascade_disagreement_bound",
            "Share of wrong answers above the champion's certified threshold: its bounds, and what is allowed.",
            ["side"],
            registry=registry,
        )
        self._drift = self.gauge("drift_psi", "Population stability index of the champion's answers.", "of")

    def disagreement(self, lower: float, upper: float, allowed: float) -> None:
        """The champion's disagreement with people above its threshold: bounds, and what its certificate allows."""
        for side, share in (("lower", lower), ("upper", upper), ("allowed", allowed)):
            self._disagreement.labels(side).set(share)

    def not_certified(self) -> None:
        """The champion has no certificate."""
        self._disagreement.clear()

    def leads(self, *, leads: bool) -> None:
        """Whether this trainer leads; who stands by knows nothing of labels."""
        self._leads.set(leads)
        if not leads:
            self._running.set(0)
            self._missing.set(0)

    def read(self, records: int) -> None:
        self._read.inc(records)

    def refused(self, reasons: Mapping[str, int]) -> None:
        """Labels were dead-lettered, so many of each reason's code."""
        for reason, count in reasons.items():
            self._refused.labels(reason).inc(count)

    def machine_labels(self, usable: int, teachers: int) -> None:
        """What the topic of teachers' labels holds."""
        self._machine.set(usable)
        self._teachers.set(teachers)

    def machine_refused(self, reasons: Mapping[str, int]) -> None:
        """Labels of teachers were passed over, so many of each reason's code."""
        for reason, count in reasons.items():
            self._machine_refused.labels(reason).inc(count)

    def disagreements(self, count: int) -> None:
        """How many labels of teachers are others than those that people gave the same texts."""
        self._disagreements.set(count)

    def labels(self, usable: int, new: int, erased: int) -> None:
        """What the labels topic holds, and what of it is in no snapshot."""
        self._live.set(usable)
        self._changes.labels("new").set(new)
        self._changes.labels("erased").set(erased)

    def missing(self, labels: int) -> None:
        """The next training lacks so many labels."""
        self._missing.set(labels)

    def begun(self) -> None:
        self._running.set(1)

    def ended(self, training: Training) -> None:
        """``training`` has ended."""
        self._running.set(0)
        self._trainings.labels(str(training.state)).inc()
        if training.state is TrainingState.DONE and training.ended_at_ms is not None:
            self._seconds.set((training.ended_at_ms - training.begun_at_ms) / 1000)

    def judged(self, *, promoted: bool) -> None:
        self._verdicts.labels(str(promoted).lower()).inc()

    def drift(self, drift: Drift | None) -> None:
        """The champion's drift, None while too few answers were seen."""
        if drift is None:
            self._drift.clear()
            return
        self._drift.labels("labels").set(drift.labels)
        self._drift.labels("confidence").set(drift.confidence)
