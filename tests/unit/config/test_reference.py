from pathlib import Path

from headrace.config import load_settings
from headrace.config.reference import as_markdown, as_text, described

ROOT = Path(__file__).parents[3]


def test_every_setting_has_a_sentence() -> None:
    assert [one.key for one in described()] == [key for key, _, _ in load_settings(None, {}).rows()]
    assert [one.key for one in described() if not one.sentence.endswith((".", ")."))] == []


def test_the_page_of_settings_is_current() -> None:
    written = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert written == as_markdown(), "write it anew: headrace config reference --markdown > docs/settings.md"


def test_the_reference_fits_80_columns() -> None:
    assert max(map(len, as_text())) <= 80
