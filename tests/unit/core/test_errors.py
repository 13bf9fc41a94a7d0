"""Of several errors one is raised, and all are told."""

from __future__ import annotations

import asyncio

import pytest

from headrace.core.errors import UserError, one_of_all, raise_failed, with_notes
from headrace.demo.setup import beside
from headrace.kafka.interface import BrokerUnavailableError
from headrace.process.lifecycle import EXIT_REFUSED
from headrace.worker.partitions.resume import RefusedError


def test_the_first_is_raised_and_tells_of_the_others_each_once() -> None:
    errors = [BrokerUnavailableError("broker 1 is away"), UserError("the disk is full"), UserError("the disk is full")]
    raised = one_of_all(errors)
    assert raised is errors[0]
    assert with_notes(raised) == "broker 1 is away\nAt the same time: the disk is full"


def test_an_error_alone_is_itself() -> None:
    error = UserError("the disk is full")
    assert one_of_all(ExceptionGroup("stages", [ExceptionGroup("batches", [error])])) is error
    assert with_notes(error) == "the disk is full"


def test_what_a_person_has_to_decide_is_raised_before_what_a_new_start_may_mend() -> None:
    group = ExceptionGroup("stages", [BrokerUnavailableError("away"), ExceptionGroup("more", [RefusedError("cut")])])
    raised = one_of_all(group)
    assert isinstance(raised, RefusedError)
    assert raised.exit_code == EXIT_REFUSED
    assert "At the same time: away" in with_notes(raised)


def test_a_fault_of_the_program_is_raised_first_because_its_traceback_has_to_be_seen() -> None:
    raised = one_of_all([RefusedError("cut"), KeyError("offset")])
    assert isinstance(raised, KeyError)
    assert "At the same time: cut" in with_notes(raised)


def test_of_another_makers_error_the_kind_is_told_too() -> None:
    raised = one_of_all([KeyError("offset"), TimeoutError()])
    assert with_notes(raised).splitlines()[1:] == ["At the same time: TimeoutError: "]


def test_outcomes_that_went_well_raise_nothing_and_of_those_that_did_not_all_are_told() -> None:
    raise_failed([None, 3])
    with pytest.raises(BrokerUnavailableError) as raised:
        raise_failed([None, BrokerUnavailableError("away"), 3, BrokerUnavailableError("full")])
    assert with_notes(raised.value) == "away\nAt the same time: full"


def test_a_cancellation_among_outcomes_goes_before_every_error() -> None:
    with pytest.raises(asyncio.CancelledError):
        raise_failed([UserError("full"), asyncio.CancelledError()])


async def test_two_that_fail_beside_a_block_are_both_told() -> None:
    async def fail(error: Exception) -> None:
        await asyncio.sleep(0)
        raise error

    with pytest.raises(UserError) as raised:
        async with beside(fail(UserError("the broker ended")), fail(UserError("the worker ended"))):
            await asyncio.Event().wait()
    assert with_notes(raised.value) == "the broker ended\nAt the same time: the worker ended"
