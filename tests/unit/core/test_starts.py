import datetime as dt
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import UserError
from headrace.core.fields import StartError, parse_start

NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
NOON_MS = 1_769_860_800_000


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("earliest", "earliest"),
        ("beginning", "earliest"),
        ("latest", "latest"),
        ("end", "latest"),
        ("2026-01-31T12:00:00Z", NOON_MS),
        ("2026-01-31T12:00:00", NOON_MS),
        ("2026-01-31 13:00+01:00", NOON_MS),
        ("2026-01-31", NOON_MS - 12 * 3_600_000),
        ("1970-01-01T00:00:00.001Z", 1),
        (NOON, NOON_MS),
        (NOON.replace(tzinfo=None), NOON_MS),
        (NOON.astimezone(dt.timezone(dt.timedelta(hours=-5))), NOON_MS),
    ],
)
def test_a_start_is_a_word_or_a_time_and_a_time_without_a_zone_is_in_utc(said: object, meant: object) -> None:
    assert parse_start(said) == meant


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("banana", "'banana' is no place to begin at: allowed are earliest, latest, or a time"),
        ("Latest", "Did you mean latest?"),
        ("earlyest", "Did you mean earliest?"),
        (" beginning", "Did you mean beginning?"),
        ("", "allowed are earliest"),
        ("2026-13-01", "allowed are earliest"),
        ("1969-12-31T23:59:59Z", "before 1970"),
        ("0001-01-01T00:00:00+23:59", "before 1970"),
        ("x" * 10_000, "xxx..."),
        (b"latest", "allowed are earliest"),
        (7, "allowed are earliest"),
        (None, "allowed are earliest"),
    ],
)
def test_what_is_no_start_is_refused_with_what_is_allowed(said: object, advice: str) -> None:
    with pytest.raises(StartError) as refused:
        parse_start(said)
    assert advice in str(refused.value)
    assert len(str(refused.value)) < 300


@given(st.text() | st.from_regex(r"[0-9T:Z+.W-]{1,30}", fullmatch=True) | st.datetimes().map(str))
def test_any_text_is_a_start_or_refused_in_words(said: str) -> None:
    with suppress(UserError):
        start = parse_start(said)
        assert start in ("earliest", "latest") or (isinstance(start, int) and start >= 0)
