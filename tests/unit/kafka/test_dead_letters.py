from typing import Any

import msgspec
import pytest

from headrace.client.dead_letters import Found, opened
from headrace.kafka.dead_letters import DeadLetterSettings, dead_letter, keeping
from headrace.kafka.interface import FetchedRecord, Outgoing
from headrace.security.keys import SEALING, PrivateKey, SealError, key_id, public_key_text
from headrace_schemas.dead_letters import CUT, ENCRYPTED, NOTHING, dead_letter_from_record, kept, sealed_to
from headrace_schemas.records import DeadLetter

KEY = PrivateKey(bytes(range(32)), "test.pem")
PUBLIC = public_key_text(SEALING, KEY.public())
MARK = b"mark-7f3a"
HEADERS = (("tenant", MARK), ("token", None), ("headrace-attempt", b"2"))
RECORD = FetchedRecord("classify.requests", 3, 42, 5, b"key " + MARK, MARK * 100, HEADERS)


def letter(record: FetchedRecord = RECORD, **settings: Any) -> tuple[Outgoing, DeadLetter]:
    keep = keeping(DeadLetterSettings(**settings))
    outgoing = dead_letter(record, stage="decode", error="bad-bytes", message="no JSON", keep=keep)
    return outgoing, dead_letter_from_record(outgoing.key, outgoing.value, outgoing.headers)


def found(outgoing: Outgoing, read: DeadLetter) -> Found:
    return Found(0, 0, 0, read, kept(outgoing.headers), sealed_to(outgoing.headers))


def test_a_whole_letter_is_the_record_and_says_nothing_of_what_it_keeps() -> None:
    outgoing, read = letter()
    assert (read.value, read.key, read.headers) == (RECORD.value, RECORD.key, HEADERS)
    assert kept(outgoing.headers) is None


def test_a_cut_letter_has_the_beginning_and_says_how_long_the_value_was() -> None:
    outgoing, read = letter(keep="cut", cut_bytes=4)
    assert (read.value, read.key, read.headers) == (b"mark", RECORD.key, HEADERS)
    assert kept(outgoing.headers) == CUT
    assert ("__headrace.errors.value-bytes", b"900") in outgoing.headers


@pytest.mark.parametrize("value", [None, b"", b"mark"])
def test_a_value_that_is_short_enough_is_not_cut(value: bytes | None) -> None:
    outgoing, read = letter(msgspec.structs.replace(RECORD, value=value), keep="cut", cut_bytes=4)
    assert (read.value, kept(outgoing.headers)) == (value, None)


def test_a_letter_without_its_record_has_the_place_and_the_reason_alone() -> None:
    outgoing, read = letter(keep="nothing")
    assert (read.value, read.key, read.headers, kept(outgoing.headers)) == (None, None, (), NOTHING)
    assert (read.topic, read.partition, read.offset, read.error, read.attempt) == (
        "classify.requests",
        3,
        42,
        "bad-bytes",
        2,
    )
    assert MARK not in b"".join(value or b"" for _, value in outgoing.headers)


def test_an_encrypted_letter_hides_value_key_and_headers_and_opens_to_the_record_as_it_was() -> None:
    outgoing, read = letter(keep="encrypted", public_key=PUBLIC)
    assert outgoing.key is None
    assert MARK not in (outgoing.value or b"") + b"".join(value or b"" for _, value in outgoing.headers)
    sealed = found(outgoing, read)
    assert (sealed.kept, sealed.sealed_to) == (ENCRYPTED, key_id(KEY.public()))
    one = opened(sealed, KEY)
    assert (one.kept, one.letter.value, one.letter.key, one.letter.headers) == (None, RECORD.value, RECORD.key, HEADERS)
    assert one.letter.attempt == 2
    # Without the key, or with another, it stays what it is.
    assert opened(sealed, None) is sealed
    assert opened(sealed, PrivateKey(bytes(32), "other.pem")) is sealed


def test_a_tombstone_is_still_one_after_it_was_encrypted() -> None:
    outgoing, read = letter(msgspec.structs.replace(RECORD, value=None), keep="encrypted", public_key=PUBLIC)
    assert outgoing.value is not None
    assert opened(found(outgoing, read), KEY).letter.value is None


def test_a_letter_that_was_changed_or_claims_another_place_does_not_open() -> None:
    outgoing, read = letter(keep="encrypted", public_key=PUBLIC)
    for other in (
        msgspec.structs.replace(read, offset=43),
        msgspec.structs.replace(read, value=(read.value or b"")[:-1]),
        msgspec.structs.replace(read, value=None),
    ):
        with pytest.raises(SealError, match=r"^The dead letter of classify\.requests\[3\]@4[23] "):
            opened(found(outgoing, other), KEY)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"keep": "encrypted"}, "there is no public_key"),
        ({"keep": "cut", "public_key": PUBLIC}, "nothing would be encrypted"),
        ({"keep": "encrypted", "public_key": "abc"}, "public_key: 'abc' is no public key"),
    ],
)
def test_settings_that_would_encrypt_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DeadLetterSettings(**settings)
