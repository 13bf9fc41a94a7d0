"""Where the time of a request goes: the worker's own sums from its /metrics beside what the harness sees from outside.

The record's timestamp is when the harness sent it, so the stages follow each other: "producing" ends where "kafka"
begins, which is the way to the broker, the wait there and the fetch. "publishing" ends when the worker knows of the
append, a little behind the append itself, and the workers' sums hold requests that were on their way at either end. So
the stages can come to more than the whole: then nothing is left, and the shares are of what they come to.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence

from prometheus_client.parser import text_string_to_metric_families

from headrace_load.result import Stage

TIMEOUT_S = 5.0
Scraped = Mapping[tuple[str, str], float]
"""Sums over all workers, by a sample's name and its label's value ("" without one)."""

_KAFKA = ("headrace_in_kafka_seconds_sum", "")
_SECONDS = "headrace_request_seconds_total"
_ANSWERS = "headrace_answers_total"
_SIZES = "headrace_batch_size_bucket"
IN_WORKER = ("gathering", "model", "publishing")


async def scrape(urls: Sequence[str]) -> Scraped:
    """Read the metrics of all workers. Raises OSError naming the address that does not answer."""
    return _summed(await asyncio.gather(*(asyncio.to_thread(_read, url) for url in urls)))


def _read(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise OSError(f"{url} is no address of metrics; write it as http://host:port/metrics")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the scheme is checked above
            text: str = answer.read().decode()
            return text
    except OSError as error:
        raise OSError(f"{url} gives no metrics: {error}") from error


def _summed(texts: Sequence[str]) -> Scraped:
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for text in texts:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name, next(iter(sample.labels.values()), "")] += sample.value
    return found


def grown(before: Scraped, after: Scraped) -> Scraped:
    """What was added in between; a worker that is new counts from nothing."""
    return {name: value - before.get(name, 0.0) for name, value in after.items()}


def stages(whole: float, producing: float, reading: float | None, metrics: Scraped) -> tuple[Stage, ...]:
    """Mean milliseconds of a request in each stage, and what they leave of the ``whole``.

    ``producing`` is from due to sent, ``reading`` from the append of the answer to its arrival (None: nobody read).
    Without metrics of a worker what lies between is all in "other".
    """
    answers = sum(value for (name, _), value in metrics.items() if name == _ANSWERS)
    means = {"producing": producing}
    if answers:
        means["kafka"] = metrics.get(_KAFKA, 0.0) / answers * 1000
        for stage in IN_WORKER:
            if (_SECONDS, stage) in metrics:
                means[stage] = metrics[_SECONDS, stage] / answers * 1000
    if reading is not None:
        means["reading"] = reading
    told = sum(means.values())
    means["other"] = max(0.0, whole - told)
    of = max(whole, told)
    return tuple(Stage(name=name, mean=mean, share=mean / of if of else 0.0) for name, mean in means.items())


def batch_sizes(metrics: Scraped) -> dict[str, int]:
    """Batches by the upper bound of their size, without those that none has; the metrics count each and all below."""
    bounds = sorted((float(bound), count) for (name, bound), count in metrics.items() if name == _SIZES)
    below = 0.0
    found: dict[str, int] = {}
    for bound, count in bounds:
        if count > below:
            found[f"{bound:g}"] = round(count - below)
        below = count
    return found
