"""Make the certificate of a version, of labels that people gave to texts chosen by chance.

Only labels with the source :data:`~headrace.core.cascade.RANDOM_SLICE` are a sample of what comes in, and only those
that lie behind the version's snapshot and were given after it are of texts that it never saw.
"""

from __future__ import annotations

from headrace.core.cascade import CONFIDENCE, LEAST_ACCEPTED, Certified, Refused, certify, grid_of
from headrace.learning.data.files import Rows
from headrace.learning.data.random_slice import Ask, SliceRows
from headrace.learning.data.validation import clean
from headrace_schemas.records import Certificate, ModelVersion


def divided(rows: Rows) -> SliceRows:
    """Rows of a file: a fifth of them, by their hash, is what the grid is chosen by."""
    cleaned = clean(rows)
    others = [place for place, key in enumerate(cleaned.keys) if key[0] % 5 == 0]
    sample = [place for place, key in enumerate(cleaned.keys) if key[0] % 5]
    return SliceRows(cleaned.rows.take(sample), cleaned.rows.take(others))


def certificate_of(
    version: ModelVersion,
    ask: Ask,
    rows: SliceRows,
    *,
    disagree: float,
    now_ms: int,
    confidence: float = CONFIDENCE,
    least: int = LEAST_ACCEPTED,
) -> Certificate | Refused:
    """Test thresholds on ``rows``, and certify the lowest that passes. Raises as :func:`certify` does."""
    if not len(rows.others):
        return Refused("there are no rows beside the sample, by which thresholds to test are chosen")
    answers = ask(rows.sample.texts)
    wrong = [given != true for given, true in zip(answers.labels, rows.sample.labels, strict=True)]
    found = certify(
        answers.scores,
        wrong,
        grid_of(ask(rows.others.texts).scores),
        disagree=disagree,
        confidence=confidence,
        least=least,
    )
    if isinstance(found, Refused):
        return found
    return _certificate(version, found, disagree=disagree, confidence=confidence, now_ms=now_ms)


def _certificate(
    version: ModelVersion, found: Certified, *, disagree: float, confidence: float, now_ms: int
) -> Certificate:
    return Certificate(
        name=version.name,
        version=version.version,
        threshold=found.threshold,
        disagree=disagree,
        confidence=confidence,
        rows=found.rows,
        accepted=found.accepted,
        errors=found.errors,
        bound=found.bound,
        coverage=found.accepted / found.rows,
        certified_at_ms=now_ms,
    )
