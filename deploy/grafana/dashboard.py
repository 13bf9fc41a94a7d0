"""The dashboard of headrace for Grafana, as code.

    python deploy/grafana/dashboard.py            # writes headrace.json beside this file
    python deploy/grafana/dashboard.py --check    # ends with 1 when headrace.json is not what would be written

Import headrace.json into Grafana; it asks for the Prometheus that has the rules of deploy/prometheus/.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, prometheus, timeseries
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef

FILE = Path(__file__).with_name("headrace.json")
WIDTH, HEIGHT = 8, 8
"""Of a panel; a row of Grafana is 24 wide."""


class Panel(NamedTuple):
    """``queries`` are PromQL and how each series is called; ``meaning`` says what to see in it."""

    title: str
    unit: str
    meaning: str
    queries: tuple[tuple[str, str], ...]


def mean(name: str, by: str) -> str:
    """PromQL of the mean of a histogram over five minutes."""
    return f"sum by ({by}) (rate({name}_sum[5m])) / sum by ({by}) (rate({name}_count[5m]))"


def quantile(share: float, name: str) -> str:
    """PromQL of a quantile of a histogram over five minutes."""
    return f"histogram_quantile({share}, sum by (le) (rate({name}_bucket[5m])))"


ROWS: dict[str, tuple[Panel, ...]] = {
    "Answers": (
        Panel(
            "Answers a second",
            "ops",
            "By status. Expired ones came after their deadline; failed ones are in the dead letters.",
            (("sum by (status) (rate(headrace_answers_total[1m]))", "{{status}}"),),
        ),
        Panel(
            "Oldest request that waits",
            "s",
            "The objective is that it is younger than the line. Runbook: HeadraceRequestsLate.",
            (("headrace:oldest_request:seconds", "{{job}}"), ("headrace:objective:seconds", "objective")),
        ),
        Panel(
            "Requests that wait",
            "short",
            "Behind the last answer, by partition. One partition alone: a key that many requests share.",
            (("sum by (partition) (headrace_lag_records)", "partition {{partition}}"),),
        ),
        Panel(
            "From a request to its fetch",
            "s",
            "What a request waits in Kafka before a worker has it.",
            tuple((quantile(share, "headrace_in_kafka_seconds"), f"p{share * 100:g}") for share in (0.5, 0.99)),
        ),
        Panel(
            "Burn rate of the objective",
            "short",
            "1 uses up exactly what is allowed; 14.4 over an hour wakes somebody.",
            (("headrace:late:burn1h", "1 h"), ("headrace:late:burn6h", "6 h")),
        ),
        Panel(
            "Dead letters, and answers without a label",
            "ops",
            "Dead letters by error; an answer has no label where its score is below the threshold.",
            (
                ("sum by (error) (rate(headrace_dead_letters_total[5m]))", "{{error}}"),
                ("sum(rate(headrace_answers_abstained_total[5m]))", "no label"),
            ),
        ),
    ),
    "Workers": (
        Panel(
            "Time that a batch spends in a stage",
            "s",
            "The mean. Publish is Kafka; infer is the model.",
            ((mean("headrace_stage_seconds", "stage"), "{{stage}}"),),
        ),
        Panel(
            "Requests a batch",
            "short",
            "Small batches cost more CPU an answer, large ones make requests wait for each other.",
            ((mean("headrace_batch_size", "job"), "{{job}}"),),
        ),
        Panel(
            "Requests held in front of a stage",
            "short",
            "Fetched and not answered yet.",
            (("sum by (stage) (headrace_queue_depth)", "{{stage}}"),),
        ),
        Panel(
            "CPU",
            "short",
            "Cores that each process uses.",
            (("sum by (job, instance) (rate(process_cpu_seconds_total[5m]))", "{{job}} {{instance}}"),),
        ),
        Panel(
            "Memory",
            "bytes",
            "Resident, of each process.",
            (("process_resident_memory_bytes", "{{job}} {{instance}}"),),
        ),
        Panel(
            "How late the event loop is",
            "s",
            "Above 0.1 s the machine has too little CPU, and heartbeats are in danger.",
            ((quantile(0.99, "headrace_loop_lag_seconds"), "p99"),),
        ),
        Panel(
            "Partitions, and members that moved",
            "short",
            "Partitions of each worker; assignments and lost leases of the last ten minutes.",
            (
                ("headrace_partitions", "{{instance}}"),
                ("sum(increase(headrace_rebalances_total[10m]))", "assignments"),
                ("sum(increase(headrace_leases_lost_total[10m]))", "leases lost"),
            ),
        ),
        Panel(
            "CPU seconds of a million answers",
            "s",
            "Over fifteen minutes. It rises when batches are small.",
            (("headrace:cpu_seconds_per_million_answers", "{{job}}"),),
        ),
        Panel(
            "Cost of a million answers",
            "currencyUSD",
            "CPU seconds times headrace:price:core_hour.",
            (("headrace:cost_per_million_answers", "{{job}}"),),
        ),
    ),
    "Versions": (
        Panel(
            "Which version answers",
            "short",
            "Workers by version. Two for longer than a swap: HeadraceVersionsDiffer.",
            (("count by (version) (headrace_model_info == 1)", "{{version}}"),),
        ),
        Panel(
            "Drift",
            "short",
            "Population stability index of the answers against those to the test rows; 0.25 is a shift.",
            (
                ("max by (of) (headrace_drift_psi)", "workers: {{of}}"),
                ("max by (of) (headrace_trainer_drift_psi)", "trainer: {{of}}"),
            ),
        ),
        Panel(
            "Threshold, broken models, failed loads",
            "short",
            "Below the threshold an answer has no label.",
            (
                ("max by (job) (headrace_threshold)", "threshold"),
                ("max by (job) (headrace_breaker_open)", "breaker open"),
                ("sum(increase(headrace_model_load_failures_total[15m]))", "failed loads"),
            ),
        ),
    ),
    "Gateway": (
        Panel(
            "Calls a second",
            "ops",
            "By HTTP status.",
            (("sum by (status) (rate(headrace_gateway_calls_total[5m]))", "{{status}}"),),
        ),
        Panel(
            "How long calls take",
            "s",
            "Calls that wait for answers. Exemplars lead to the traces of calls that were recorded.",
            tuple((quantile(share, "headrace_gateway_seconds"), f"p{share * 100:g}") for share in (0.5, 0.99)),
        ),
        Panel(
            "Texts that wait, calls that are refused",
            "short",
            "Texts that wait for their answers now; refused calls of the last ten minutes, by why.",
            (
                ("sum(headrace_gateway_waiting_texts)", "waiting"),
                ("sum by (why) (increase(headrace_gateway_refused_total[10m]))", "refused: {{why}}"),
            ),
        ),
    ),
    "Learning": (
        Panel(
            "Labels",
            "short",
            "Texts with a label by people and by teachers, and what the next training still lacks.",
            (
                ("max(headrace_trainer_labels)", "people"),
                ("max(headrace_trainer_machine_labels)", "teachers"),
                ("max(headrace_trainer_labels_missing)", "missing"),
            ),
        ),
        Panel(
            "Trainings and verdicts",
            "short",
            "Of the last six hours: trainings by their end, versions by what the gate decided.",
            (
                ("sum by (state) (increase(headrace_trainer_trainings_total[6h]))", "training {{state}}"),
                ("sum by (promoted) (increase(headrace_trainer_verdicts_total[6h]))", "promoted {{promoted}}"),
            ),
        ),
        Panel(
            "Wrong answers above the certified threshold",
            "percentunit",
            "Bounds that hold at any moment. When the lower one passes what is allowed, the threshold rises.",
            (("max by (side) (headrace_cascade_disagreement_bound)", "{{side}}"),),
        ),
        Panel(
            "What the teacher does",
            "short",
            "Texts labelled and reviews in an hour; texts that wait.",
            (
                ("sum(increase(headrace_labeller_texts_labelled_total[1h]))", "labelled"),
                ("sum(increase(headrace_labeller_reviews_total[1h]))", "reviews"),
                ("sum(headrace_labeller_waiting)", "waiting"),
            ),
        ),
        Panel(
            "What the teacher costs",
            "currencyUSD",
            "In a day, in the money of labeller.prices.",
            (("sum(increase(headrace_labeller_money_total[24h]))", "24 h"),),
        ),
        Panel(
            "Agreement on gold texts",
            "percentunit",
            "Texts whose label is known: plain ones, and ones with planted orders.",
            (("min by (kind) (headrace_labeller_gold_agreement)", "{{kind}}"),),
        ),
    ),
}


def queries() -> Iterator[tuple[str, str]]:
    """Every panel's title and query."""
    for panels in ROWS.values():
        for panel in panels:
            for query, _ in panel.queries:
                yield panel.title, query


def written() -> str:
    """The dashboard as Grafana imports it."""
    made = (
        dashboards.Dashboard("headrace")
        .uid("headrace")
        .tags(["headrace"])
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(dashboards.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    numbers = count(1)
    for title, panels in ROWS.items():
        made = made.with_row(dashboards.Row(title).id(next(numbers)))
        for panel in panels:
            made = made.with_panel(_drawn(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def _drawn(panel: Panel) -> timeseries.Panel:
    drawn = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.meaning)
        .datasource(DataSourceRef(type_val="prometheus", uid="${datasource}"))
        .unit(panel.unit)
        .min(0)
        .fill_opacity(8)
        .span(WIDTH)
        .height(HEIGHT)
        .legend(
            common.VizLegendOptions()
            .show_legend(True)
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
        )
    )
    for reference, (query, legend) in zip(ascii_uppercase, panel.queries, strict=False):
        drawn = drawn.with_target(
            prometheus.Dataquery().expr(query).legend_format(legend).ref_id(reference).exemplar("_bucket" in query)
        )
    return drawn


def main(arguments: list[str]) -> int:
    """Write the file, or with ``--check`` compare; return the exit status."""
    if "--check" not in arguments:
        FILE.write_text(written(), encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == written():
        return 0
    sys.stderr.write(f"{FILE.name} is not what {Path(__file__).name} writes; run it\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
