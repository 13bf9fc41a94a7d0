"""Which texts are near duplicates."""

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.near_duplicates import RESEMBLANCE, near_duplicates, resemblance, shingles


def test_texts_that_differ_in_a_word_of_many_are_near_and_others_are_not() -> None:
    texts = [
        "my new card has still not arrived in the post",
        "My NEW card  has still not arrived in my post",
        "a transfer to my landlord was rejected",
        "我的新卡还没有寄到家里请帮忙",
        "我的新卡还没有寄到家里请帮忙。",
        "",
    ]
    assert near_duplicates(texts) == [[1], [0], [], [4], [3], []]


@given(st.lists(st.text("ab ", max_size=12), max_size=8))
def test_it_is_the_jaccard_index_of_all_pairs(texts: list[str]) -> None:
    sets = [shingles(text) for text in texts]

    def near(place: int) -> list[int]:
        return [at for at in range(len(texts)) if at != place and resemblance(sets[place], sets[at]) >= RESEMBLANCE]

    assert near_duplicates(texts) == [near(place) for place in range(len(texts))]
