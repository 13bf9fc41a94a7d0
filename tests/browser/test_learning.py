"""What people label by keyboard is in the next version that the real trainer makes."""

import asyncio
import os
from pathlib import Path

import msgspec
import pytest

from headrace.client.labels import Labelled, publish_labels
from headrace.demo.setup import child_environment
from headrace.demo.versions import trainer
from headrace.learning.evaluate import answer_scored
from headrace.model.backends.interface import open_backend
from headrace.registry.versions import load_version
from headrace.trainer.settings import GateSettings
from headrace_schemas.codec import decode_models_record
from headrace_schemas.records import ModelVersion
from tests.browser.conftest import open_page
from tests.browser.test_labelling import changes, shown
from tests.support.console_site import ConsoleSite

# Two trainings of a process that imports torch.
pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

LIMIT_S = 240.0
CARDS = [f"where is my card number {number}" for number in range(40)]
MONEY = [f"please refund the money of order {number}" for number in range(40)]
NEW = [f"maybe the zebra of cage {number} escaped again" for number in range(10)]


async def test_ten_texts_labelled_by_keyboard_are_learnt_by_the_next_version(
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

    async def versions() -> list[ModelVersion]:
        records = [decode_models_record(value) for value in await site.values(site.names.models)]
        return [one for one in records if isinstance(one, ModelVersion)]

    async with site.open() as address:
        await publish_labels(site.cluster, site.names.labels, labels=rows)
        environ = child_environment(os.environ, settings.kafka, tmp_path)
        async with trainer(settings, environ=environ, folder=tmp_path) as running:

            async def made(count: int) -> list[ModelVersion]:
                for _ in range(int(LIMIT_S)):
                    running.check()
                    if len(found := await versions()) >= count:
                        return found
                    await asyncio.sleep(1)
                raise running.error("There was no version in time.")

            first = (await made(1))[0]
            assert first.labels == ("card", "refund")
            await site.answer(NEW, version=first.version)
            page = await open_page(browser, f"{address}#/label", "all's token")
            await page.locator("#text .stranger").wait_for()
            # The first one makes the label; it has the last key from then on.
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
            second = (await made(2))[1]
            await page.goto(f"{address}#/versions")
            await page.get_by_role("button", name=second.version).wait_for()
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
