"""The tables of the peers: medians that stand, ratios to FastStream and ONNX Runtime, CPU without the start."""

import msgspec

from headrace_load.result import Comparison, Result
from load.peers.bench import FASTSTREAM, ONNX, drained_table, markdown, steady_table
from tests.support.load_results import result_of


def started(result: Result, start_cpu_s: float) -> Result:
    workers = msgspec.structs.replace(result.used["workers"], start_cpu_s=start_cpu_s)
    return msgspec.structs.replace(result, used={**result.used, "workers": workers})


def test_a_drain_is_compared_with_faststream_and_the_faster_onnx_by_medians_that_stand() -> None:
    fast = [result_of(name="fast", rate=rate, backlog=True) for rate in (90_000.0, 120_000.0, 100_000.0)]
    refused = result_of(name="fast", rate=900_000.0, backlog=True, refused="the audit failed")
    comparison = Comparison(
        results={
            FASTSTREAM: (result_of(name=FASTSTREAM, rate=2_500.0, backlog=True),),
            ONNX[0]: (result_of(name=ONNX[0], rate=5_000.0, backlog=True),),
            ONNX[1]: (result_of(name=ONNX[1], rate=2_000.0, backlog=True),),
            "fast": (*fast, refused),
        },
        differences={},
    )
    _, rate, faststream, onnx, *_ = drained_table(comparison).rows[-1]
    assert (rate, faststream, onnx) == ("100,000", "40", "20")


def test_the_start_is_not_in_the_cpu_of_a_drain() -> None:
    # 30 seconds at 1,000 a second and 10 CPU seconds a 100,000: 3 in all, of which 2 are the start.
    slow = started(result_of(name=FASTSTREAM, rate=1_000.0, backlog=True, cpu_per_100k=10.0), 2.0)
    comparison = Comparison(results=dict.fromkeys((FASTSTREAM, *ONNX), (slow,)), differences={})
    assert float(drained_table(comparison).rows[0][4]) == 3.33


def test_latencies_are_compared_with_the_first_and_a_run_without_any_has_none() -> None:
    comparison = Comparison(
        results={
            "first": (result_of(name="first", middle_ms=4.0, seed=3),),
            "slower": (result_of(name="slower", middle_ms=8.0, seed=3),),
            "silent": (result_of(name="silent", measured=False),),
        },
        differences={},
    )
    rows = steady_table("2,000 a second", comparison).rows
    assert rows[0][4] == "1"
    assert 1.9 < float(rows[1][4]) < 2.1
    assert rows[2][2:6] == ("–", "–", "–", "–")


def test_a_table_can_be_pasted_into_a_page() -> None:
    comparison = Comparison(results={"first": (result_of(name="first"),)}, differences={})
    lines = markdown(steady_table("2,000 a second", comparison)).splitlines()
    assert lines[0].startswith("| contender | texts/s |")
    assert {line.count("|") for line in lines[:3]} == {8}
