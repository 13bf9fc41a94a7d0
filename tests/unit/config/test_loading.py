import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.config import Settings, SettingsError, load_settings
from headrace.core.fields import Secret


def written(folder: Path, source: str) -> Path:
    path = folder / "headrace.toml"
    path.write_text(source, encoding="utf-8")
    return path


def refusal(*sets: str, file: Path | None = None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(file, environ or {}, sets)
    return str(refused.value)


def test_without_any_source_every_value_is_the_default() -> None:
    loaded = load_settings(None, {})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"}


def test_every_setting_has_a_row() -> None:
    keys = [key for key, _, _ in load_settings(None, {}).rows()]
    for section in msgspec.structs.fields(Settings):
        assert f"{section.name}.{msgspec.structs.fields(section.type)[0].name}" in keys
    assert len(keys) == len(set(keys))


def test_each_source_overrides_the_one_before_it_and_is_named_as_the_origin(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        '[kafka]\nclient_id = "file"\nbootstrap = "file:1"\nsasl_username = "file"\nssl_cafile = "file"\n',
    )
    environ = {
        "HEADRACE_KAFKA__BOOTSTRAP": "environment:1",
        "HEADRACE_KAFKA__SASL_USERNAME": "environment",
        "HEADRACE_KAFKA__SSL_CAFILE": "environment",
    }
    options = {"--user": ("kafka.sasl_username", "option"), "--ca": ("kafka.ssl_cafile", "option")}
    loaded = load_settings(file, environ, ["kafka.ssl_cafile=set"], options)
    kafka = loaded.settings.kafka
    assert (kafka.client_id, kafka.bootstrap, kafka.sasl_username, kafka.ssl_cafile) == (
        "file",
        "environment:1",
        "option",
        "set",
    )
    assert loaded.origins["kafka.client_id"] == f"{file}, line 2"
    assert loaded.origins["kafka.bootstrap"] == "environment variable HEADRACE_KAFKA__BOOTSTRAP"
    assert loaded.origins["kafka.sasl_username"] == "--user"
    assert loaded.origins["kafka.ssl_cafile"] == "--set"
    assert loaded.origins["kafka.idempotent"] == "default"


def test_an_option_that_was_not_given_overrides_nothing() -> None:
    environ = {"HEADRACE_KAFKA__BOOTSTRAP": "there:1"}
    loaded = load_settings(None, environ, (), {"--bootstrap": ("kafka.bootstrap", None)})
    assert loaded.settings.kafka.bootstrap == "there:1"


def test_the_last_of_two_equal_options_counts() -> None:
    assert load_settings(None, {}, ["worker.threads=2", "worker.threads=3"]).settings.worker.threads == 3


def test_text_becomes_the_type_that_is_wanted() -> None:
    loaded = load_settings(
        None,
        {"HEADRACE_KAFKA__IDEMPOTENT": "false", "HEADRACE_WORKER__WATCHDOG": "2.5"},
        ["requests.copy_headers=tenant, traceparent", "requests.copy_fields=shop=order.shop", "worker.threads=2"],
    )
    assert loaded.settings.kafka.idempotent is False
    assert loaded.settings.worker.watchdog == 2.5
    assert loaded.settings.requests.copy_headers == ("tenant", "traceparent")
    assert loaded.settings.requests.copy_fields == {"shop": "order.shop"}
    assert loaded.settings.worker.threads == 2


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    assert refusal("kafka.boostrap=x") == "kafka.boostrap (--set): no such setting. Did you mean kafka.bootstrap?"


def test_an_unknown_section_is_refused_with_those_there_are() -> None:
    message = refusal(environ={"HEADRACE_ZEBRA__STRIPES": "4"})
    assert message.startswith("zebra.stripes (environment variable HEADRACE_ZEBRA__STRIPES): no such setting.")
    assert (
        "kafka, topics, requests, worker, trainer, gate, teacher, labeller, gateway, store, signing, dead_letters, "
        "admin, log" in message
    )


def test_a_wrong_type_in_the_file_names_key_line_and_what_is_allowed(tmp_path: Path) -> None:
    file = written(tmp_path, '# ours\n[worker]\nthreads = "two"\n')
    assert (
        refusal(file=file)
        == f"worker.threads ({file}, line 3): expected a whole number above 0 and at most 1024, got 'two'."
    )


def test_a_number_in_quotes_is_no_number_in_a_file(tmp_path: Path) -> None:
    assert "expected a whole number" in refusal(file=written(tmp_path, '[worker]\nthreads = "2"\n'))


@pytest.mark.parametrize(
    ("assignment", "allowed"),
    [
        ("log.format=xml", "expected one of json, text, got 'xml'"),
        ("worker.max_batch=5000", "expected a whole number above 0 and at most 4096, got '5000'"),
        ("kafka.idempotent=maybe", "expected true or false, got 'maybe'"),
        ("worker.watchdog=soon", "expected a number above 0 and at most 31622400, got 'soon'"),
        ("requests.copy_fields=shop", "expected a map (in the environment and options: name=value with commas)"),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_what_is_allowed(assignment: str, allowed: str) -> None:
    assert allowed in refusal(assignment)


def test_every_fault_is_said_at_once() -> None:
    assert len(refusal("worker.threads=0", "log.level=loud", "nothing.here=1").splitlines()) == 3


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["kafka.security_protocol=SASL_SSL"], "needs sasl_username and sasl_password"),
        (["kafka.heartbeat_interval_ms=5000"], "at most a third of session_timeout_ms"),
        (["topics.results=classify.requests"], "two topics are both named classify.requests"),
        (["worker.revoke_timeout=20"], "has to be below 9.5 s"),
        (["worker.revoke_timeout=9.7"], "kafka.heartbeat_interval_ms (0.5 s)"),
        (["requests.text_path=ticket..body"], "path 'ticket..body'"),
        (["requests.max_text_bytes=0"], "requests: max_text_bytes is 0, and must be at least 1"),
        (["requests.max_text_bytes=5000000"], "the requests topic takes records of at most 1048576 bytes"),
    ],
)
def test_an_impossible_combination_is_refused_and_says_where_it_was_set(sets: list[str], said: str) -> None:
    message = refusal(*sets)
    assert said in message
    assert f"{sets[0].partition('=')[0]} from --set" in message


def test_a_file_that_is_no_toml_is_refused_with_the_place(tmp_path: Path) -> None:
    message = refusal(file=written(tmp_path, "[kafka\n"))
    assert "not a TOML file" in message
    assert "line 1" in message


def test_a_key_outside_a_section_is_refused(tmp_path: Path) -> None:
    assert "stands in a section" in refusal(file=written(tmp_path, 'bootstrap = "x:1"\n'))


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    assert refusal(file=tmp_path / "none.toml") == f"{tmp_path}/none.toml: can't be read (No such file or directory)."


def test_a_variable_with_our_prefix_that_names_no_section_is_left_alone() -> None:
    assert load_settings(None, {"HEADRACE_DATA": "/somewhere"}).settings == Settings()


def test_a_secret_is_masked_in_rows_in_repr_and_in_errors(tmp_path: Path) -> None:
    word = "hunter2"
    environ = {"HEADRACE_KAFKA__SASL_PASSWORD": word}
    loaded = load_settings(None, environ)
    password = loaded.settings.kafka.sasl_password
    assert password is not None
    assert password.reveal() == word
    assert word not in str(list(loaded.rows()))
    assert word not in repr(loaded)
    assert word not in refusal(environ={**environ, "HEADRACE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"})
    assert word not in refusal(f"kafka.sasl_password:{word}")
    number = written(tmp_path, "[kafka]\nsasl_password = 4711\n")
    assert "kafka.sasl_password" in refusal(file=number)
    assert "4711" not in refusal(file=number)


def test_secrets_compare_by_value_and_never_equal_their_text() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


KEYS = [key for key, _, _ in load_settings(None, {}).rows()]


@given(
    st.sampled_from(KEYS), st.one_of(st.text(), st.integers().map(str), st.sampled_from(["true", "null", "a=b", "1e9"]))
)
@example("requests.max_text_bytes", "0")
def test_any_text_is_taken_for_its_key_or_refused_by_name(key: str, value: str) -> None:
    try:
        taken, said = load_settings(None, {}, [f"{key}={value}"]).origins[key], ""
    except SettingsError as refused:
        taken, said = "", str(refused)
    assert taken == "--set" or key in said


def test_names_of_topics_come_from_the_prefix_unless_they_are_set() -> None:
    names = load_settings(None, {}, ["topics.prefix=eu.", "topics.results=answers"]).settings.topics.names()
    assert (names.requests, names.results, names.dead_letters) == (
        "eu.classify.requests",
        "answers",
        "eu.classify.dead-letters",
    )


def test_members_of_one_machine_serve_their_metrics_on_ports_of_their_own() -> None:
    admin = load_settings(None, {}, ["admin.port=9000"]).settings.admin
    assert [admin.port_of(slot) for slot in range(3)] == [9000, 9001, 9002]
    assert load_settings(None, {}, ["admin.port=0"]).settings.admin.port_of(2) == 0


def test_reading_settings_loads_no_library_of_the_model() -> None:
    code = "import sys, headrace.config; print({'numpy', 'numba', 'torch', 'aiokafka'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"set()\n"
