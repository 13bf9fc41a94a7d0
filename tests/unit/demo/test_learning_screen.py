import io

from rich.console import Console

from headrace.demo.learning.screen import Swap, erasure, made_lines, order_of_versions, swaps_table, whole_stream
from headrace.demo.learning.service import Made
from headrace.demo.stream import Snapshot
from headrace_schemas.records import Lineage, ModelVersion, Training, TrainingState, Verdict


def made(*, promoted: bool = True, dropped: dict[str, int] | None = None) -> Made:
    lineage = Lineage(source="labels", digest="0", rows=1184, ranks=2, dropped=dropped or {})
    return Made(
        Training(
            name="default",
            id="1",
            state=TrainingState.DONE,
            reason="asked",
            begun_at_ms=1000,
            offsets=(),
            ended_at_ms=21_500,
            version="v",
        ),
        ModelVersion(
            name="default",
            version="v",
            uri="memory://v",
            sha256="0",
            size=123_456,
            labels=("a", "b"),
            created_at_ms=1,
            metrics={
                "test_macro_f1": 0.97123,
                "test_macro_f1_low": 0.93,
                "test_macro_f1_high": 0.99,
                "test_rows": 116.0,
            },
            lineage=lineage,
        ),
        Verdict(name="default", version="v", promoted=promoted, reason="so it is", decided_at_ms=1),
    )


def test_a_version_is_told_with_its_rows_its_score_and_the_gates_reason() -> None:
    assert made_lines(made(dropped={"duplicate": 35, "erased": 2, "empty": 0})) == [
        "v: 0.12 MB, 2 labels, after 20 s",
        "2 ranks trained on 1,184 rows of labels; left out: 35 duplicate, 2 erased",
        "macro-F1 97.12% (95 % interval 93.0% to 99.0%) on 116 test rows, which no training sees",
        "gate: promoted: so it is",
    ]
    assert made_lines(made())[1] == "2 ranks trained on 1,184 rows of labels"
    assert made_lines(made(promoted=False))[-1] == "gate: not promoted: so it is"


def test_every_swap_is_a_row_that_fits_into_a_terminal() -> None:
    on = Console(file=io.StringIO(), width=80, highlight=False)
    on.print(swaps_table([("2, promoted", Swap(first=0.0571, everywhere=0.2, worst=1.25, beside=1412))]))
    assert "│ 2, promoted │        57 ms │         200 ms │     1,250 ms │       1,412 │" in on.file.getvalue()


def test_the_stream_is_told_for_comparison() -> None:
    end = Snapshot(elapsed_s=9.0, seconds=None, answered=7739, labels=(), rate=99.0, p50=0.025, p99=0.121, lag=0)
    assert whole_stream(end)[0] == "the whole stream: 7,739 answers, median wait 25 ms, p99 121 ms"


def test_what_was_erased_and_who_answered_is_said() -> None:
    assert erasure(3, 3, 1, 0) == (
        "erased: 3 of 3 labels left out of version 2; version 1 quotes 1 of them to test itself, version 2 0"
    )
    assert order_of_versions(kept=True).endswith(": yes")
    assert order_of_versions(kept=False).endswith(": NO")
