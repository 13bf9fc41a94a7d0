import itertools
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from headrace.core.fields import Secret
from headrace.files import DatasetError
from headrace.learning.data.files import Rows
from headrace.learning.data.split import PARTS, UNKEYED, Moved, Part, Splits, Splitting, place, split
from headrace.learning.data.validation import clean, text_keys


def numbered(count: int, first: int = 0) -> Rows:
    return Rows(tuple(f"text number {i}" for i in range(first, first + count)), ("a",) * count)


def test_the_split_of_known_texts_never_changes():
    # These came from the first release: if one moves, every data set's test rows have moved into training.
    texts = [f"word {i}" for i in range(40)]
    parts = [UNKEYED.part_of(key) for key in text_keys(texts)]

    assert [i for i, part in enumerate(parts) if part is Part.TEST] == [7, 11, 15, 30]
    assert [i for i, part in enumerate(parts) if part is Part.VALID] == [10, 20, 39]


KEYS = st.text(min_size=16, max_size=80).map(Secret)
MANY = text_keys([f"word {i}" for i in range(4000)])


def called_test(splitting: Splitting) -> set[bytes]:
    return {key for key in MANY if splitting.part_of(key) is Part.TEST}


def test_the_split_of_known_texts_by_a_known_key_never_changes():
    splitting = Splitting(Secret("correct horse battery staple"))
    parts = [splitting.part_of(key) for key in text_keys([f"word {i}" for i in range(40)])]

    assert [i for i, part in enumerate(parts) if part is Part.TEST] == [25]
    assert [i for i, part in enumerate(parts) if part is Part.VALID] == [7, 22, 29, 32]
    for rule in ("1", "2"):
        hashing = f"fnv1a-code-points+fmix64/{rule}"
        assert Splitting(splitting.secret, hashing).id == f"d51cd601610d705a/{hashing}"
        assert Splitting(hashing=hashing).id == f"unkeyed/{hashing}"


@given(KEYS, st.lists(st.sampled_from(MANY), min_size=1, max_size=30), st.randoms())
def test_a_key_divides_texts_in_the_same_way_whatever_their_order(secret, keys, randomness):
    once, again = Splitting(secret), Splitting(Secret(secret.reveal()))
    shuffled = randomness.sample(keys, len(keys))

    assert {key: once.part_of(key) for key in keys} == {key: again.part_of(key) for key in shuffled}
    assert once.id == again.id


@settings(max_examples=20, deadline=None)
@given(KEYS, KEYS)
def test_two_keys_make_splits_that_know_nothing_of_each_other(first, second):
    assume(first != second)
    splits = [called_test(UNKEYED), called_test(Splitting(first)), called_test(Splitting(second))]

    assert len({UNKEYED.id, Splitting(first).id, Splitting(second).id}) == 3
    for one, other in itertools.combinations(splits, 2):
        # 400 of 4000 are expected in each, 40 in both; these bounds are more than six standard deviations away.
        assert 280 < len(one) < 520
        assert len(one & other) < 80


def test_the_identity_of_a_split_is_its_key_and_its_hashing_and_shows_neither_the_key_nor_a_part_of_it():
    secret = Secret("correct horse battery staple")
    one = Splitting(secret)

    assert Splitting(secret, hashing="another/2").id != one.id
    assert "horse" not in repr(one) + one.id


def test_a_split_is_found_by_its_identity_where_its_key_is_known():
    now, before, foreign = (Secret(f"{name} key of sixteen") for name in ("now", "before", "foreign"))
    splits = Splits(now, before)

    assert splits.current == splits.find(Splitting(now).id) == Splitting(now)
    assert splits.find(Splitting(before).id) == Splitting(before)
    assert splits.find(UNKEYED.id) == UNKEYED
    first = Splitting(hashing="fnv1a-code-points+fmix64/1")
    assert splits.find(None) == splits.find(first.id) == first
    assert splits.find(Splitting(foreign).id) is None


@given(st.text(), st.lists(st.text(), max_size=5))
def test_a_text_is_in_the_same_part_whatever_texts_are_beside_it(text, others):
    alone = text_keys([text])[0]

    assert text_keys([*others, text, *others])[len(others)] == alone


@given(st.lists(st.sampled_from(["Wasser", "läuft", "水", "!", "9"]), min_size=1, max_size=6), st.randoms())
def test_texts_of_equal_words_share_a_part(words, randomness):
    spaced = "".join(word.upper() + " " * randomness.randint(1, 3) for word in words)

    assert text_keys([spaced]) == text_keys([" ".join(words)])


@given(st.lists(st.sampled_from(["Wasser", "läuft", "水", "!", "9"]), min_size=2, max_size=6, unique=True))
def test_texts_of_the_same_words_in_another_order_have_other_keys(words):
    assert text_keys([" ".join(words)]) != text_keys([" ".join(reversed(words))])


def test_the_parts_are_about_80_10_and_10_percent():
    result = split(clean(numbered(5000)))

    assert len(result.train) + len(result.valid) + len(result.test) == 5000
    assert 0.085 < len(result.valid) / 5000 < 0.115
    assert 0.085 < len(result.test) / 5000 < 0.115


def test_no_text_moves_when_rows_are_added_or_shuffled():
    rows = numbered(300)
    order = list(range(300))
    random.Random(5).shuffle(order)
    before, after = split(clean(rows)), split(clean(rows.take(order) + numbered(200, first=300)))

    for part in Part:
        here, there = (set(getattr(result, part.value).texts) for result in (before, after))
        assert here == there & set(rows.texts)


def test_a_file_of_its_own_replaces_a_hashed_part_and_gives_those_rows_to_training():
    rows, test = numbered(400), numbered(50, first=1000)
    hashed = split(clean(rows))
    result = split(clean(rows), test=test)

    assert result.test == test
    assert result.valid == hashed.valid
    assert set(result.train.texts) == set(hashed.train.texts) | set(hashed.test.texts)


def test_a_training_row_whose_text_is_tested_on_is_left_out():
    rows = numbered(400)
    valid, test = Rows(("TEXT number 7",), ("a",)), Rows(("text  number 8",), ("a",))
    result = split(clean(rows), valid=clean(valid), test=test)

    assert result.held_out == 2
    assert len(result.train) == 398
    assert not {"text number 7", "text number 8"} & set(result.train.texts)


def test_a_validation_row_whose_text_is_tested_on_is_left_out_because_the_last_fit_trains_on_it():
    result = split(clean(numbered(200)), valid=clean(numbered(20, first=500)), test=numbered(5, first=500))

    assert result.held_out == 5
    assert not set(result.valid.texts) & set(result.test.texts)


def test_rows_of_a_test_file_are_taken_as_they_are():
    test = Rows(("same", "same", ""), ("a", "b", "a"))

    assert split(clean(numbered(200)), test=test).test == test


def test_too_few_rows_are_refused_with_what_to_do():
    with pytest.raises(DatasetError, match=r"2 clean rows, which leave none for valid\..*--valid and --test"):
        split(clean(numbered(2)))


def test_rows_that_were_left_out_are_counted_where_none_remain():
    same = Rows(("all the same",) * 4, ("a", "b", "a", "b"))

    with pytest.raises(DatasetError, match=r"0 clean rows \(left out: 4 conflicting\), which leave none for train, va"):
        split(clean(same))


# In thousandths of all draws: a tenth of them is called test and a tenth validation, as of rows.
DRAWS = st.sets(st.integers(0, 999), max_size=8)
LABELS = st.dictionaries(st.integers(0, 4), DRAWS, max_size=5)
OWN = st.sampled_from([(), (Part.TEST,), (Part.VALID,), (Part.TEST, Part.VALID)])


def placed(rows: list[tuple[int, int]], own=()) -> dict[tuple[int, int], tuple[Part, Part]]:
    """Of each row, a label and a draw, the part that it is in and the one that its hash says."""
    draws = np.array([draw * 2**64 // 1000 for _, draw in rows], np.uint64)
    placing = place(draws, np.array([label for label, _ in rows], np.int64), own)
    columns = (placing.parts.tolist(), placing.hashed.tolist())
    return {row: (PARTS[part], PARTS[hashed]) for row, part, hashed in zip(rows, *columns, strict=True)}


def rows_of(labels: dict[int, set[int]]) -> list[tuple[int, int]]:
    return [(label, draw) for label, draws in labels.items() for draw in sorted(draws)]


@given(LABELS, st.randoms(), OWN)
def test_where_a_row_goes_does_not_depend_on_the_order_of_the_rows(labels, randomness, own):
    rows = rows_of(labels)

    assert placed(randomness.sample(rows, len(rows)), own) == placed(rows, own)


@given(LABELS, OWN)
def test_each_label_has_rows_in_as_many_parts_as_it_has_rows_for_and_no_more_are_moved_than_that_takes(labels, own):
    found = placed(rows_of(labels), own)
    order = [part for part in (Part.TRAIN, Part.TEST, Part.VALID) if part not in own]
    for label, draws in labels.items():
        pairs = [found[label, draw] for draw in draws]
        needed = order[: len(draws)]
        lacking = set(needed) - {hashed for _, hashed in pairs}

        assert set(needed) <= {part for part, _ in pairs}
        assert sum(part is not hashed for part, hashed in pairs) == len(lacking)
        assert {part for part, hashed in pairs if part is not hashed} == lacking
        assert not set(own) & {part for part, _ in pairs}


@given(LABELS)
def test_a_row_comes_to_the_other_side_of_the_test_only_where_its_label_has_too_few_there(labels):
    found = placed(rows_of(labels))
    for label, draws in labels.items():
        pairs = [found[label, draw] for draw in draws]
        learnt = sum(hashed is not Part.TEST for _, hashed in pairs)
        lent = [pair for pair in pairs if pair[1] is Part.TEST and pair[0] is not Part.TEST]
        borrowed = [pair for pair in pairs if pair[0] is Part.TEST and pair[1] is not Part.TEST]

        assert len(lent) <= max(0, 2 - learnt)
        assert len(borrowed) == (len(pairs) >= 2 and learnt == len(pairs))


@settings(max_examples=500)
@given(LABELS, st.integers(0, 4), st.integers(0, 999))
def test_one_more_row_moves_none_of_another_label_and_two_of_its_own_at_most(labels, label, draw):
    assume(draw not in labels.get(label, set()))
    before, after = placed(rows_of(labels)), placed([*rows_of(labels), (label, draw)])
    moved = [row for row in before if before[row][0] is not after[row][0]]

    assert {row[0] for row in moved} <= {label}
    assert len(moved) <= 2


@given(st.lists(st.integers(0, 10_000), min_size=60, max_size=200, unique=True), st.integers(0, 8))
def test_the_labels_whose_rows_changed_sides_are_named_and_no_others(numbers, few):
    labels = ["few" if place < few else "many" for place in range(len(numbers))]
    found = split(clean(Rows(tuple(f"text number {number}" for number in numbers), tuple(labels))))
    lent, borrowed = set(), set()
    for part in Part:
        rows = getattr(found, part.value)
        for key, label in zip(text_keys(rows.texts), rows.labels, strict=True):
            is_test, was_test = part is Part.TEST, UNKEYED.part_of(key) is Part.TEST
            lent |= {label} if was_test and not is_test else set()
            borrowed |= {label} if is_test and not was_test else set()

    assert found.moved == Moved(tuple(sorted(lent)), tuple(sorted(borrowed)))


def test_the_only_row_of_a_label_is_learnt_wherever_its_hash_would_have_it():
    many = numbered(100)
    for number in range(1000, 1040):
        found = split(clean(many + Rows((f"text number {number}",), ("rare",))))
        assert "rare" in found.train.labels
