"""What `headrace models diff` names, and what it keeps quiet about."""

from headrace.commands.models.compare import Difference, differences
from headrace_schemas.records import Lineage, OffsetRange
from tests.support.versions import version_of

LINEAGE = Lineage(
    source="labels",
    digest="d1",
    rows=100,
    offsets=(OffsetRange(0, 0, 60), OffsetRange(1, 0, 40)),
    dropped={"empty": 1},
    recipe='{"seed":0,"convolution":{"dropout":0.5,"filters":100}}',
)
ONE = version_of(
    "v1",
    labels=("a", "b", "c"),
    metrics={"test_macro_f1": 0.9, "test_rows": 20.0},
    lineage=LINEAGE,
    compression={"ratio": 10.0},
    libraries={"numpy": "2.0"},
    weights_sha256="w1",
)
OTHER = version_of(
    "v2",
    at=60_000,
    size=1500,
    labels=("a", "c", "d", "e"),
    metrics={"test_macro_f1": 0.8875, "test_rows": 20.0, "test_accuracy": 0.9},
    lineage=Lineage(
        source="labels",
        digest="d2",
        rows=180,
        offsets=(OffsetRange(0, 10, 90), OffsetRange(1, 0, 40), OffsetRange(2, 0, 50)),
        dropped={"empty": 1, "erased": 3},
        recipe='{"seed":0,"convolution":{"dropout":0.3,"filters":100,"swa":true}}',
        ranks=2,
        split="0123456789abcdef/a-hashing",
        holdout="d3",
    ),
    compression={"ratio": 12.5},
    libraries={"numpy": "2.1"},
    weights_sha256="w2",
    parent="v1",
    threshold=0.25,
)


def test_a_version_does_not_differ_from_itself() -> None:
    assert differences(ONE, ONE) == []


def test_everything_that_differs_is_named_once_and_nothing_else() -> None:
    found = differences(ONE, OTHER)
    assert [
        Difference("created", "1970-01-01 00:00:00Z", "1970-01-01 00:01:00Z"),
        Difference("weights", "w1", "w2"),
        Difference("parent", "-", "v1"),
        Difference("labels removed", "b", "-", "-1"),
        Difference("labels added", "-", "d, e", "+2"),
        Difference("size", "1,000", "1,500", "+500"),
        Difference("threshold", "-", "0.2500"),
        Difference("metrics test_accuracy", "-", "0.9000"),
        Difference("metrics test_macro_f1", "0.9000", "0.8875", "-0.0125"),
        Difference("digest of the rows", "d1", "d2"),
        Difference("split", "-", "0123456789abcdef/a-hashing"),
        Difference("without holdout", "-", "d3"),
        Difference("ranks", "1", "2", "+1"),
        Difference("rows", "100", "180", "+80"),
        Difference("first offset of partition 0", "0", "10", "+10"),
        Difference("first offset of partition 2", "-", "0"),
        Difference("end offset of partition 0", "60", "90", "+30"),
        Difference("end offset of partition 2", "-", "50"),
        Difference("left out, erased", "-", "3"),
        Difference("recipe convolution.dropout", "0.5", "0.3"),
        Difference("recipe convolution.swa", "-", "True"),
        Difference("compression ratio", "10", "12.5000", "+2.5000"),
        Difference("made with numpy", "2.0", "2.1"),
    ] == found


def test_a_version_of_unknown_origin_is_compared_by_the_rest() -> None:
    found = differences(version_of("v0", weights_sha256="w1"), ONE)
    assert Difference("trained on", "-", "labels") in found
    assert not [one for one in found if one.what.startswith(("rows", "recipe"))]
