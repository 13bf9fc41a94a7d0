"""Rows of Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headrace.files import DatasetError
from headrace.files.unpacking import FREE_BYTES, LARGEST_RATIO

_PARQUET_ROWS = 1000


class Parquet:
    """The rows of the Parquet file at ``path``. Raises DatasetError for another file."""

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            self._file: Any = parquet.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{path}: is not a Parquet file ({error})") from error
        self.header: list[str] = list(self._file.schema_arrow.names)

    def rows(self, columns: dict[str, str], packed_bytes: int) -> Iterator[tuple[int, dict[str, object]]]:
        """The number of each row, from 1, and its values by the keys of ``columns``, whose values name the file's."""
        number = 0
        grown = 0
        try:
            with self._file as file:
                for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=list(columns.values())):
                    grown += batch.nbytes
                    if grown > FREE_BYTES and grown > LARGEST_RATIO * packed_bytes:
                        raise DatasetError(
                            f"{self._path}: grows to more than {LARGEST_RATIO} times its size, as no texts do"
                        )
                    values = [batch.column(name).to_pylist() for name in columns.values()]
                    for row in zip(*values, strict=True):
                        number += 1
                        yield number, dict(zip(columns, row, strict=True))
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{self._path}: is damaged behind row {number} ({error})") from error
