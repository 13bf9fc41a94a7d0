"""`headrace models certify`: the threshold above which a version may answer alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from headrace.commands.common import Bootstrap, By, Version, begin, open_models, say, who
from headrace.core.cascade import CONFIDENCE, LEAST_ACCEPTED
from headrace.core.errors import UserError

if TYPE_CHECKING:
    from headrace.config import Settings
    from headrace.core.label_rules import Rules
    from headrace.learning.data.random_slice import SliceRows
    from headrace_schemas.records import Certificate, ModelVersion


class NotCertifiedError(UserError):
    """No threshold keeps the bound that was asked for."""


def certify(
    ctx: typer.Context,
    version: Version = "champion",
    *,
    disagree: Annotated[
        float,
        typer.Option(min=0.0001, max=0.5, metavar="SHARE", help="The share of wrong answers allowed, such as 0.02."),
    ],
    confidence: Annotated[float, typer.Option(min=0.5, max=0.9999, help="How sure the bound is.")] = CONFIDENCE,
    least: Annotated[int, typer.Option(min=1, help="Test thresholds of at least so many rows.")] = LEAST_ACCEPTED,
    rows: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Labelled rows, chosen by chance, that the version never saw; by default those of the labels topic.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the threshold, and publish nothing.")] = False,
    by: By = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Find the lowest score above which at most the share DISAGREE of a version's answers is wrong, and publish it.

    Workers then answer what scores less `ok` without a label, for a teacher or a person to review. The bound is exact
    (Clopper-Pearson, one-sided). Labels count that people gave to texts of the random slice after the version was
    trained; `headrace labels suggest --queue random` chooses such texts.
    """
    settings = begin(ctx, bootstrap)
    certificate = asyncio.run(
        _certify(
            settings, version, disagree, confidence=confidence, least=least, file=rows, publish=not dry_run, by=who(by)
        )
    )
    verb = "would certify" if dry_run else "certified"
    say(
        f"{verb} {certificate.version}: above a score of {certificate.threshold:.6f} at most "
        f"{certificate.bound:.2%} of its answers are wrong ({certificate.confidence:.0%} sure)"
    )
    say(
        f"{certificate.errors} of {certificate.accepted} rows were; it answers {certificate.coverage:.1%} of all "
        f"{certificate.rows} alone"
    )


async def _certify(
    settings: Settings,
    wanted: str,
    disagree: float,
    *,
    confidence: float,
    least: int,
    file: Path | None,
    publish: bool,
    by: str,
) -> Certificate:
    from headrace.core.cascade import Refused
    from headrace.core.clock import SystemClock
    from headrace.learning.certifying import certificate_of
    from headrace.learning.data.random_slice import asked_by_rules
    from headrace.learning.evaluate import answer_scored
    from headrace.model.backends.interface import open_backend
    from headrace.model.signing import certificate_signer
    from headrace.registry.versions import find_version, load_version

    sign = certificate_signer(settings.signing.key_file, settings.signing.trusted)
    async with open_models(settings) as models:
        version = find_version(models.log, settings.worker.model_name, wanted)
        rules = models.log.rules_of(settings.worker.model_name)
        rows = await _rows(settings, version, file, rules)
        artifact = await asyncio.to_thread(load_version, version, settings.signing.trusted, settings.places())
        backend = open_backend("cpu", artifact)
        found = await asyncio.to_thread(
            certificate_of,
            version,
            asked_by_rules(lambda texts: answer_scored(backend, texts), rules),
            rows,
            disagree=disagree,
            now_ms=SystemClock().now_ms(),
            confidence=confidence,
            least=least,
        )
        if isinstance(found, Refused):
            raise NotCertifiedError(f"{version.version} is not certified: {found.why}.")
        certificate = sign(msgspec.structs.replace(found, by=by))
        if publish:
            await models.writer.publish([certificate])
        return certificate


async def _rows(settings: Settings, version: ModelVersion, file: Path | None, rules: Rules) -> SliceRows:
    from headrace.commands.common import cluster_of
    from headrace.learning.certifying import divided
    from headrace.learning.data.files import read_rows
    from headrace.learning.data.random_slice import read_label_records, unseen

    if file is not None:
        return divided(read_rows(file))
    if version.lineage is None or not version.lineage.offsets:
        raise NotCertifiedError(
            f"{version.version} was not trained from the labels topic, so which labels it saw is not known. Give rows "
            "that it never saw: --rows FILE."
        )
    topic = settings.topics.names().labels
    return unseen(
        await read_label_records(cluster_of(settings), topic, settings.requests.max_text_bytes, rules), version
    )
