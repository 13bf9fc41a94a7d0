"""What a labeller tells Prometheus, in texts, money and shares."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from headrace.process.metrics import Metrics


class LabellerMetrics(Metrics):
    """The metrics of one labeller in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "headrace_labeller")
        self._leads = self.gauge("leads", "1 while this labeller asks, 0 while it stands by.")
        self._stopped = self.gauge("stopped", "1 while the agreement on gold texts forbids to ask.")
        self._seen = self.counter("answers_seen", "Answers that were looked at.")
        self._chosen = self.counter("texts_chosen", "Texts chosen to be labelled, by why.", "why")
        self._left = self.counter("texts_left", "Chosen texts that were not labelled, by why.", "why")
        self._waiting = self.gauge("waiting", "Texts that wait for the teacher.")
        self._labelled = self.counter("texts_labelled", "Texts that the teacher labelled.")
        self._reviews = self.counter("reviews", "Requests without a label that were reviewed.")
        self._money = self.counter("money", "What the teacher cost, in the money of its prices.")
        self._exhausted = self.gauge("budget_exhausted", "1 while the budget forbids to ask.")
        self._teacher = self.gauge("teacher_up", "0 while the teacher fails as a whole.")
        # A teacher that was asked nothing yet has not failed.
        self._teacher.set(1)
        self._agreement = self.gauge("gold_agreement", "Share of the last gold texts given their true label.", "kind")

    def leads(self, *, leads: bool) -> None:
        self._leads.set(leads)
        if not leads:
            self.waiting(0)

    def stopped(self, *, stopped: bool) -> None:
        self._stopped.set(stopped)

    def seen(self, answers: int) -> None:
        self._seen.inc(answers)

    def chosen(self, why: str) -> None:
        self._chosen.labels(why).inc()

    def left(self, why: str, texts: int = 1) -> None:
        """``texts`` that were chosen get no label from this labeller."""
        self._left.labels(why).inc(texts)

    def waiting(self, texts: int) -> None:
        self._waiting.set(texts)

    def reviewed(self, requests: int) -> None:
        self._reviews.inc(requests)

    def labelled(self, texts: int, money: float) -> None:
        self._labelled.inc(texts)
        self._money.inc(money)

    def exhausted(self, *, exhausted: bool) -> None:
        self._exhausted.set(exhausted)

    def teacher(self, *, up: bool) -> None:
        self._teacher.set(up)

    def agreement(self, plain: float | None, planted: float | None) -> None:
        """The agreement on both kinds of gold texts, None where none was asked."""
        for kind, share in (("plain", plain), ("planted", planted)):
            if share is not None:
                self._agreement.labels(kind).set(share)
