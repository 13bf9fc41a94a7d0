"""Leases of texts: nobody labels what somebody else looks at, and nothing is lost when they walk away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.console.desk import LEASE_S, Desk, Item


class HandClock:
    at_s = 0.0

    def now_ms(self) -> int:
        return int(self.at_s * 1000)

    def monotonic(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing waits here")


def item(name: str) -> Item:
    return Item(key=name.encode(), at=name, text=f"text {name}", id=name, why="", source=None)


def desk_of(names: str, clock: HandClock | None = None) -> Desk:
    desk = Desk(clock or HandClock())
    desk.fill("q", [item(name) for name in names])
    return desk


def test_who_has_a_text_gets_it_again_and_others_get_the_next() -> None:
    desk = desk_of("abc")
    assert [desk.take("q", who).at for who in ("ana", "ana", "ben", "ana")] == ["a", "a", "b", "a"]
    assert desk.left("q", "ben") == 2


def test_a_text_that_was_left_lying_comes_to_others() -> None:
    clock = HandClock()
    desk = desk_of("a", clock)
    desk.take("q", "ana")
    assert desk.take("q", "ben") is None
    clock.at_s = LEASE_S
    assert desk.take("q", "ben").at == "a"
    assert not desk.free_for(item("a"), "ana")


def test_what_one_skips_others_get_and_what_has_a_label_nobody() -> None:
    desk = desk_of("ab")
    desk.skip(desk.take("q", "ana"), "ana")
    assert desk.take("q", "ana").at == "b"
    assert desk.take("q", "ben").at == "a"
    desk.finish([item("a")])
    assert desk.take("q", "ben") is None
    # Nor does it come back with what is read anew, as the label may not be seen yet.
    desk.fill("q", [item("a"), item("c")])
    assert desk.take("q", "ben").at == "c"


def test_a_text_is_leased_in_all_queues_at_once() -> None:
    desk = desk_of("a")
    desk.fill("other", [item("a"), item("b")])
    desk.take("q", "ana")
    assert desk.take("other", "ben").at == "b"


def test_what_was_undone_is_looked_at_again_first() -> None:
    desk = desk_of("abc")
    first = desk.take("q", "ana")
    desk.finish([first])
    assert desk.take("q", "ana").at == "b"
    desk.reopen("q", [first], "ana")
    assert desk.take("q", "ana").at == "a"
    assert desk.take("q", "ben").at == "b"


@given(st.lists(st.tuples(st.sampled_from(["ana", "ben", "cy"]), st.sampled_from(["take", "skip", "finish"]))))
def test_no_two_people_ever_hold_one_text(steps: list[tuple[str, str]]) -> None:
    desk = desk_of("abcdef")
    held: dict[str, Item] = {}
    for who, step in steps:
        one = desk.take("q", who)
        held.pop(who, None)
        if one is None:
            continue
        assert one.at not in {other.at for other in held.values()}
        if step == "take":
            held[who] = one
        elif step == "skip":
            desk.skip(one, who)
        else:
            desk.finish([one])
