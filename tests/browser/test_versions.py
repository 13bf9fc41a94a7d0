"""What a version says of a text, and what operators do with versions."""

import asyncio
import json
from pathlib import Path

import pytest
import pytest_asyncio

from headrace.client.labels import Labelled, publish_labels
from headrace.core.cascade import RANDOM_SLICE
from headrace.registry.compacted_topics import alias_moves
from headrace_schemas.codec import decode_models_record
from headrace_schemas.records import Certificate, TrainingOrder
from tests.browser.conftest import grave_faults, open_page
from tests.support.console_site import ConsoleSite
from tests.support.desk_texts import desk_texts
from tests.support.desk_worker import answer

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def stored(embedded_bootstrap: str, tmp_path: Path):
    """A console with two versions that can be opened."""
    site = ConsoleSite(embedded_bootstrap, tmp_path)
    async with site.open() as address:
        site.address, site.folder = address, tmp_path
        site.artifacts = await site.real_versions(tmp_path, 60, 20)
        yield site


POINT = {
    "plan": {},
    "tuning": "wide",
    "score": {"macro_f1": 0.93, "cross_entropy": 0.2, "size": 200_000},
    "within": True,
}
CURVE = {
    "budget": {"points": 0.5, "coarse": False},
    "original": {"macro_f1": 0.94, "cross_entropy": 0.2, "size": 1_000_000, "latency_us": None},
    "chosen": POINT,
    "points": [POINT, {**POINT, "within": False, "score": {"macro_f1": 0.8, "size": 90_000, "latency_us": 7.5}}],
}


def remove_artifacts(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.unlink()


async def test_a_text_is_tried_with_its_words_coloured_and_the_challenger_beside(browser, stored: ConsoleSite) -> None:
    working = asyncio.create_task(answer(stored, stored.artifacts[0]))
    page = await open_page(browser, f"{stored.address}#/try", "cid's token")
    await page.get_by_label("Text", exact=True).fill("<b>refund</b> for the parcel \U0001f4e6 please")
    await page.get_by_role("button", name="Ask").click()
    for title, artifact in zip(("Answered by the workers", "The challenger would say"), stored.artifacts, strict=True):
        panel = page.locator("section", has=page.get_by_role("heading", name=title))
        await panel.get_by_text(artifact.version).wait_for()
        assert await panel.locator(".answer .stranger").text_content() == "refund"
        # The words stand where they are in the text, behind a character of two code units too.
        assert await panel.locator(".words").text_content() == "<b>refund</b> for the parcel \U0001f4e6 please"
        assert "parcel" in await panel.locator(".words mark.for").all_text_contents()
    assert await page.locator("main b").count() == 0
    assert await grave_faults(page) == []
    assert page.said == []
    working.cancel()
    await asyncio.wait([working])


async def test_an_operator_rolls_back_and_the_alias_moves_with_a_name_and_reason(browser, stored: ConsoleSite) -> None:
    first, last = (artifact.version for artifact in stored.artifacts)
    page = await open_page(browser, f"{stored.address}#/versions", "olga's token")
    other = await open_page(browser, f"{stored.address}#/versions", "all's token")
    for one in (page, other):
        await one.get_by_role("heading", name="All versions").wait_for()
    assert await grave_faults(page) == []
    await page.get_by_role("button", name="Roll back champion").click()
    await page.get_by_label("Reason").fill("refunds got worse")
    await page.get_by_role("button", name="Roll back", exact=True).click()
    await page.get_by_text(f"champion points at {last} again").wait_for()
    await page.get_by_role("row", name=f"champion {last} olga refunds got worse").wait_for()
    moved = (await alias_moves(stored.cluster, stored.names.models, "default"))[-1].alias
    assert (moved.alias, moved.version, moved.previous, moved.by, moved.reason) == (
        "champion",
        last,
        first,
        "olga",
        "refunds got worse",
    )
    # Who still sees the alias where it was does not move it.
    await other.get_by_role("button", name="Roll back champion").click()
    await other.get_by_label("Reason").fill("me too")
    await other.get_by_role("button", name="Roll back", exact=True).click()
    await other.get_by_text("Nothing was moved: champion points at").wait_for()
    assert len(await alias_moves(stored.cluster, stored.names.models, "default")) == 3


async def test_an_operator_pins_promotes_and_orders_a_training(browser, stored: ConsoleSite) -> None:
    last = stored.artifacts[1].version
    page = await open_page(browser, f"{stored.address}#/versions", "olga's token")

    async def confirm(opens: str, verb: str) -> None:
        await page.get_by_role("button", name=opens).first.click()
        await page.get_by_label("Reason").fill("as agreed")
        assert await grave_faults(page) == []
        await page.get_by_role("dialog").get_by_role("button", name=verb).click()
        await page.get_by_role("dialog").wait_for(state="hidden")

    await confirm("Pin champion", "Pin")
    await confirm("Promote", "Promote")
    await page.get_by_text(f"champion points at {last}").wait_for()
    await confirm("Train now", "Train")
    moved = (await alias_moves(stored.cluster, stored.names.models, "default"))[-1].alias
    assert (moved.version, moved.pinned, moved.by) == (last, True, "olga")
    records = [decode_models_record(value) for value in await stored.values(stored.names.models)]
    orders = [(one.reason, one.by) for one in records if isinstance(one, TrainingOrder)]
    assert orders == [("as agreed", "olga")]
    assert page.said == []


async def test_who_is_no_operator_is_offered_no_move_and_a_file_that_is_gone_moves_nothing(
    browser, stored: ConsoleSite
) -> None:
    page = await open_page(browser, f"{stored.address}#/versions", "cid's token")
    await page.get_by_role("heading", name="All versions").wait_for()
    for name in ("Promote", "Roll back champion", "Train now", "Pin champion"):
        assert await page.get_by_role("button", name=name).count() == 0
    remove_artifacts(Path(stored.settings.trainer.store))
    page = await open_page(browser, f"{stored.address}#/versions", "olga's token")
    await page.get_by_role("button", name="Roll back champion").click()
    await page.get_by_label("Reason").fill("x")
    await page.get_by_role("button", name="Roll back", exact=True).click()
    await page.get_by_text("Nothing was moved").wait_for()
    assert len(await alias_moves(stored.cluster, stored.names.models, "default")) == 2


async def test_an_operator_sees_what_a_threshold_would_be_and_certifies_it(browser, stored: ConsoleSite) -> None:
    version = stored.artifacts[0].version
    texts = [(f"{text} case {number}", label) for number, (text, label) in enumerate(desk_texts(600, 9))]
    at_ms = 1_770_000_000_000
    others = [Labelled(f"o{place}", text, label) for place, (text, label) in enumerate(texts[500:])]
    chosen = [
        Labelled(f"r{place}", text, label, RANDOM_SLICE, at_ms) for place, (text, label) in enumerate(texts[:500])
    ]
    await publish_labels(stored.cluster, stored.names.labels, labels=[*others, *chosen])
    page = await open_page(browser, f"{stored.address}#/versions", "olga's token")
    allowed = page.get_by_label("Certify: % of answers that may be wrong")
    await allowed.fill("0.01")
    await page.get_by_role("button", name="Try", exact=True).click()
    await page.get_by_role("alert").get_by_text(f"{version} is not certified").wait_for()
    await allowed.fill("20")
    await page.get_by_role("button", name="Try", exact=True).click()
    await page.get_by_text("of its answers are wrong (95 % sure)").wait_for()
    records = [decode_models_record(value) for value in await stored.values(stored.names.models)]
    assert not [one for one in records if isinstance(one, Certificate)]
    await page.get_by_role("button", name="Certify", exact=True).click()
    await page.get_by_text(f"{version} is certified").wait_for()
    records = [decode_models_record(value) for value in await stored.values(stored.names.models)]
    (certificate,) = [one for one in records if isinstance(one, Certificate)]
    assert (certificate.version, certificate.disagree, certificate.by) == (version, 0.2, "olga")
    assert page.said == []


async def test_two_versions_are_compared_on_the_last_requests_by_whom_texts_may_be_shown(
    browser, stored: ConsoleSite
) -> None:
    first, last = (artifact.version for artifact in stored.artifacts)
    texts = [f"{text} <b>case</b> {number}" for number, (text, _) in enumerate(desk_texts(60, 5))]
    await stored.ask([*texts, "\xff"])
    (stored.folder / f"{first}.safetensors.curve.json").write_text(json.dumps(CURVE))
    page = await open_page(browser, f"{stored.address}#/versions", "ana's token")
    await page.get_by_text("Of 2 sizes 200.0 kB was taken, 5.0 times smaller than 1.0 MB before").wait_for()
    await page.get_by_label(f"Compare {first} with").select_option(last)
    await page.get_by_role("button", name="Compare on the last requests").click()
    await page.get_by_text("Of 61 texts").wait_for()
    await page.get_by_role("heading", name="Examples").wait_for()
    assert await page.get_by_role("cell", name="<b>case</b>").count() > 0
    assert await page.locator("main td b").count() == 0
    assert await grave_faults(page) == []
    assert page.said == []
    # Who may only ask sees no text of others.
    page = await open_page(browser, f"{stored.address}#/versions", "cid's token")
    await page.get_by_label(f"Compare {first} with").select_option(last)
    await page.get_by_role("heading", name="Compared").wait_for()
    assert await page.get_by_role("button", name="Compare on the last requests").count() == 0
