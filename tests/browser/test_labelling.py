"""Labelling by keyboard, by several people, and what then lies on the log."""

import msgspec
import pytest

from headrace.client.labels import Labelled, publish_labels, text_ids
from headrace.files.annotations import Doubted
from headrace_schemas.records import Review
from tests.browser.conftest import grave_faults, open_page
from tests.support.console_site import ConsoleSite

pytestmark = pytest.mark.asyncio(loop_scope="session")

WORDS = (
    "lost",
    "stolen",
    "broken",
    "late",
    "blocked",
    "damaged",
    "expired",
    "swallowed",
    "bent",
    "copied",
    "green",
    "old",
)
HOSTILE = "maybe <script>document.title='owned'</script> \u202eevil\u2066 \x1b[31m"


def texts_of(count: int, kind: str = "maybe") -> list[str]:
    return [f"{word} {kind}, number {number} is about {word[::-1]}" for number, word in enumerate(WORDS[:count])]


async def shown(page) -> str:
    return await page.locator("#text .stranger").text_content()


async def changes(page, before: str) -> None:
    await page.wait_for_function(
        "before => document.querySelector('#text')?.textContent !== before"
        " && !document.querySelector('[aria-busy=true]')",
        arg=before,
    )


async def begin(browser, site: ConsoleSite, who: str):
    page = await open_page(browser, f"{site.address}#/label", f"{who}'s token")
    await page.locator("#text .stranger").wait_for()
    return page


async def test_ten_texts_are_labelled_by_keyboard_and_lie_on_the_log(browser, site: ConsoleSite) -> None:
    await site.versions("v1")
    await site.answer(texts_of(12))
    page = await begin(browser, site, "ana")
    assert await grave_faults(page) == []
    given: dict[str, str] = {}
    for number in range(10):
        text = await shown(page)
        given[text] = ("card", "refund")[number % 2]
        await page.keyboard.press("12"[number % 2])
        await changes(page, text)
    found = await site.labels()
    assert {one.text: one.label for one in found.values()} == given
    assert {(one.source, one.by) for one in found.values()} == {("margin", "ana")}
    assert {(one.guessed, one.version) for one in found.values()} == {("card", "v1")}
    assert set(found) == set(text_ids(list(given)))
    assert all(one.labelled_at_ms for one in found.values())

    # Skipped texts don't come again, and the last label is taken back.
    skipped = await shown(page)
    await page.keyboard.press("Space")
    await changes(page, skipped)
    last = await shown(page)
    await page.keyboard.press("1")
    await page.get_by_text("Nothing is left here for you").wait_for()
    await page.keyboard.press("u")
    await page.locator("#text .stranger").wait_for()
    assert await shown(page) == last
    assert (await site.labels())[text_ids([last])[0]] is None
    assert page.said == []


async def test_two_people_at_one_queue_get_different_texts(browser, site: ConsoleSite) -> None:
    await site.versions("v1")
    await site.answer(texts_of(6))
    ana, ben = await begin(browser, site, "ana"), await begin(browser, site, "ben")
    seen = []
    for _ in range(3):
        for page in (ana, ben):
            seen.append(await shown(page))
            await page.keyboard.press("1")
        for page, text in zip((ana, ben), seen[-2:], strict=True):
            await page.wait_for_function(
                "before => !document.querySelector('#text').textContent.includes(before)", arg=text
            )
    assert sorted(seen) == sorted(texts_of(6))
    by = [one.by for one in (await site.labels()).values()]
    assert sorted(by) == ["ana"] * 3 + ["ben"] * 3

    # What one said is asked of the other without being shown, and both labels count.
    await ben.get_by_role("button", name="Second opinion").click()
    await ben.locator("#text .stranger").wait_for()
    theirs = await shown(ben)
    assert theirs in seen[::2]
    await ben.keyboard.press("2")
    await changes(ben, theirs)
    assert sorted((one.by, one.label) for one in (await site.labels()).values() if one.text == theirs) == [
        ("ana", "card"),
        ("ben", "refund"),
    ]
    await ben.reload()
    await ben.get_by_role("row", name="ana, ben 1 0 %").wait_for()


async def test_near_duplicates_are_labelled_in_one_go_and_who_waits_gets_reviews(browser, site: ConsoleSite) -> None:
    await site.versions("v1")
    alike = [f"unclear: my new card number {number} has still not arrived in the post" for number in range(3)]
    await site.answer([*alike, "unclear: something else entirely happened to me"])
    page = await begin(browser, site, "ana")
    await page.get_by_role("button", name="No label").click()
    await page.get_by_text("answered without a label: the best score").wait_for()
    while "something else" in await shown(page):
        await page.keyboard.press("Space")
        await page.wait_for_function("() => !document.querySelector('#text').textContent.includes('something else')")
    # One of them is left out by hand.
    await page.get_by_role("checkbox").first.uncheck()
    before = await shown(page)
    await page.keyboard.press("Shift+Digit2")
    await changes(page, before)
    labels = [one for one in (await site.labels()).values() if one is not None]
    assert [(one.label, one.source) for one in labels] == [("refund", "abstained")] * 2
    reviews = [msgspec.json.decode(value, type=Review) for value in await site.values(site.names.reviews)]
    assert [(one.label, one.origin, one.by, one.results) for one in reviews] == [
        ("refund", "person", "ana", site.names.results)
    ] * 2
    # Undoing takes back both: a record without a value under each key.
    await page.keyboard.press("u")
    await page.get_by_text("The last label was undone").wait_for()
    assert (await site.values(site.names.reviews))[2:] == [None, None]
    assert [one for one in (await site.labels()).values() if one is not None] == []


async def test_a_hostile_text_is_text_and_a_new_label_may_be_made(browser, site: ConsoleSite) -> None:
    await site.versions("v1")
    await site.answer([HOSTILE])
    page = await begin(browser, site, "ana")
    said = "maybe <script>document.title='owned'</script> U+202EevilU+2066 U+001B[31m"
    assert await shown(page) == said
    assert await page.locator("main script").count() == 0
    await page.keyboard.press("/")
    await page.keyboard.type("<b>fraud</b>")
    await page.get_by_role("button", name="Add the label").click()
    await page.get_by_role("cell", name="<b>fraud</b>").first.wait_for()
    assert [one.label for one in (await site.labels()).values()] == ["<b>fraud</b>"]
    assert await page.title() == "Label · headrace"
    assert page.said == []


async def test_a_doubted_label_is_corrected_under_its_id_and_undoing_puts_the_old_one_back(
    browser, site: ConsoleSite
) -> None:
    await site.versions("v1")
    wrong = "please refund the money of order 7, please refund the money of order 8"
    doubted = Labelled("doubted", wrong, "card", "random-slice", 17, "ben")
    await publish_labels(site.cluster, site.names.labels, labels=[doubted])
    site.suspects = [
        Doubted(
            text=wrong,
            given="card",
            answered="refund",
            given_score=0.03,
            score=0.97,
            joint=0.1,
            why="",
            version="out-of-fold",
            source="random-slice",
            labelled_at_ms=17,
            replaces="doubted",
        )
    ]
    site.may_search.clear()
    page = await open_page(browser, f"{site.address}#/label", "ana's token")
    await page.get_by_role("button", name="Suspected errors").click()
    await page.get_by_text("Looking for labels that are probably wrong").wait_for()
    site.may_search.set()
    await page.get_by_text("given card").wait_for()
    assert await shown(page) == wrong
    assert await grave_faults(page) == []
    await page.keyboard.press("2")
    await page.get_by_text("Nothing is left here for you").or_(page.get_by_text("is doubted, or")).wait_for()
    now = (await site.labels())["doubted"]
    assert now is not None
    # A label of the random slice stays one, with its time.
    assert (now.text, now.label, now.source, now.labelled_at_ms, now.by) == (wrong, "refund", "random-slice", 17, "ana")
    await page.keyboard.press("u")
    await page.locator("#text .stranger").wait_for()
    now = (await site.labels())["doubted"]
    assert now is not None
    assert (now.label, now.labelled_at_ms, now.by) == ("card", 17, "ben")
    assert page.said == []


async def test_the_page_says_how_much_more_often_a_queue_corrects_the_model_than_chance(
    browser, site: ConsoleSite
) -> None:
    await site.versions("v1")
    labels = [
        Labelled(
            f"{source}-{number}",
            f"text {number} of {source}",
            "refund" if number < wrong else "card",
            source,
            17,
            "ben",
            "card",
            "v1",
        )
        for source, wrong in (("margin", 17), ("random-slice", 3), ("abstained", 2))
        for number in range(40)
    ]
    await publish_labels(site.cluster, site.names.labels, labels=labels)
    page = await open_page(browser, f"{site.address}#/label", "ana's token")
    await page.get_by_text("corrects the model 5.7 times as often as one by chance (95 %: 1.8 to 18)").wait_for()
    await page.get_by_text("find its 17 errors by chance takes about 227 labels instead of 40").wait_for()
    await page.get_by_role("row", name="Unsure 17 of 40 3 of 40").wait_for()
    await page.get_by_text("No label: too few to say").wait_for()
    assert await grave_faults(page) == []
    assert page.said == []


async def test_a_label_that_could_not_be_sent_is_said_and_given_again_once(browser, site: ConsoleSite) -> None:
    await site.versions("v1")
    await site.answer(texts_of(3))
    page = await begin(browser, site, "ana")
    text = await shown(page)
    await page.context.set_offline(True)
    await page.keyboard.press("1")
    await page.get_by_role("alert").get_by_text("The console can't be reached").wait_for()
    assert await shown(page) == text
    assert await site.labels() == {}
    await page.context.set_offline(False)
    await page.keyboard.press("1")
    await changes(page, text)
    assert [(one.text, one.label) for one in (await site.labels()).values()] == [(text, "card")]
    assert await page.get_by_text("can't be reached").count() == 0
    assert page.said == []
