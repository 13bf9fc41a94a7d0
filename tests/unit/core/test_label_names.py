import pytest

from headrace.core.text import alike, label_name


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("billing", "billing"),
        ("  billing \t\r\n", "billing"),
        ("\u00a0\u3000billing\u2003", "billing"),
        ("\ufeffbilling\u200b", "billing"),
        ("\x00billing\x1f", "billing"),
        ("r\u00e9clamation", "r\u00e9clamation"),
        ("re\u0301clamation", "r\u00e9clamation"),
        ("\u1112\u1161\u11ab", "\ud55c"),
        ("True", "true"),
        ("TRUE ", "true"),
        ("false", "false"),
        ("False", "false"),
        ("truE", "truE"),
        ("Trueness", "Trueness"),
        ("Billing", "Billing"),
        ("credit  card", "credit  card"),
        ("\U0001f468\u200d\U0001f469", "\U0001f468\u200d\U0001f469"),
        (" \u00a0\u200b", ""),
        ("", ""),
    ],
)
def test_a_labels_name_has_one_spelling_however_it_was_written(spelled, name):
    assert label_name(spelled) == name
    assert label_name(label_name(spelled)) == name


def test_names_that_only_capitals_or_blanks_tell_apart_are_found():
    names = ("Spam", "ham", "spam", "sp  am", "sp am", "hams", "ＨＡＭ")

    assert alike(names) == (("Spam", "sp  am", "sp am", "spam"), ("ham", "ＨＡＭ"))
    assert alike(("a", "b")) == ()
