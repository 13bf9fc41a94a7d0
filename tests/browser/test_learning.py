"""What people label by keyboard is in the next version of a real trainer, and real workers follow a rollback."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from headrace.client.labels import Labelled, publish_labels
from headrace.demo.setup import child_environment, workers
from headrace.demo.versions import trainer
from headrace.learning.evaluate import answer_scored
from headrace.model.backends.interface import open_backend
from headrace.process.children import Child
from headrace.registry.versions import load_version
from headrace.trainer.settings import GateSettings
from headrace_schemas.codec import decode_models_record
from headrace_schemas.records import ModelAlias, ModelsRecord, ModelVersion
from tests.browser.conftest import open_page
from tests.browser.test_labelling import changes, shown
from tests.support.console_site import ConsoleSite

# Two trainings of a process that imports torch.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

LIMIT_S = 240
CARDS = [f"where is my card number {number}" for number in range(40)]
MONEY = [f"please refund the money of order {number}" for number in range(40)]
NEW = [f"maybe the zebra of cage {number} escaped again" for number in range(10)]


async def records_of(site: ConsoleSite) -> list[ModelsRecord | None]:
    return [decode_models_record(value) for value in await site.values(site.names.models)]


async def versions(site: ConsoleSite) -> list[ModelVersion]:
    return [one for one in await records_of(site) if isinstance(one, ModelVersion)]


async def champion(site: ConsoleSite) -> str | None:
    moves = [one for one in await records_of(site) if isinstance(one, ModelAlias) and one.alias == "champion"]
    return moves[-1].version if moves else None


async def made(site: ConsoleSite, running: Child, count: int) -> list[ModelVersion]:
    """The versions, as soon as there are ``count``."""
    for _ in range(LIMIT_S):
        running.check()
        if len(found := await versions(site)) >= count:
            return found
        await asyncio.sleep(1)
    raise running.error("There was no version in time.")


async def label_all(page) -> None:
    """Label the ten texts; the first one makes the label, which has the last key from then on."""
    await page.locator("#text .stranger").wait_for()
    text = await shown(page)
    await page.keyboard.press("/")
    await page.keyboard.type("zebra")
    await page.get_by_role("button", name="Add the label").click()
    await changes(page, text)
    await page.get_by_role("group", name="Labels").get_by_role("button", name="zebra").wait_for()
    for _ in range(9):
        text = await shown(page)
        await page.keyboard.press("3")
        await changes(page, text)


async def answers_with(page, address: str, version: str) -> None:
    """What the page Try is answered, as soon as workers have followed the alias."""
    await page.goto(f"{address}#/try")
    await page.get_by_label("Text", exact=True).fill(NEW[0])
    panel = page.locator("section", has=page.get_by_role("heading", name="Answered by the workers"))
    for _ in range(60):
        await page.get_by_role("button", name="Ask").click()
        await page.get_by_role("button", name="Ask", disabled=False).wait_for()
        if await panel.get_by_text(version).count():
            return
    raise AssertionError(f"Nothing was answered by {version}.")


async def confirm(page, address: str, opens: str, verb: str) -> None:
    await page.goto(f"{address}#/versions")
    await page.get_by_role("button", name=opens).first.click()
    await page.get_by_label("Reason").fill("to see it")
    await page.get_by_role("dialog").get_by_role("button", name=verb).click()
    await page.get_by_role("dialog").wait_for(state="hidden")


async def test_ten_texts_labelled_by_keyboard_are_in_the_next_version_and_a_rollback_changes_the_stream(
    browser, embedded_bootstrap: str, tmp_path: Path
) -> None:
    site = ConsoleSite(embedded_bootstrap, tmp_path / "store")
    learning = msgspec.structs.replace(
        site.settings.trainer,
        least_rows=50,
        new_labels=10,
        growth=1e6,
        drift=1e6,
        settle=0.5,
        epochs=3,
        budget_points=0,
        max_tokens=16,
    )
    settings = msgspec.structs.replace(site.settings, trainer=learning, gate=GateSettings(replay=0))
    rows = [Labelled(f"c{place}", text, "card") for place, text in enumerate(CARDS)]
    rows += [Labelled(f"m{place}", text, "refund") for place, text in enumerate(MONEY)]

    async with site.open() as address:
        await publish_labels(site.cluster, site.names.labels, labels=rows)
        environ = child_environment(os.environ, settings.kafka, tmp_path)
        async with trainer(settings, environ=environ, folder=tmp_path) as running:
            first = (await made(site, running, 1))[0]
            assert first.labels == ("card", "refund")
            await site.answer(NEW, version=first.version)
            page = await open_page(browser, f"{address}#/label", "all's token")
            await label_all(page)
            second = (await made(site, running, 2))[1]
            await page.goto(f"{address}#/versions")
            await page.get_by_role("button", name=second.version, exact=True).wait_for()

            async with workers(settings, 1, environ=environ, folder=tmp_path):
                # The gate may have let it through already.
                if (await champion(site)) != second.version:
                    await confirm(page, address, "Promote", "Promote")
                await answers_with(page, address, second.version)
                await confirm(page, address, "Roll back champion", "Roll back")
                await answers_with(page, address, first.version)
            assert page.said == []
    assert second.labels == ("card", "refund", "zebra")
    assert second.lineage is not None
    assert first.lineage is not None
    asked = ["the zebra of cage 77 escaped again"]
    answers = {
        one.version: answer_scored(open_backend("cpu", load_version(one, (), settings.places())), asked).labels[0]
        for one in (first, second)
    }
    assert answers == {first.version: answers[first.version], second.version: "zebra"}
