import logging
import traceback
from io import StringIO
from pathlib import Path

import pytest

from headrace.config import Loaded, SettingsError, load_settings
from headrace.config.loading import MOST_BYTES
from headrace.process.logs import configure, event

WORD = "hunter2-in-a-file"
VARIABLE = "HEADRACE_KAFKA__SASL_PASSWORD"


def held_in(path: Path, content: bytes) -> dict[str, str]:
    path.write_bytes(content)
    return {f"{VARIABLE}_FILE": str(path)}


def password(loaded: Loaded) -> str:
    found = loaded.settings.kafka.sasl_password
    assert found is not None
    return found.reveal()


def refusal(environ: dict[str, str], *sets: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, environ, sets)
    assert WORD not in "".join(traceback.format_exception(refused.value))
    return str(refused.value)


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"word", "word"),
        (b"word\n", "word"),
        (b"word\r\n", "word"),
        (b" word \n\n", " word \n"),
        ("wörd".encode(), "wörd"),
    ],
)
def test_a_secret_is_its_file_without_one_newline_at_the_end(tmp_path: Path, content: bytes, secret: str) -> None:
    assert password(load_settings(None, held_in(tmp_path / "secret", content))) == secret


def test_the_origin_of_a_secret_is_its_file_and_who_named_it(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    loaded = load_settings(None, held_in(file, WORD.encode()))
    rows = {key: (value, origin) for key, value, origin in loaded.rows()}
    assert rows["kafka.sasl_password"] == ("***", f"file {file}, named by environment variable {VARIABLE}_FILE")
    assert "kafka.sasl_password_file" not in rows


def test_a_file_of_settings_and_an_option_may_name_the_file_of_a_secret(tmp_path: Path) -> None:
    held_in(tmp_path / "secret", WORD.encode())
    settings = tmp_path / "headrace.toml"
    settings.write_text(f'[kafka]\nsasl_password_file = "{tmp_path}/secret"\n', encoding="utf-8")
    assert password(load_settings(settings, {})) == WORD
    assert password(load_settings(None, {}, [f"kafka.sasl_password_file={tmp_path}/secret"])) == WORD


def test_the_higher_source_counts_and_the_file_below_it_is_not_even_read(tmp_path: Path) -> None:
    settings = tmp_path / "headrace.toml"
    settings.write_text('[kafka]\nsasl_password_file = "/nowhere"\n', encoding="utf-8")
    assert password(load_settings(settings, {VARIABLE: WORD})) == WORD
    settings.write_text('[kafka]\nsasl_password = "old"\n', encoding="utf-8")
    assert password(load_settings(settings, held_in(tmp_path / "secret", WORD.encode()))) == WORD


def test_a_secret_that_one_source_gives_both_ways_is_refused(tmp_path: Path) -> None:
    both = {VARIABLE: WORD, **held_in(tmp_path / "secret", b"other")}
    assert "is given as itself and as kafka.sasl_password_file" in refusal(both)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (WORD.encode() + b"\xff", "is not UTF-8"),
        (WORD.encode() * MOST_BYTES, "holds more than"),
    ],
)
def test_a_file_that_holds_no_secret_is_refused_without_its_content(tmp_path: Path, content: bytes, said: str) -> None:
    message = refusal(held_in(tmp_path / "secret", content))
    assert message.startswith(f"kafka.sasl_password_file (environment variable {VARIABLE}_FILE): {tmp_path}/secret ")
    assert said in message


@pytest.mark.parametrize("path", ["/nowhere/secret", "/", "a\0b", ""])
def test_a_path_that_is_no_file_is_refused_by_the_name_of_the_setting(path: str) -> None:
    assert f"kafka.sasl_password_file (environment variable {VARIABLE}_FILE)" in refusal({f"{VARIABLE}_FILE": path})


def test_only_a_secret_can_be_in_a_file() -> None:
    assert "no such setting" in refusal({"HEADRACE_KAFKA__CLIENT_ID_FILE": "/etc/hostname"})


def test_a_secret_is_refused_as_an_argument_which_any_user_of_the_machine_can_read() -> None:
    message = refusal({}, f"kafka.sasl_password={WORD}")
    assert "arguments of a process" in message
    assert VARIABLE in message
    assert f"{VARIABLE}_FILE" in message


def test_a_secret_is_in_no_log_no_repr_and_no_traceback_at_the_lowest_level(tmp_path: Path) -> None:
    settings = load_settings(None, held_in(tmp_path / "secret", WORD.encode())).settings
    stream, root = StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    try:
        for form in ("text", "json"):
            configure(stream, level="debug", form=form)
            event("settings.shown", level="debug", settings=settings, kafka=settings.kafka)
            event("settings.raised", exception=ValueError(settings.kafka.sasl_password, settings))
    finally:
        root.handlers[:], root.level = before
    assert "***" in stream.getvalue()
    assert WORD not in stream.getvalue() + repr(settings) + str(settings)


def test_the_key_of_the_split_is_a_secret_and_long_enough_not_to_be_guessed(tmp_path: Path) -> None:
    named = "HEADRACE_TRAINER__SPLIT_KEY"
    (tmp_path / "split.key").write_text(WORD + "\n")
    loaded = load_settings(None, {f"{named}_FILE": str(tmp_path / "split.key")})
    found = loaded.settings.trainer.split_key
    assert found is not None
    assert found.reveal() == WORD
    assert WORD not in repr(loaded) + str(list(loaded.rows()))
    assert "is a secret" in refusal({}, f"trainer.split_key={WORD}")
    assert "split_key has fewer than 16 characters" in refusal({named: WORD[:15]})
