"""Pictures of every page, light and dark, narrow and wide: ``python -m tests.browser.screenshots OUT PAGES SECONDS``.

``PAGES`` are named with commas. A broker, a stand-in for the worker, and the console run in this process; figures are
watched for ``SECONDS`` before the first picture.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.async_api import async_playwright

from headrace.client.labels import Labelled, publish_labels
from headrace.core.clock import SystemClock
from headrace.core.spending import day_of
from headrace.kafka.brokers import embedded_broker
from headrace.kafka.interface import Outgoing, connected
from headrace.model.artifact import Artifact, save
from headrace.model.places import as_told
from headrace.registry.compacted_topics import KeysWriter, UsageWriter
from headrace.registry.versions import version_record
from headrace.security.api_keys import KeyRole, make_key, revoked
from headrace_schemas.records import Check, ModelAlias, Profile, Usage, Verdict
from tests.browser.conftest import open_page
from tests.support.console_site import PARTITIONS, ConsoleSite
from tests.support.desk_texts import MIXED, desk_artifact, desk_texts
from tests.support.desk_worker import answer

SIZES = {"wide": (1280, 860), "narrow": (360, 740)}
NOW_MS = 1_795_960_000_000
METRICS = {
    400: {"test_macro_f1": 0.9412, "test_accuracy": 0.9433, "test_calibration_error": 0.0214, "test_rows": 212.0},
    30: {"test_macro_f1": 0.8127, "test_accuracy": 0.8302, "test_calibration_error": 0.0671, "test_rows": 212.0},
}


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
    name, now_ms = site.settings.worker.model_name, NOW_MS
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


def curve_of(size: int) -> dict[str, object]:
    """Sizes as compression tries them, of which one of ``size`` bytes was taken."""
    sizes = [size * factor // 10 for factor in (45, 30, 22, 16, 13, 10, 8, 6, 5, 4)]
    points = [
        {
            "tuning": "wide" if place % 2 else "none",
            "score": {
                "macro_f1": 0.946 - 0.004 * 2.0 ** (place - 6) - 0.002 * (place % 2),
                "size": one,
                "latency_us": 2 + one / size,
            },
            "within": place < 6,
        }
        for place, one in enumerate(sizes)
    ]
    original = {"macro_f1": 0.946, "size": 9 * size, "latency_us": None}
    return {"budget": {"points": 0.5}, "original": original, "chosen": points[5], "points": points}


async def prepare_labels(site: ConsoleSite) -> None:
    """Labels of two people, which say by which answers their texts were chosen."""
    texts = list(desk_texts(200, 11))
    queues = [("margin", 17, 40), ("random-slice", 3, 40), ("abstained", 9, 21)]
    labels = []
    for source, wrong, count in queues:
        for number in range(count):
            text, label = texts[len(labels)]
            guessed = "another" if number < wrong else label
            by, at_ms = ("ana", "ben")[number % 2], NOW_MS + 60_000 * len(labels)
            labels.append(Labelled(f"{source}-{number}", text, label, source, at_ms, by, guessed, "v1"))
    await publish_labels(site.cluster, site.names.labels, labels=labels)


async def prepare_keys(site: ConsoleSite) -> None:
    """API keys, and what was asked with them."""
    keys = [
        make_key({role}, now_ms=NOW_MS + number, note=note, tenant=tenant, texts_per_second=rate, by=by)[1]
        for number, (role, note, tenant, rate, by) in enumerate(
            (
                (KeyRole.OPERATOR, "olga", None, None, None),
                (KeyRole.LABELLER, "ana", None, None, "olga"),
                (KeyRole.CLIENT, "the web shop", "shop", 100.0, "olga"),
                (KeyRole.CLIENT, "nightly batch", "shop", 2000.0, "olga"),
                (KeyRole.CLIENT, "the old app", "app", None, None),
            )
        )
    ]
    keys[-1] = revoked(keys[-1], now_ms=NOW_MS + 86_400_000, by="olga")
    today = day_of(SystemClock().now_ms())
    used = [
        Usage(
            api_key=key.id,
            day=today,
            process="a",
            calls=calls,
            texts=texts,
            text_bytes=61 * texts,
            written_at_ms=0,
            tenant=key.tenant,
        )
        for key, (calls, texts) in zip(keys[2:], ((18_212, 18_212), (412, 105_472), (3, 3)), strict=True)
    ]
    async with connected(site.cluster.producer()) as producer:
        await KeysWriter(producer, site.names.keys).publish(keys)
        await UsageWriter(producer, site.names.usage).publish(used)


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
    if one == "versions":
        await page.get_by_text("sizes").first.wait_for()
        await page.get_by_label("Compare").select_option(index=1)
        await page.get_by_role("button", name="Compare on the last requests").click()
        await page.get_by_role("heading", name="Examples").wait_for()
    if one == "label":
        await page.locator(".choices button").first.wait_for()
        for _ in range(3):
            before = await page.locator("#text").text_content()
            await page.keyboard.press("1")
            await page.wait_for_function(
                "before => document.querySelector('#text')?.textContent !== before", arg=before
            )
    await page.evaluate("window.scrollTo(0, 0)")
    await asyncio.sleep(2.5)


def write(artifacts: list[Artifact], files: list[str]) -> None:
    """Artifacts, with the curves of their compression beside them."""
    for artifact, file in zip(artifacts, files, strict=True):
        save(artifact, file)
        Path(f"{file}.curve.json").write_text(json.dumps(curve_of(artifact.size)))


async def main(out: Path, pages: list[str], seconds: float, folder: Path) -> None:
    artifacts = [
        desk_artifact(
            rows,
            created_at_ms=NOW_MS + rows,
            metrics=METRICS[rows],
            threshold=0.4,
            profile=Profile((0.22, 0.2, 0.2, 0.18, 0.2), (0, 0, 0, 0.01, 0.02, 0.02, 0.02, 0.03, 0.05, 0.85)),
        )
        for rows in (400, 30)
    ]
    files = [str(folder / f"{artifact.version}.safetensors") for artifact in artifacts]
    write(artifacts, files)
    async with embedded_broker() as bootstrap:
        site = ConsoleSite(bootstrap, folder)
        async with site.open() as address:
            await prepare(site, artifacts, files)
            await prepare_keys(site)
            await prepare_labels(site)
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
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(sys.argv[1]), sys.argv[2].split(","), float(sys.argv[3]), Path(scratch)))
