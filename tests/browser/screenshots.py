"""Pictures of every page, light and dark, narrow and wide: ``python -m tests.browser.screenshots OUT VERSION...``.

The versions are artifacts that `headrace train` made of the rows of ``tests/support/desk_texts.py``, the champion
first. A broker, a stand-in for the worker that answers by the champion, and the console run in this process.
"""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import sys
import zlib
from pathlib import Path

from playwright.async_api import async_playwright

from headrace.kafka.brokers import embedded_broker
from headrace.kafka.interface import Outgoing, TopicPartition, connected
from headrace.model.artifact import Artifact, load
from headrace.model.backends.interface import Backend, open_backend
from headrace.model.explanation import explainer_of
from headrace.model.places import as_told
from headrace.registry.versions import version_record
from headrace_schemas.codec import encode_result
from headrace_schemas.headers import read_explain
from headrace_schemas.records import Check, ClassifyResult, ModelAlias, Score, Status, Verdict
from tests.browser.conftest import open_page
from tests.support.console_site import PARTITIONS, ConsoleSite
from tests.support.desk_texts import MIXED, desk_texts

SIZES = {"wide": (1280, 860), "narrow": (360, 740)}
ABSTAIN_BELOW = 0.55


def result_of(backend: Backend, offset: int, value: bytes, *, explain: bool) -> ClassifyResult:
    artifact = backend.artifact
    answers = backend.classify([value], 3)
    ranking = tuple(
        Score(artifact.labels[place], round(float(score), 4))
        for place, score in zip(answers.ranking[0], answers.ranking_scores[0], strict=True)
    )
    return ClassifyResult(
        offset=offset,
        after=offset - 1,
        crc=zlib.crc32(value),
        status=Status.OK,
        version=artifact.version,
        label=ranking[0].label if ranking[0].score >= ABSTAIN_BELOW else None,
        score=ranking[0].score,
        ranking=ranking,
        explanation=explainer_of(artifact).explain(value.decode()) if explain else None,
    )


async def answer(site: ConsoleSite, artifact: Artifact) -> None:
    """Answer all requests until cancelled."""
    backend = open_backend("cpu", artifact)
    consumer, producer = site.cluster.consumer(), site.cluster.producer()
    async with connected(consumer), connected(producer):
        names = [TopicPartition(site.names.requests, number) for number in range(PARTITIONS)]
        consumer.assign(names)
        for name in names:
            consumer.seek(name, 0)
        while True:
            for name, records in (await consumer.fetch(max_records=200, timeout_s=0.2)).items():
                await asyncio.sleep(0.004 + random.expovariate(150))
                answers = [
                    Outgoing(
                        encode_result(
                            result_of(backend, one.offset, one.value or b"", explain=read_explain(one.headers))
                        )
                    )
                    for one in records
                ]
                await producer.send_batch(site.names.results, name.partition, answers)


async def ask(site: ConsoleSite) -> None:
    """Ask at a rate that rises and falls, until cancelled."""
    texts = [text for text, _ in desk_texts(3000, 7)]
    chance = random.Random(3)
    async with connected(site.cluster.producer()) as producer:
        for tick in range(10**6):
            count = int(12 + 6 * math.sin(tick / 20) + chance.random() * 4)
            chosen = [chance.choice(MIXED) if chance.random() < 0.1 else chance.choice(texts) for _ in range(count)]
            records = [Outgoing(text.encode(), None, [("content-type", b"text/plain")]) for text in chosen]
            await producer.send_batch(site.names.requests, tick % PARTITIONS, records)
            await asyncio.sleep(0.25)


async def prepare(site: ConsoleSite, artifacts: list[Artifact], files: list[str]) -> None:
    """Versions, verdicts and moves of aliases."""
    name, now_ms = site.settings.worker.model_name, 1_795_960_000_000
    records = [
        version_record(artifact, name=name, where=as_told(file), now_ms=now_ms + 3_600_000 * place)
        for place, (artifact, file) in enumerate(zip(artifacts, files, strict=True))
    ]
    champion, challenger = records[0], records[-1]
    checks = (
        Check("accuracy", True, 0.94, 0.9, "accuracy 0.9400 on 50 test rows, at least 0.9000 is asked for"),
        Check("worst class", False, -0.21, -0.05, "fees lost 0.2100 of its F1; at most 0.0500 may be lost"),
        Check("size", True, 400_000, 50_000_000, "the artifact has 0.4 MB, at most 50 MB are allowed"),
    )
    await site.publish(
        *records,
        ModelAlias(
            name=name, alias="champion", version=challenger.version, moved_at_ms=now_ms, reason="the first version"
        ),
        ModelAlias(
            name=name,
            alias="champion",
            version=champion.version,
            moved_at_ms=now_ms + 10**6,
            reason="better on the refunds",
            previous=challenger.version,
            by="olga",
        ),
        ModelAlias(
            name=name,
            alias="challenger",
            version=challenger.version,
            moved_at_ms=now_ms + 2 * 10**6,
            reason="the gate refused it",
        ),
        Verdict(
            name=name,
            version=challenger.version,
            promoted=False,
            reason="fees got worse",
            decided_at_ms=now_ms + 2 * 10**6,
            checks=checks,
            champion=champion.version,
        ),
        Verdict(
            name=name,
            version=champion.version,
            promoted=True,
            reason="better than the champion",
            decided_at_ms=now_ms + 10**6,
            checks=(checks[0], checks[2]),
            champion=challenger.version,
        ),
    )


async def visit(page, address: str, one: str) -> None:
    """Show page ``one`` as somebody would leave it."""
    await page.goto(f"{address}#/{one}")
    await page.locator("main h1").wait_for()
    if one == "try":
        await page.get_by_label("Text", exact=True).fill(
            "The refund went to a card that is blocked, please explain the fee."
        )
        await page.get_by_role("button", name="Ask").click()
        await page.get_by_text("Why").first.wait_for()
    if one == "label":
        await page.locator(".choices button").first.wait_for()
        for _ in range(3):
            before = await page.locator("#text").text_content()
            await page.keyboard.press("1")
            await page.wait_for_function(
                "before => document.querySelector('#text')?.textContent !== before", arg=before
            )
    await asyncio.sleep(2.5)


async def main(out: Path, pages: list[str], seconds: float, files: list[str]) -> None:
    artifacts = [load(as_told(file)) for file in files]
    async with embedded_broker() as bootstrap:
        site = ConsoleSite(bootstrap)
        async with site.open() as address:
            await prepare(site, artifacts, files)
            working = [asyncio.create_task(answer(site, artifacts[0])), asyncio.create_task(ask(site))]
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=["--no-sandbox"]
                )
                shown = await open_page(browser, address, "all's token")
                await asyncio.sleep(seconds)
                for scheme in ("light", "dark"):
                    for size, (width, height) in SIZES.items():
                        page = await open_page(
                            browser,
                            address,
                            "all's token",
                            color_scheme=scheme,
                            viewport={"width": width, "height": height},
                        )
                        for one in pages:
                            await visit(page, address, one)
                            # The page as high as it is, once it is laid out.
                            await page.screenshot(
                                path=out / f"console-{one}-{scheme}-{size}.png", full_page=size == "narrow"
                            )
                        await page.context.close()
                await shown.context.close()
                await browser.close()
            for task in working:
                task.cancel()
            await asyncio.wait(working)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2].split(","), float(sys.argv[3]), sys.argv[4:]))
