"""What others would take: Naive Bayes, TF-IDF with logistic regression, and fastText, on the same rows as headrace.

All see the same words as headrace, and pairs of neighbours. fastText is the package `fasttext-wheel` (0.9.2, whose
wheels are those of fastText 0.9.2) with pairs of words, its rows shuffled by the seed; where it is not installed its
column is left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from headrace.learning.data.files import Rows
from headrace.model.words import split_words

_MOST_WORDS = 2048
_WORD = r"\S+"
_FAST_TEXT = {"wordNgrams": 2, "epoch": 25, "lr": 0.5, "dim": 100, "minCount": 1, "thread": 1, "verbose": 0}

Answer = Callable[[Rows, Sequence[str], int], list[str]]


def worded(texts: Sequence[str]) -> list[str]:
    """The words of each text as headrace cuts them, joined by blanks."""
    return [" ".join(split_words(text, _MOST_WORDS)) for text in texts]


def naive_bayes(train: Rows, test: Sequence[str], seed: int) -> list[str]:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    counts = CountVectorizer(token_pattern=_WORD, ngram_range=(1, 2), lowercase=False, binary=True)
    fitted = MultinomialNB(alpha=0.1).fit(counts.fit_transform(worded(train.texts)), train.labels)
    return [str(label) for label in fitted.predict(counts.transform(worded(test)))]


def tf_idf(train: Rows, test: Sequence[str], seed: int) -> list[str]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    weights = TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), lowercase=False, sublinear_tf=True)
    fitted = LogisticRegression(C=10.0, max_iter=300, random_state=seed).fit(
        weights.fit_transform(worded(train.texts)), train.labels
    )
    return [str(label) for label in fitted.predict(weights.transform(worded(test)))]


def fast_text(train: Rows, test: Sequence[str], seed: int) -> list[str]:
    import fasttext

    names = sorted(set(train.labels))
    rows = list(zip(worded(train.texts), train.labels, strict=True))
    random.Random(seed).shuffle(rows)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "rows.txt"
        file.write_text("".join(f"__label__{names.index(label)} {text}\n" for text, label in rows), "utf-8")
        model = fasttext.train_supervised(input=str(file), seed=seed, **_FAST_TEXT)
    # Not model.predict, which asks numpy 2 for what it no longer does.
    found = (model.f.predict(f"{text}\n", 1, 0.0, "strict") for text in worded(test))
    return [names[int(best[0][1].removeprefix("__label__"))] if best else "" for best in found]


def baselines() -> dict[str, Answer]:
    """The baselines that can be run here, by name."""
    found: dict[str, Answer] = {"NB": naive_bayes, "TF-IDF": tf_idf}
    return found | {"fastText": fast_text} if find_spec("fasttext") else found
