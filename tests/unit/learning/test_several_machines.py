"""Ranks on several machines exchange weights with whoever comes, so somebody has to say that this is accepted."""

import pytest

from headrace.commands.train import _nodes
from headrace.core.errors import UserError
from headrace.learning.distributed import rendezvous
from headrace.trainer.settings import TrainerSettings

MEETING = {"nodes": 2, "rendezvous": "10.0.0.1:29400", "address": "10.0.0.1"}


def test_a_trainer_refuses_several_machines_until_the_open_exchange_is_accepted():
    with pytest.raises(ValueError, match=r"without asking who is there.*Set unauthenticated_exchange to true"):
        TrainerSettings(**MEETING)
    assert TrainerSettings(**MEETING, unauthenticated_exchange=True).nodes == 2


def test_the_train_command_refuses_them_too():
    arguments = (2, 0, "10.0.0.1:29400", "10.0.0.1", "s3://shared/folder")
    with pytest.raises(UserError, match="Add --unauthenticated-exchange"):
        _nodes(*arguments, accepted=False)
    nodes = _nodes(*arguments, accepted=True)
    assert nodes is not None
    assert (nodes.count, nodes.address) == (2, "10.0.0.1")


def test_a_rank_that_waits_for_others_says_so_after_a_while_and_then_ever_more_rarely(monkeypatch, caplog):
    caplog.set_level("INFO", logger="headrace")
    now_s = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    monkeypatch.setattr(rendezvous.time, "monotonic", lambda: now_s)
    monkeypatch.setattr(rendezvous.time, "sleep", sleep)
    patience = rendezvous._Patience(0)
    for _ in range(120):
        patience.pause("1 of 2 ranks came")
    said = [record.fields for record in caplog.records if getattr(record, "event", "") == "rank.waits"]
    assert said == [{"rank": 0, "why": "1 of 2 ranks came"}] * 4
    now_s = 301.0
    with pytest.raises(rendezvous.RendezvousError, match="within 300 s: 1 of 2 ranks came"):
        patience.pause("1 of 2 ranks came")
