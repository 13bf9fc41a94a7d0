"""Below which score a version answers without a label: its certificate, what raised that, and who signed it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from headrace.core.clock import SystemClock
from headrace.model.signing import SignatureError, certificate_bytes, certificate_signer, verify_certificate
from headrace.registry.compacted_topics import ModelsLog
from headrace.registry.versions import NO_FLOOR, Floor, floor_of
from headrace_schemas.records import Certificate, ThresholdRaise
from tests.support.memory_kafka import MemoryCluster
from tests.support.signing import new_key
from tests.support.versions import certificate_of, raise_of, version_of

VERSION = msgspec.structs.replace(version_of("v1"), name="m")
CERTIFICATE = certificate_of("v1", at=100)


def raised(threshold: float, at_ms: int) -> ThresholdRaise:
    return raise_of("v1", threshold=threshold, at=at_ms)


def log_of(*records: Certificate | ThresholdRaise) -> ModelsLog:
    log = ModelsLog(MemoryCluster(SystemClock()), "models")
    for record in records:
        (log.certificates if isinstance(record, Certificate) else log.raises)[record.name, record.version] = record
    return log


def test_a_version_without_a_certificate_keeps_to_its_artifact() -> None:
    assert floor_of(log_of(), VERSION, ()) == NO_FLOOR
    assert floor_of(log_of(msgspec.structs.replace(CERTIFICATE, version="v2")), VERSION, ()) == NO_FLOOR


def test_the_higher_of_certificate_and_raise_holds_until_a_later_certificate() -> None:
    assert floor_of(log_of(CERTIFICATE), VERSION, ()) == Floor(0.8, "certificate")
    assert floor_of(log_of(CERTIFICATE, raised(0.9, 200)), VERSION, ()) == Floor(0.9, "disagreement")
    assert floor_of(log_of(CERTIFICATE, raised(0.7, 200)), VERSION, ()) == Floor(0.8, "certificate")
    assert floor_of(log_of(CERTIFICATE, raised(0.9, 50)), VERSION, ()) == Floor(0.8, "certificate")
    assert floor_of(log_of(raised(0.9, 50)), VERSION, ()) == Floor(0.9, "disagreement")


def test_where_keys_are_trusted_a_certificate_that_none_signed_counts_for_nothing(tmp_path: Path) -> None:
    own, other = new_key(tmp_path / "own.pem"), new_key(tmp_path / "other.pem")
    signed = certificate_signer(str(own.file), ())(CERTIFICATE)
    verify_certificate(signed, (other.public, own.public))
    assert floor_of(log_of(signed), VERSION, (own.public,)).score == 0.8
    assert floor_of(log_of(signed), VERSION, (other.public,)) == NO_FLOOR
    assert floor_of(log_of(CERTIFICATE), VERSION, (own.public,)) == NO_FLOOR
    assert floor_of(log_of(CERTIFICATE, raised(0.9, 1)), VERSION, (own.public,)).score == 0.9


@pytest.mark.parametrize(
    "altered",
    [
        {"threshold": 0.5},
        {"version": "v2"},
        {"name": "n"},
        {"disagree": 0.2},
        {"errors": 0},
        {"certified_at_ms": 10**15},
        {"signature": "AAAA"},
        {"signature": "no base64"},
    ],
)
def test_an_altered_certificate_is_refused(altered: dict[str, object], tmp_path: Path) -> None:
    key = new_key(tmp_path / "own.pem")
    signed = certificate_signer(str(key.file), ())(CERTIFICATE)
    with pytest.raises(SignatureError, match="does not fit it"):
        verify_certificate(msgspec.structs.replace(signed, **altered), (key.public,))


def test_the_signature_covers_what_the_schema_says() -> None:
    assert certificate_bytes(CERTIFICATE) == b'["headrace/certificate/1","m","v1",0.8,0.02,0.95,900,600,4,100]'
