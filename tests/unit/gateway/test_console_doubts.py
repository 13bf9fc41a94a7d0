"""When suspected errors are looked for, and what becomes of a search that fails."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from headrace.gateway.console import doubts
from headrace.gateway.console.doubts import FRESH_S, Doubts, SearchError, in_child
from headrace.learning.doubting import Asked, Found, Labelled, Outcome
from tests.support.waiting import until
from tests.unit.gateway.test_console_access import HandClock

FIRST = [Labelled(text="a", label="x", id="1"), Labelled(text="b", label="y", id="2")]
SECOND = [*FIRST, Labelled(text="c", label="y", id="3")]


class Searches:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answer: asyncio.Queue[Outcome | Exception] = asyncio.Queue()

    async def __call__(self, asked: bytes) -> bytes:
        self.asked.append(msgspec.json.decode(asked, type=Asked))
        given = await self.answer.get()
        if isinstance(given, Exception):
            raise given
        return msgspec.json.encode(given)


async def ended(searching: Doubts) -> None:
    await until(lambda: searching.running_s is None)


async def test_one_search_runs_at_a_time_and_the_next_one_only_when_labels_changed_and_time_went_by() -> None:
    clock, searches = HandClock(), Searches()
    searching = Doubts(clock, searches)
    searching.look(FIRST)
    searching.look(SECOND)
    assert searching.running_s == 0
    searches.answer.put_nowait(Outcome(Found(suspects=[], rows=2, dropped="", alone=0)))
    await ended(searching)
    assert searching.found is not None
    searching.look(SECOND)
    assert searching.running_s is None
    clock.at_s += FRESH_S
    searching.look(FIRST)
    assert searching.running_s is None
    searching.look(SECOND)
    assert searching.running_s == 0
    # What was found before stays until then.
    assert searching.found.rows == 2
    searches.answer.put_nowait(SearchError("it broke"))
    await ended(searching)
    assert (searching.found, searching.error) == (None, "it broke")
    assert [len(one.labels) for one in searches.asked] == [2, 3]


async def test_only_the_last_labels_are_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubts, "MOST_LABELS", 2)
    searches = Searches()
    searching = Doubts(HandClock(), searches)
    rows = [Labelled(text=str(at), label="x", id=str(at), labelled_at_ms=at) for at in (5, 1, 3)]
    searching.look(rows)
    searches.answer.put_nowait(Outcome(error="no two labels"))
    await ended(searching)
    assert [one.id for one in searches.asked[0].labels] == ["3", "5"]
    assert searching.error == "no two labels"


async def test_a_search_ends_with_the_console() -> None:
    searching = Doubts(HandClock(), Searches())
    searching.look(FIRST)
    await searching.stop()
    assert searching.running_s is None


async def test_a_process_finds_what_the_command_finds_and_its_id() -> None:
    wrong = "please refund the money of order 7, please refund the money of order 8"
    rows = [(f"where is my card number {number}", "card") for number in range(25)]
    rows += [(f"please refund the money of order {number}", "refund") for number in range(25)]
    labels = [Labelled(text=text, label=label, id=str(place)) for place, (text, label) in enumerate(rows)]
    asked = Asked([*labels, Labelled(text=wrong, label="card", id="odd")], 5)
    outcome = msgspec.json.decode(await in_child(msgspec.json.encode(asked)), type=Outcome)
    assert outcome.error is None
    assert outcome.found is not None
    assert [(one.replaces, one.given, one.answered) for one in outcome.found.suspects] == [("odd", "card", "refund")]


async def test_a_process_that_breaks_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubts, "PROGRAM", ("-c", "raise SystemExit(3)"))
    with pytest.raises(SearchError, match="exit code 3"):
        await in_child(b"{}")


async def test_a_process_is_given_no_setting_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA__SASL_PASSWORD", "secret")
    monkeypatch.setattr(doubts, "PROGRAM", ("-c", "import os; print(sorted(n for n in os.environ if 'HEADRACE' in n))"))
    assert await in_child(b"{}") == b"[]\n"


async def test_a_process_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doubts, "PROGRAM", ("-c", "import time; time.sleep(600)"))
    monkeypatch.setattr(doubts, "LIMIT_S", 0.1)
    with pytest.raises(SearchError, match="took longer"):
        await in_child(b"{}")
