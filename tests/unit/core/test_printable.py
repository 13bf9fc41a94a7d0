import json
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from headrace.core.text import printable, quantity

EVERY = [chr(code) for code in range(sys.maxunicode + 1)]
SHAPELESS = frozenset(one for one in EVERY if unicodedata.category(one) in {"Cc", "Cf", "Zl", "Zp", "Cs"})


def test_every_character_without_a_shape_is_escaped_and_every_other_stays() -> None:
    for one in EVERY:
        shown = printable(one)
        if one in SHAPELESS:
            assert shown.isascii()
            assert shown.startswith("\\u")
        elif unicodedata.category(one) != "Cn":
            assert shown == one


def test_lines_and_tabs_stay_where_they_are_wanted() -> None:
    assert printable("a\n\tb\r\x85\u2028", lines=True) == "a\n\tb\\u000d\\u0085\\u2028"
    assert printable("a\n") == "a\\u000a"


@given(st.text(st.one_of(st.characters(), st.sampled_from(sorted(SHAPELESS)))))
def test_json_means_the_same_afterwards(text: str) -> None:
    dumped = json.dumps({text: text}, ensure_ascii=False)
    shown = printable(dumped)
    assert not SHAPELESS & set(shown)
    assert json.loads(shown) == json.loads(dumped)


def test_a_quantity_agrees_with_its_noun() -> None:
    assert [quantity(count, "row") for count in (0, 1, 2, 2000)] == ["0 rows", "1 row", "2 rows", "2,000 rows"]
    assert quantity(1, "copy", "copies") == "1 copy"
    assert quantity(3, "row has", "rows have") == "3 rows have"
