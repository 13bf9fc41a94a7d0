"""What producers and readers write down: one row a request or an answer, as numpy structured arrays.

Times are int64 microseconds since the Unix epoch, all by this machine's clock but ``appended_us``, which is the
broker's (a record's timestamp, in whole milliseconds).
"""

from __future__ import annotations

import numpy as np

SENT = np.dtype(
    [
        ("number", np.int64),  # of the request in the whole workload, from 0; also its id where ids are asked for
        ("partition", np.int32),
        ("offset", np.int64),  # -1: not acknowledged
        ("crc", np.uint32),
        ("bytes", np.int32),  # of the value
        ("good", np.bool_),  # False: rubbish on purpose
        ("due_us", np.int64),
        ("sent_us", np.int64),
        ("acked_us", np.int64),
    ]
)

ANSWERED = np.dtype(
    [
        ("number", np.int64),  # by id; -1 where answers are known by partition and offset
        ("partition", np.int32),
        ("offset", np.int64),  # of the request
        ("position", np.int64),  # of the answer
        ("crc", np.uint32),
        ("status", np.int8),  # index in STATUSES
        ("hole", np.bool_),  # the reader saw a hole before it
        ("appended_us", np.int64),
        ("arrived_us", np.int64),  # -1: read after the run
    ]
)

STATUSES = ("ok", "expired", "failed")
