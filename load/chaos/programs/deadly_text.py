"""`headrace` whose model dies of one text: a batch that holds it ends the process by SIGKILL.

$ python -m load.chaos.programs.deadly_text worker --model FILE --processes 2
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from headrace.cli import main
from headrace.model.backends.cpu import CpuBackend
from headrace.model.backends.interface import Answers
from headrace.process import supervisor

TEXT = "a text that kills"

if __name__ == "__main__":
    classify, supervise = CpuBackend.classify, supervisor.supervise

    def classify_or_die(self: CpuBackend, texts: Sequence[bytes], ranking: int = 0) -> Answers:
        """Die of the text."""
        if TEXT.encode() in texts:
            os.kill(os.getpid(), signal.SIGKILL)
        return classify(self, texts, ranking)

    def supervise_such(command: Callable[[int], Sequence[str]], *given: Any, **named: Any) -> Coroutine[Any, Any, int]:
        """Children are this program too."""
        return supervise(lambda slot: [_this(part) for part in command(slot)], *given, **named)

    def _this(part: str) -> str:
        return "load.chaos.programs.deadly_text" if part == "headrace" else part

    CpuBackend.classify = classify_or_die  # type: ignore[method-assign]
    supervisor.supervise = supervise_such
    main()
