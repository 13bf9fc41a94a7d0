"""Settings from files and environments of any content: taken, or refused in words that name where they came from."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.config import Settings, SettingsError, load_settings
from tests.support.mutations import damaged

FILES = [
    b'[kafka]\nbootstrap = "a:1"\nidempotent = false\n[worker]\nthreads = 2\nwatchdog = 2.5\n',
    b'[requests]\ncopy_headers = ["tenant"]\ncopy_fields = {shop = "order.shop"}\ntext_path = "ticket.body"\n',
    b'kafka.sasl_password = "secret"\ntopics = {prefix = "eu."}\nlog.level = "debug"\nadmin.port = 0x1f90\n',
    b"[worker]\nstart_from = 2026-01-01T00:00:00Z\nload_timeout = inf\nbreaker_retry = nan\nthreads = 1_000\n",
]
KEYS = [key for key, _, _ in load_settings(None, {}).rows()]
names = st.one_of(
    st.sampled_from([f"HEADRACE_{key.replace('.', '__').upper()}" for key in KEYS]),
    st.text(max_size=8).map(lambda text: f"HEADRACE_{text}__{text}"),
    st.sampled_from(["HEADRACE___", "HEADRACE_KAFKA__", "HEADRACE_KAFKA__BOOTSTRAP__X", "HEADRACE_DATA"]),
)
# What Python makes of bytes in an environment that are no UTF-8.
values = st.one_of(st.text(max_size=20), st.binary(max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape")))


@settings(max_examples=200, deadline=None)
@given(st.one_of(damaged(FILES), st.binary(max_size=60)))
@example(b"a = " + b"[" * 100_000)
@example(b"[kafka]\nbootstrap = " + b"{a=" * 100_000)
@example(b"[" + b"a." * 2_000 + b"a]")
@example(b"[worker]\nthreads = " + b"9" * 5000)
@example(b'"\\ud800" = 1')
@example(b"[worker]\nstart_from = 1979-05-27\n")
def test_a_file_of_any_bytes_is_taken_or_refused_by_its_name(tmp_path_factory, written):
    file = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    file.write_bytes(written)
    said = ""
    try:
        taken = load_settings(file, {}).settings
    except SettingsError as refused:
        taken, said = None, str(refused)
    assert isinstance(taken, Settings) or str(file) in said
    said.encode("utf-8", "backslashreplace")


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(names, values, max_size=5))
def test_an_environment_of_any_content_is_taken_or_refused_by_its_variables(environ):
    said = ""
    try:
        taken = load_settings(None, environ).settings
    except SettingsError as refused:
        taken, said = None, str(refused)
    assert isinstance(taken, Settings) or any(name in said for name in environ)
