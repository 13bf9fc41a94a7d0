"""Which errors are for who runs a command, and the exit code of each; any other is a fault of the harness itself."""

from __future__ import annotations

from aiokafka.errors import KafkaError as AioKafkaError

from headrace.client import KafkaError
from headrace.files.output import OutputError
from headrace.security.private_folder import NoFolderError
from headrace_load.contender import ContenderError
from headrace_load.measure.processes import MeasuringError
from headrace_load.place import PlaceError
from headrace_load.processes import ProgramError
from headrace_load.result import ResultError
from headrace_load.system import KafkaSettingsError
from headrace_load.workload.recording import RecordingError
from headrace_load.workload.spec import WorkloadError

USAGE = (ContenderError, WorkloadError, PlaceError, KafkaSettingsError, ResultError, OutputError, FileExistsError)
FAILED = (ProgramError, MeasuringError, NoFolderError, RecordingError, KafkaError, AioKafkaError, OSError, TimeoutError)


def code_of(error: Exception) -> int | None:
    """2 for what was asked for, 1 for what failed, None for what nobody expects; of a group the highest of all."""
    if isinstance(error, ExceptionGroup):
        codes = [code_of(one) for one in error.exceptions]
        return None if None in codes else max(code for code in codes if code is not None)
    if isinstance(error, USAGE):
        return 2
    return 1 if isinstance(error, FAILED) else None


def told(error: Exception) -> str:
    """What a person is shown of an error: its message and notes, of a group those of all in it, a line each."""
    if isinstance(error, ExceptionGroup):
        return "\n".join(dict.fromkeys(told(one) for one in error.exceptions))
    return "\n".join([str(error), *getattr(error, "__notes__", ())])
