import asyncio
import json

from headrace.training.ranks.output import LONGEST_LINE, RANK_FAILED, Output, lines

# As torch 2.15 writes it when rank 1 is killed.
KILLED = """\
W1124 13:25:24.259000 28728 torch/distributed/elastic/api.py:1028] Sending process 28788 closing signal SIGTERM
Failures:
[1]:
  time      : 2026-11-24_13:25:24
  host      : localhost
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 28788)  (SIGTERM)
  error_file: <N/A>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_13:25:24
  host      : localhost
  rank      : 1 (local_rank: 1)
  exitcode  : -9 (pid: 28789)  (SIGKILL)
  error_file: <N/A>
"""


def failed(error: str, *, lasting: bool = False) -> str:
    return json.dumps({"event": RANK_FAILED, "error": error, "lasting": lasting})


def after(*texts: str) -> Output:
    output = Output()
    for line in "\n".join(texts).splitlines():
        output.take(line.encode())
    return output


def test_events_are_told_from_other_lines():
    output = Output()

    assert output.take(b'{"event": "training.epoch", "number": 1}') == {"event": "training.epoch", "number": 1}
    assert [output.take(line) for line in (b"{broken", b'{"no": "event"}', b"plain \xff", b"")] == [None] * 4


def test_a_killed_rank_is_named_before_what_its_neighbours_say_of_it():
    assert after(failed("Connection closed by peer"), KILLED).why() == (
        "rank 1 ended with exit code -9 (pid: 28789) (SIGKILL); Connection closed by peer"
    )


def test_a_reason_that_lasts_explains_all_whatever_comes_after_it():
    output = after(failed("there is no such file", lasting=True), failed("Connection closed by peer"), KILLED)

    assert output.lasting
    assert output.why() == "there is no such file"


def test_without_any_reason_the_last_lines_are_the_reason_without_those_of_torchrun():
    assert after("W1124 13:25:24.259000 1 torch/run.py:1] noise", "No module named nobody").why() == (
        "No module named nobody"
    )
    assert after().why() == "the ranks wrote nothing"


async def test_lines_are_cut_where_they_end_and_where_they_are_too_long():
    stream = asyncio.StreamReader()
    stream.feed_data(b"one\n\ntwo\n" + b"x" * (LONGEST_LINE + 1) + b"\nlast")
    stream.feed_eof()
    found = [line async for line in lines(stream)]

    assert found[:3] == [b"one", b"", b"two"]
    assert (b"".join(found[3:-1]), found[-1]) == (b"x" * (LONGEST_LINE + 1), b"last")
    assert max(map(len, found)) <= 2 * LONGEST_LINE
