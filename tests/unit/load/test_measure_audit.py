from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace_load.measure.audit import ANSWERED, SENT, STATUSES, audited, join

requests = st.lists(
    st.fixed_dictionaries(
        {
            "partition": st.integers(0, 3),
            "offset": st.integers(0, 6),
            "crc": st.integers(0, 2),
            "good": st.booleans(),
            "acked": st.booleans(),
        }
    ),
    max_size=25,
    unique_by=lambda request: (request["partition"], request["offset"]),
)
answers = st.lists(
    st.fixed_dictionaries(
        {
            "number": st.integers(-1, 30),
            "partition": st.integers(0, 4),
            "offset": st.integers(0, 7),
            "crc": st.integers(0, 2),
            "status": st.integers(0, len(STATUSES) - 1),
            "hole": st.booleans(),
            "appended_us": st.integers(0, 10_000_000),
        }
    ),
    max_size=40,
)


def rows_of(published, read):
    sent = np.zeros(len(published), SENT)
    for place, request in enumerate(published):
        sent[place]["number"] = place
        for name in ("partition", "crc", "good"):
            sent[place][name] = request[name]
        sent[place]["offset"] = request["offset"] if request["acked"] else -1
        sent[place]["acked_us"] = 5 if request["acked"] else -1
    answered = np.zeros(len(read), ANSWERED)
    for place, answer in enumerate(read):
        answered[place]["position"] = place
        for name, value in answer.items():
            answered[place][name] = value
    return sent, answered


@given(requests, answers, st.sampled_from(["log", "id"]), st.integers(0, 5))
def test_the_audit_counts_as_somebody_would_who_looks_at_each_request_alone(published, read, by, more):
    sent, answered = rows_of(published, read)
    found = audited(sent, answered, by, records=len(read) + more)

    def name(answer):
        return answer["number"] if by == "id" else (answer["partition"], answer["offset"])

    ours = {}
    for number, request in enumerate(published):
        if by == "id":
            ours[number] = request
        elif request["acked"]:
            ours[request["partition"], request["offset"]] = request
    given_to: Counter = Counter(name(answer) for answer in read if name(answer) in ours)
    first = {}
    for answer in read:
        if name(answer) in ours:
            first.setdefault(name(answer), answer)
    must = [key for key, request in ours.items() if request["acked"] and (by == "log" or request["good"])]

    assert found.published == sum(request["acked"] for request in published)
    assert found.answered == len(given_to)
    assert found.lost == sum(key not in given_to for key in must)
    assert found.repeated == sum(given_to.values()) - len(given_to)
    assert found.dropped == (more if by == "log" else 0)
    assert found.holes == sum(answer["hole"] for answer in read)
    assert found.by_status == Counter(STATUSES[answer["status"]] for answer in first.values())
    times = [answer["appended_us"] for answer in first.values()]
    assert found.seconds == (max(times) - min(times)) / 1e6 if times else found.seconds == 0
    if by == "log":
        assert found.wrong == sum(answer["crc"] != ours[key]["crc"] for key, answer in first.items())
        assert found.out_of_order == sum(
            any(
                before["partition"] == answer["partition"] and before["offset"] > answer["offset"]
                for before in read[:n]
            )
            for n, answer in enumerate(read)
        )
    else:
        assert (found.wrong, found.out_of_order) == (0, 0)


@given(requests, answers, st.sampled_from(["log", "id"]))
def test_each_request_is_joined_with_its_first_answer(published, read, by):
    sent, answered = rows_of(published, read)
    for place, at in zip(range(len(sent)), join(sent, answered, by), strict=True):
        if by == "id":
            matching = [n for n, answer in enumerate(read) if answer["number"] == place]
        else:
            where = (int(sent[place]["partition"]), int(sent[place]["offset"]))
            matching = [n for n, answer in enumerate(read) if (answer["partition"], answer["offset"]) == where]
        assert at == (matching[0] if matching else -1)


def test_an_audit_is_kept_when_nothing_is_wrong():
    sent, answered = rows_of(
        [{"partition": 0, "offset": 4, "crc": 1, "good": True, "acked": True}],
        [{"number": -1, "partition": 0, "offset": 4, "crc": 1, "status": 0, "hole": False, "appended_us": 1}],
    )
    assert audited(sent, answered, "log", records=2).kept
    assert not audited(sent, answered[:0], "log", records=0).kept
