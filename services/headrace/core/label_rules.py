"""Label rules: a class is renamed, several classes become one, or a class is retired.

A rule says as which label an old or new label is learnt from now on. The labels themselves stay as people gave them, so
that a rule can be undone. Rules follow each other: after ``a`` to ``b`` and ``b`` to ``c``, ``a`` is learnt as ``c``. A
circle is refused before it is written (:func:`refusal`). If two people close a circle at the same moment, its labels
stay what they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.core.text import label_name

Rules = Mapping[str, str | None]
"""What each label becomes, None for a retired one; names as :func:`label_name` spells them."""


def rules_of(decided: Iterable[tuple[str, str | None]]) -> dict[str, str | None]:
    """Rules by label, from pairs of a label and what it becomes."""
    named = {label_name(label): None if becomes is None else label_name(becomes) for label, becomes in decided}
    return {label: named[label] for label in sorted(named)}


def learnt_as(label: str, rules: Rules) -> str | None:
    """The label as which ``label`` is learnt; None when it is retired."""
    seen = {label}
    last = label
    while last in rules:
        following = rules[last]
        if following is None:
            return None
        if following in seen:
            return label
        seen.add(following)
        last = following
    return last


def answered_as(label: str, rules: Rules) -> str:
    """How the answer of a version from before the rules counts in a comparison: a retired label stays, and is wrong."""
    return learnt_as(label, rules) or label


def refusal(rules: Rules, label: str, becomes: str | None) -> str | None:
    """Why ``label`` can't become ``becomes``, in words; None where it can."""
    if not label or becomes == "":
        return "A label has a name."
    if label == becomes:
        return f"{label} is that label already."
    if becomes is None:
        return None
    chain = [becomes]
    while (following := rules.get(chain[-1], chain[-1])) is not None and following not in chain:
        chain.append(following)
    if label in chain:
        way = " becomes ".join(chain[: chain.index(label) + 1])
        return f"{label} can't become {becomes}, because {way}: they would go in a circle. Undo a rule of these first."
    if following is None:
        return f"{becomes} is no longer given, so {label} can't become it. Undo the rule of {chain[-1]} first."
    return None
