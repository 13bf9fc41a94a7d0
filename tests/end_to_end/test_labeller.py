"""The real labeller beside the real worker: killed, frozen, two at once, with a bad teacher, and with brokers that go.

Each test measures the same (``tests/support/labeller_site.py``). `pytest -s` prints the line.
"""

from __future__ import annotations

import os
import re
import signal

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from headrace.demo.chat_server import Fault, chat_server
from headrace.kafka.brokers import apache_broker, embedded_process
from tests.support.labeller_site import BATCH, Figures, Site
from tests.support.own_topics import LIMIT_S
from tests.support.streams import answered
from tests.support.waiting import until

apache = pytest.mark.apache


def whole(figures: Figures, *, lost_calls: int = 0) -> None:
    """No label is lost, one batch at most is paid twice for each call that was lost, and the account says so."""
    assert figures.labelled == figures.requests
    assert figures.twice <= lost_calls * BATCH
    # A call may be lost between its labels and their settlement: then it counts as spent, which it is.
    assert 0 <= figures.labelled - figures.settled <= lost_calls * BATCH
    assert 0 <= figures.reserved - figures.settled <= lost_calls * BATCH


@apache
async def test_a_labeller_that_is_killed_in_a_call_loses_no_label_and_one_batch_at_most_is_paid_twice(
    apache_bootstrap, tmp_path
):
    site = Site(apache_bootstrap, tmp_path, faults=lambda n: Fault.SLOW if 8 <= n < 12 else None, slow_s=1.0)
    with chat_server(site.server, site.port):
        async with site.place.worker(), site.labeller("first") as first, site.stream() as stream:
            await until(lambda: len(site.begun) > 10, LIMIT_S)
            await first.kill()
            async with site.labeller("second"):
                await site.leads("second")
                whole(await stream.end(), lost_calls=1)


@apache
@pytest.mark.slow
async def test_a_frozen_labeller_writes_nothing_when_it_goes_on_after_another_took_over(apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path, faults=lambda n: Fault.SLOW if 8 <= n < 12 else None, slow_s=1.0)
    with chat_server(site.server, site.port):
        async with (
            site.place.worker(),
            site.labeller("first") as first,
            site.labeller("second") as second,
            site.stream() as stream,
        ):
            await until(lambda: len(site.begun) > 10, LIMIT_S)
            leader = await until(lambda: next((name for name in site.labellers if site.leading(name)), None), LIMIT_S)
            (other,) = {"first", "second"} - {leader}
            frozen, terms = {"first": first, "second": second}[leader], site.log(other).count("labeller.leads")
            lost = site.lost(leader)
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                await until(lambda: site.log(other).count("labeller.leads") > terms, LIMIT_S)
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            # It may lead again at once, as the group gives the seat to whom it likes.
            await until(lambda: site.lost(leader) > lost, LIMIT_S)
            # The group may have moved the seat as the second one joined, too.
            whole(await stream.end(), lost_calls=2)


@apache
@pytest.mark.slow
async def test_of_two_labellers_at_once_one_asks(apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path)
    with chat_server(site.server, site.port):
        async with site.place.worker(), site.labeller("first"), site.labeller("second"), site.stream() as stream:
            await until(lambda: len(site.begun) > 60, LIMIT_S)
            # The group may have moved the seat as the second one joined.
            whole(await stream.end(), lost_calls=1)
            assert sum(site.leading(name) for name in site.labellers) == 1


@apache
@pytest.mark.slow
async def test_an_endpoint_that_is_down_delays_labels_alone(apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path)
    async with site.place.worker(), site.labeller("first"), site.stream() as stream:
        await until(lambda: len(re.findall(r"teacher\.failed", site.log("first"))) > 3, LIMIT_S)
        assert await site.spending() == (0, 0)
        with chat_server(site.server, site.port):
            whole(await stream.end())


BAD = {
    "slow": {"faults": lambda _: Fault.SLOW, "slow_s": 0.3},
    "rate-limited": {"a_second": 10.0},
    "every-third-call-fails": {"faults": lambda n: (Fault.ERROR, Fault.MALFORMED, None)[n % 3] if n % 3 == 0 else None},
    "plain": {},
}


@apache
@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_endpoint_delays_labels_alone(kind, apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path, **BAD[kind])
    with chat_server(site.server, site.port):
        async with site.place.worker(), site.labeller("first"), site.stream() as stream:
            await until(lambda: len(site.begun) > 60, LIMIT_S)
            whole(await stream.end())


@apache
@pytest.mark.slow
async def test_out_of_budget_nothing_more_is_asked_and_requests_are_answered(apache_bootstrap, tmp_path):
    site = Site(apache_bootstrap, tmp_path)
    with chat_server(site.server, site.port):
        async with (
            site.place.worker(),
            site.labeller("first", **{"labeller.day_texts": 100}),
            site.stream() as stream,
        ):
            await until(lambda: re.search(r"labeller\.budget", site.log("first")), LIMIT_S)
            figures = await stream.end(most=100)
    assert (figures.labelled, figures.asked, figures.twice, figures.reserved, figures.settled) == (
        100,
        100,
        0,
        100,
        100,
    )


@apache
@pytest.mark.slow
async def test_a_broker_that_is_killed_and_comes_back_costs_no_label(tmp_path):
    async with apache_broker(log_dir=tmp_path / "kafka") as brokers:
        site = Site(brokers.bootstrap, tmp_path)
        with chat_server(site.server, site.port):
            async with site.place.worker(), site.labeller("first"), site.stream() as stream:
                await until(lambda: len(site.begun) > 10, LIMIT_S)
                brokers.kill(0)
                await brokers.start(0)
                begun = len(site.begun)
                await until(lambda: len(site.begun) > begun + 10, LIMIT_S)
                whole(await stream.end(), lost_calls=1)
            assert "Traceback" not in site.log("first")


async def coordinator_of(site: Site, group: str) -> int:
    """The number of the node that coordinates ``group``."""
    admin = AIOKafkaAdminClient(bootstrap_servers=site.place.kafka.bootstrap)
    await admin.start()
    try:
        return await admin.find_coordinator(group)
    finally:
        await admin.close()


@apache
@pytest.mark.slow
async def test_where_the_coordinator_is_killed_another_takes_over_and_requests_are_answered_meanwhile(tmp_path):
    async with apache_broker(3, log_dir=tmp_path / "kafka") as brokers:
        site = Site(brokers.bootstrap, tmp_path)
        with chat_server(site.server, site.port):
            async with (
                site.place.worker(),
                site.labeller("first"),
                site.labeller("second"),
                site.stream() as stream,
            ):
                await until(lambda: len(site.begun) > 10, LIMIT_S)
                node = await coordinator_of(site, f"{site.place.prefix}labeller-election")
                async with stream.client.reader("latest") as reader:
                    there = sum(place.position for place in reader.positions.values())
                brokers.kill(node)
                # Other nodes take over what it led.
                await answered(stream.client, there + 100)
                begun = len(site.begun)
                await until(lambda: len(site.begun) > begun + 10, LIMIT_S)
                await brokers.start(node)
                # The seat may move when the coordinator goes, and as members come back to it.
                whole(await stream.end(), lost_calls=2)
                assert "Traceback" not in site.log("first") + site.log("second")


@pytest.mark.slow
async def test_a_broker_that_answers_nothing_past_the_lease_costs_no_label(tmp_path):
    async with embedded_process() as (bootstrap, broker):
        site = Site(bootstrap, tmp_path, embedded=True)
        with chat_server(site.server, site.port):
            async with site.place.worker(), site.labeller("first"), site.stream() as stream:
                await until(lambda: len(site.begun) > 10, LIMIT_S)
                broker.send(signal.SIGSTOP)
                try:
                    await until(lambda: site.lost("first"), LIMIT_S)
                finally:
                    broker.send(signal.SIGCONT)
                begun = len(site.begun)
                await until(lambda: len(site.begun) > begun + 10, LIMIT_S)
                whole(await stream.end(), lost_calls=1)
            assert "Traceback" not in site.log("first")
