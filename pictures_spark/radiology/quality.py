"""How well findings are read: precision and recall against labels, each with its Wilson interval. Pure.

A label is text of the form ``haemorrhage-; mass+?; infarct+/family``: finding, polarity (+ affirmed, - negated), ``?`` where only possible,
and the subject where it is not the patient.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pictures_spark.radiology.findings import Finding

_LABEL = re.compile(r"([a-z_]+)([+-])(\?)?(?:/([a-z]+))?")


@dataclass(frozen=True)
class Score:
    """What was found and rightly so (``right``), found wrongly (``extra``), and not found (``missed``)."""

    name: str
    right: int
    extra: int
    missed: int

    @property
    def precision(self) -> float:
        """Share of what was found that is right; 1 where nothing was found."""
        return self.right / (self.right + self.extra) if self.right + self.extra else 1.0

    @property
    def recall(self) -> float:
        """Share of what is true that was found; 1 where nothing is true."""
        return self.right / (self.right + self.missed) if self.right + self.missed else 1.0


def labels(text: str) -> frozenset[Finding]:
    """The findings of a label.

    Examples
    --------
    >>> labels("mass+?/family")
    frozenset({Finding(finding='mass', polarity='affirmed', certainty='possible', subject='family')})
    """
    found = set()
    for part in filter(None, (part.strip() for part in text.split(";"))):
        match = _LABEL.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is not a label such as mass+? or infarct-/family")
        name, sign, query, subject = match.groups()
        found.add(Finding(name, "affirmed" if sign == "+" else "negated", "possible" if query else "certain", subject or "patient"))
    return frozenset(found)


def scores(pairs: Iterable[tuple[Iterable[Finding], Iterable[Finding]]]) -> list[Score]:
    """Scores of (found, true) of each text.

    First over all and per finding, where everything about a finding must be right; then per value of each attribute, where finding and that
    attribute must be.
    """
    sets = [(frozenset(found), frozenset(true)) for found, true in pairs]
    names = sorted({one.finding for pair in sets for side in pair for one in side})
    told = [_score("all", sets, lambda one: one)]
    told += [_score(name, sets, lambda one, name=name: one if one.finding == name else None) for name in names]  # type: ignore[misc]
    for attribute, values in (
        ("polarity", ("affirmed", "negated")),
        ("certainty", ("certain", "possible")),
        ("subject", ("patient", "family", "other")),
    ):
        for value in values:
            told.append(
                _score(
                    f"{attribute} {value}",
                    sets,
                    lambda one, attribute=attribute, value=value: one.finding if getattr(one, attribute) == value else None,  # type: ignore[misc]
                )
            )
    return told


def wilson(right: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Bounds of the 95 % interval of a share (Wilson 1927); (0, 1) of nothing.

    Examples
    --------
    >>> [round(bound, 3) for bound in wilson(95, 100)]
    [0.888, 0.978]
    """
    if not of:
        return 0.0, 1.0
    share = right / of
    middle = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (middle - half) / (1 + z * z / of)), min(1.0, (middle + half) / (1 + z * z / of))


def table(told: Iterable[Score]) -> list[str]:
    """Scores as the lines of a Markdown table."""
    lines = ["| what | n | precision | 95 % | recall | 95 % |", "|---|---|---|---|---|---|"]
    for score in told:
        found, true = score.right + score.extra, score.right + score.missed
        bounds = [" - ".join(f"{bound:.3f}" for bound in wilson(score.right, of)) for of in (found, true)]
        lines.append(f"| {score.name} | {true} | {score.precision:.3f} | {bounds[0]} | {score.recall:.3f} | {bounds[1]} |")
    return lines


def _score(name: str, pairs: list[tuple[frozenset[Finding], frozenset[Finding]]], part: Callable[[Finding], object]) -> Score:
    right = extra = missed = 0
    for found, true in pairs:
        mine, theirs = ({part(one) for one in side} - {None} for side in (found, true))
        right += len(mine & theirs)
        extra += len(mine - theirs)
        missed += len(theirs - mine)
    return Score(name, right, extra, missed)
