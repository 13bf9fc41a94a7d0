import asyncio
import json

from headrace.learning.distributed.launch import LONGEST_LINE, Output, lines
from headrace.learning.distributed.rendezvous import RANK_FAILED


def failed(error: str, *, lasting: bool = False) -> str:
    return json.dumps({"event": RANK_FAILED, "error": error, "lasting": lasting})


def after(*texts: str, rank: int = 0) -> Output:
    output = Output()
    for text in texts:
        output.take(rank, text.encode())
    return output


def test_events_are_told_from_other_lines():
    output = Output()

    assert output.take(0, b'{"event": "training.epoch", "number": 1}') == {"event": "training.epoch", "number": 1}
    assert [output.take(0, line) for line in (b"{broken", b'{"no": "event"}', b"plain \xff", b"")] == [None] * 4


def test_a_killed_rank_is_named_before_what_its_neighbours_say_of_it():
    output = after(failed("Connection closed by peer"))
    output.ended(0, 1)
    output.ended(1, -9)

    assert output.why() == "rank 1 ended by SIGKILL; Connection closed by peer"


def test_a_rank_that_gave_its_reason_is_explained_by_it_and_not_by_its_exit_code():
    output = after(failed("the store is away"))
    output.ended(0, 1)

    assert output.why() == "the store is away"


def test_a_reason_that_lasts_explains_all_whatever_comes_after_it():
    output = after(failed("there is no such file", lasting=True), failed("Connection closed by peer"))
    output.ended(1, -9)

    assert output.lasting == output.why() == "there is no such file"


def test_without_any_reason_the_exit_code_is_the_reason_and_the_last_lines_stand_apart():
    output = after("No module named nobody")
    output.ended(0, 1)

    assert output.why() == "rank 0 ended with exit code 1"
    assert output.last_lines() == "No module named nobody"
    assert after().why() == "the ranks gave no reason"


async def test_lines_are_cut_where_they_end_and_where_they_are_too_long():
    stream = asyncio.StreamReader()
    stream.feed_data(b"one\n\ntwo\n" + b"x" * (LONGEST_LINE + 1) + b"\nlast")
    stream.feed_eof()
    found = [line async for line in lines(stream)]

    assert found[:3] == [b"one", b"", b"two"]
    assert (b"".join(found[3:-1]), found[-1]) == (b"x" * (LONGEST_LINE + 1), b"last")
    assert max(map(len, found)) <= 2 * LONGEST_LINE
