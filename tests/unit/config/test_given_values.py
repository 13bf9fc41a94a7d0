"""Values that can't be used are refused in words, whichever setting gets them and by whichever way."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config import Settings, SettingsError, load_settings
from headrace.kafka.settings import KafkaSettings
from headrace.worker.settings import WorkerSettings

KEYS = [key for key, _, _ in load_settings(None, {}).rows()]
HOSTILE = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["nan", "inf", "-inf", "-1", "0", "1e999", "9" * 5000, "host:abc", ":99999", "[::1]:1", "..", "\0"]
    ),
    st.floats().map(str),
    st.integers().map(str),
)


@settings(max_examples=300, deadline=None)
@given(key=st.sampled_from(KEYS), value=HOSTILE, in_environment=st.booleans())
def test_any_text_for_a_setting_is_a_value_or_an_error(key: str, value: str, in_environment: bool) -> None:
    variable = f"HEADRACE_{key.replace('.', '__').upper()}"
    environ = {variable: value} if in_environment else {}
    try:
        load_settings(None, environ, () if in_environment else [f"{key}={value}"])
    except SettingsError as refused:
        assert (variable if in_environment else "--set") in str(refused)  # noqa: PT017 - both ends are right


@settings(max_examples=300, deadline=None)
@given(key=st.sampled_from(KEYS), value=st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5))
def test_a_section_made_in_a_program_checks_its_fields_too(key: str, value: object) -> None:
    section, _, field = key.partition(".")
    kind = {one.name: one.type for one in msgspec.structs.fields(Settings)}[section]
    with suppress(ValueError):
        kind(**{field: value})


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("worker.start_from=banana", "earliest, latest, or a time"),
        ("kafka.bootstrap=host:abc", "with a port from 1 to 65535, got 'host:abc'"),
        ("kafka.bootstrap=:99999", "host:port"),
        ("kafka.bootstrap=a:1,", "host:port"),
        ("kafka.bootstrap=a:0", "host:port"),
        ("kafka.bootstrap=a:1b", "host:port"),
        ("kafka.bootstrap=::1:9092", "host:port"),
        ("topics.requests=..", "a topic's name"),
        ("topics.prefix=a b", "the beginning of topics' names"),
        ("topics.requests=" + "a" * 250, "a topic's name"),
        ("worker.load_timeout=nan", "a number above 0"),
        ("worker.load_timeout=inf", "a number above 0"),
        ("worker.group=", "a name of 1 to 249"),
        ("kafka.session_timeout_ms=99999999999", "at most 2147483647"),
        ("trainer.rendezvous=there", "host:port"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_what_is_allowed(assignment: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {}, [assignment])
    assert said in str(refused.value)
    assert assignment.partition("=")[0] in str(refused.value)


@pytest.mark.parametrize("value", ["a:1", "a:1, b.c:2", "[::1]:9092", "127.0.0.1:65535", "kafka_1:9092"])
def test_addresses_that_there_are_are_taken(value: str) -> None:
    assert load_settings(None, {}, [f"kafka.bootstrap={value}"]).settings.kafka.bootstrap == value


def test_a_program_that_makes_a_section_is_told_the_field() -> None:
    with pytest.raises(ValueError, match=r"security_protocol: expected one of PLAINTEXT, .* got 'SSLL'"):
        KafkaSettings(security_protocol="SSLL")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"start_from: .*; max_batch: "):
        WorkerSettings(start_from="banana", max_batch=0)


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("HEADRACE_WORKER_MAX_BATCH", "HEADRACE_WORKER__MAX_BATCH"),
        ("HEADRACE_KAFKA_BOOTSTRP", "HEADRACE_KAFKA__BOOTSTRAP"),
        ("headrace_kafka__bootstrap", "HEADRACE_KAFKA__BOOTSTRAP"),
        ("HEADRACE_ZZZ", None),
    ],
)
def test_a_variable_that_sets_nothing_is_found_with_the_nearest_that_does(variable: str, nearest: str | None) -> None:
    environ = {variable: "3", "HEADRACE_DATA": "/data", "PATH": "/bin", "HEADRACE_WORKER__THREADS": "2"}
    assert load_settings(None, environ).ignored == ((variable, nearest),)
