"""The labeller of the teaching demo: its settings, its process, and the figures of its admin port."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from headrace.config import Settings
from headrace.demo.chat_server import Fault
from headrace.demo.setup import as_options
from headrace.demo.versions import learning_settings
from headrace.kafka.settings import KafkaSettings
from headrace.labeller.settings import LabellerSettings
from headrace.labeller.teachers.settings import TeacherSettings
from headrace.process.children import Child, child, headrace
from headrace.trainer.settings import GateSettings

BATCH = 32
MAX_TOKENS = 128
GRACE_S = 10.0
SCRAPE_S = 5.0
MODEL = "stand-in"
DAY_MONEY = 1.0
PRICE_INPUT, PRICE_OUTPUT = 0.15, 0.60


def teaching_settings(
    kafka: KafkaSettings,
    prefix: str,
    folder: Path,
    *,
    store: Path,
    day_texts: int,
    new_machine_labels: int,
    endpoint: str | None,
) -> Settings:
    """The settings of trainer, workers and labeller. ``endpoint`` None means the teacher `encoder`.

    ``folder`` gets the file of held-out rows by which the gate decides, and the labels file for an endpoint.
    """
    settings = learning_settings(kafka, prefix, store)
    names = settings.topics.names()
    teacher = TeacherSettings(threads=1)
    if endpoint is not None:
        teacher = TeacherSettings(
            labels=str(folder / LABELS),
            model=MODEL,
            may_leave=(f"{names.requests}:text", f"{names.labels}:text"),
            price_input=PRICE_INPUT,
            price_output=PRICE_OUTPUT,
        )
    return msgspec.structs.replace(
        settings,
        trainer=msgspec.structs.replace(
            settings.trainer, ranks=1, max_tokens=MAX_TOKENS, new_machine_labels=new_machine_labels
        ),
        # Version 2 is meant to answer differently from version 1, which learnt from few rows.
        gate=GateSettings(holdout=str(folder / HOLDOUT), max_changed=1.0),
        labeller=LabellerSettings(
            group=f"{prefix}labeller",
            teacher="encoder" if endpoint is None else f"endpoint:{endpoint}",
            random=1.0,
            batch=BATCH,
            day_texts=day_texts,
            day_money=None if endpoint is None else DAY_MONEY,
        ),
        teacher=teacher,
    )


HOLDOUT = "held-out.jsonl"
LABELS = "labels.toml"


def labels_file(labels: Sequence[str]) -> str:
    """labels.toml with the names alone; a JSON string is a string of TOML too."""
    return "".join(f"[labels.{json.dumps(name)}]\n" for name in labels)


def labeller(settings: Settings, *, environ: Mapping[str, str], folder: Path) -> AbstractAsyncContextManager[Child]:
    """Run `headrace labeller` with ``settings`` (log.format has to be json) while the block runs."""
    return child(
        headrace(*as_options(settings), "labeller"),
        name="`headrace labeller`",
        environ=environ,
        folder=folder,
        log=folder / "labeller.log",
        grace_s=GRACE_S,
    )


class _Event(msgspec.Struct, frozen=True):
    event: str
    port: int = 0
    teacher: str = ""
    evidence: str = ""
    why: str = ""


class Said(msgspec.Struct, frozen=True):
    """Facts from the labeller's log: its admin ``port``, its ``teacher``, how good the teacher is, and why it has
    stopped.
    """

    port: int | None = None
    teacher: str | None = None
    evidence: str | None = None
    stopped: str | None = None


def said(log: bytes) -> Said:
    """Read the log of a labeller."""
    found = Said()
    decoder = msgspec.json.Decoder(_Event)
    for line in log.splitlines():
        try:
            event = decoder.decode(line)
        except msgspec.DecodeError:
            continue  # a line that is being written
        match event.event:
            case "admin.listening":
                found = msgspec.structs.replace(found, port=event.port)
            case "teacher.ready":
                found = msgspec.structs.replace(found, evidence=event.evidence)
            case "labeller.started":
                found = msgspec.structs.replace(found, teacher=event.teacher)
            case "labeller.does_not_ask":
                found = msgspec.structs.replace(found, stopped=event.why)
            case _:
                pass
    return found


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The labeller's figures: waiting, labelled and failed texts, and the teacher's agreement on both kinds of gold
    texts.
    """

    asks: bool = False
    waiting: int = 0
    labelled: int = 0
    failed: int = 0
    plain: float | None = None
    planted: float | None = None


async def figures_at(port: int) -> Figures:
    """Ask the admin port. There are no figures without an answer; the process shows when a labeller ends."""
    try:
        status, _ = await asyncio.to_thread(_get, port, "/readyz")
        _, metrics = await asyncio.to_thread(_get, port, "/metrics")
    except (OSError, http.client.HTTPException):
        return Figures()
    return figures_of(metrics, ready=status == http.HTTPStatus.OK)


def figures_of(metrics: str, *, ready: bool) -> Figures:
    """Read the metrics of a labeller; it asks when it leads and is ready."""
    found = {
        (sample.name.removeprefix("headrace_labeller_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    # The stream repeats its texts, so most texts that are left for another reason have a label already.
    failed = sum(found.get(("texts_left_total", why), 0) for why in ("failed", "teacher"))
    return Figures(
        asks=ready and found.get(("leads",)) == 1,
        waiting=int(found.get(("waiting",), 0)),
        labelled=int(found.get(("texts_labelled_total",), 0)),
        failed=int(failed),
        plain=found.get(("gold_agreement", "plain")),
        planted=found.get(("gold_agreement", "planted")),
    )


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SCRAPE_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


_FAULTS = {
    7: Fault.RATE_LIMIT,
    23: Fault.ERROR,
    41: Fault.SLOW,
    59: Fault.MALFORMED,
    71: Fault.WRONG_LABEL,
    89: Fault.DROPPED,
}
_EVERY = 100


def fault_of(call: int) -> Fault | None:
    """The fault of call number ``call`` of the demo's endpoint: six calls of a hundred have one."""
    return _FAULTS.get(call % _EVERY)
