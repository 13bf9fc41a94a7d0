import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from headrace.worker.metrics import AgeHistogram, WorkerMetrics


def test_answers_are_counted_by_status() -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.published({"ok": 3, "expired": 1}, 0.01, abstained=1)
    metrics.published({"ok": 2}, 0.02, abstained=1)
    assert registry.get_sample_value("headrace_answers_total", {"status": "ok"}) == 5
    assert registry.get_sample_value("headrace_answers_total", {"status": "expired"}) == 1
    assert registry.get_sample_value("headrace_answers_abstained_total") == 2
    assert registry.get_sample_value("headrace_stage_seconds_count", {"stage": "publish"}) == 2


def test_time_in_kafka_is_counted_from_the_record_and_never_negative() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry).fetched(np.array([1_000, 3_500, 9_000]), now_ms=4_000)
    assert registry.get_sample_value("headrace_in_kafka_seconds_sum") == 3.5
    assert registry.get_sample_value("headrace_in_kafka_seconds_bucket", {"le": "0.001"}) == 1
    assert registry.get_sample_value("headrace_requests_fetched_total") == 3


def test_a_timestamp_that_can_not_be_believed_is_left_out_of_the_time_in_kafka() -> None:
    registry = CollectorRegistry()
    now_ms = 1_764_000_000_000
    stamps = (now_ms - 2_000, -1, 0, now_ms // 1000, now_ms * 1000, now_ms * 1_000_000)
    WorkerMetrics(registry).fetched(np.array(stamps), now_ms)
    assert registry.get_sample_value("headrace_in_kafka_seconds_sum") == 2.0
    assert registry.get_sample_value("headrace_in_kafka_seconds_count") == 1
    assert registry.get_sample_value("headrace_requests_fetched_total") == 6


def test_a_new_version_replaces_the_old_one() -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.model("a")
    metrics.model("b")
    assert registry.get_sample_value("headrace_model_info", {"version": "a"}) is None
    assert registry.get_sample_value("headrace_model_info", {"version": "b"}) == 1


def test_a_new_assignment_forgets_the_lag_of_partitions_that_went_elsewhere() -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.lag(0, 12, 1.5)
    metrics.assigned(1)
    assert registry.get_sample_value("headrace_lag_records", {"partition": "0"}) is None
    assert registry.get_sample_value("headrace_rebalances_total") == 1


def test_two_workers_with_registries_of_their_own_do_not_mix() -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    WorkerMetrics(first).lost(7)
    WorkerMetrics(second)
    assert first.get_sample_value("headrace_requests_lost_total") == 7
    assert second.get_sample_value("headrace_requests_lost_total") == 0


def test_every_metric_has_a_description_and_can_be_shown() -> None:
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.batch(8, "full")
    metrics.computed(8, 0.1, 0.2, 0.3)
    metrics.dead_lettered({"bad-bytes": 1})
    metrics.queue("infer", 9)
    metrics.loop_lag(0.001)
    metrics.breaker(is_open=True)
    metrics.refetched()
    shown = generate_latest(registry).decode()
    assert all(family.documentation for family in registry.collect())
    for line in (
        'headrace_batches_total{closed="full"} 1.0',
        'headrace_stage_seconds_sum{stage="encode"} 0.3',
        'headrace_dead_letters_total{error="bad-bytes"} 1.0',
        'headrace_queue_depth{stage="infer"} 9.0',
        "headrace_breaker_open 1.0",
        "headrace_refetches_total 1.0",
    ):
        assert line in shown


@given(st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 99.0]))))
def test_the_ages_of_a_chunk_count_as_the_ages_one_by_one(batches: list[list[float]]) -> None:
    registry = CollectorRegistry()
    many = AgeHistogram("many", "Chunks.", (0.5, 1.0, 2.0), registry)
    now_ms = 1_764_000_000_000
    single = Histogram("single", "One by one.", buckets=(0.5, 1.0, 2.0), registry=registry)
    for batch in batches:
        stamps = [now_ms - int(1000 * age) for age in batch]
        assert many.observe(np.array([*stamps, -1, now_ms * 1000], np.int64), now_ms) == len(batch)
        for value in batch:
            single.observe(value)
    for bound in ("0.5", "1.0", "2.0", "+Inf"):
        labels = {"le": bound}
        assert registry.get_sample_value("many_bucket", labels) == registry.get_sample_value("single_bucket", labels)
    assert registry.get_sample_value("many_sum") == registry.get_sample_value("single_sum")


def test_time_that_rounds_below_zero_ends_nothing() -> None:
    registry = CollectorRegistry()
    WorkerMetrics(registry).spent("gathering", -1e-9)
    assert registry.get_sample_value("headrace_request_seconds_total", {"stage": "gathering"}) == 0
