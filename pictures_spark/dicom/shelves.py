"""Which shelves of the header tables may hold given UIDs.

A shelf is what one batch wrote. Each shelf has a few closed ranges of UIDs (table ``header_span``), and a UID outside all of them is not on
it. Devices count upwards in their UIDs, so the ranges of a new batch meet those of few earlier ones; UIDs drawn by lot meet all, which is
slow but right. The ranges are compared here, in the driver, and never in a query: the plan of a query is shown to operators, and a UID
identifies. Pure.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

Span = tuple[str, str]
# Ranges of one kind on one shelf: some for each device that a batch has, at 130 bytes each.
LIMIT = 256


def covering(ranges: Iterable[Span], limit: int = LIMIT) -> list[Span]:
    """At most ``limit`` disjoint closed ranges, in order, that cover all given ones.

    Neighbours that have the longest beginning in common are joined first, because they are of one device.

    Examples
    --------
    >>> covering([("1.2.5", "1.2.7"), ("1.2.6", "1.2.8"), ("1.9", "1.9")])
    [('1.2.5', '1.2.8'), ('1.9', '1.9')]
    >>> covering([("1.2.5", "1.2.5"), ("1.2.9", "1.2.9"), ("1.9", "1.9")], 2)
    [('1.2.5', '1.2.9'), ('1.9', '1.9')]
    """
    joined: list[Span] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    shared = [_shared(before[1], after[0]) for before, after in pairwise(joined)]
    apart = sorted(sorted(range(len(shared)), key=lambda i: (shared[i], i))[: limit - 1])
    starts, ends = [0, *(i + 1 for i in apart)], [*apart, len(joined) - 1]
    return [(joined[start][0], joined[end][1]) for start, end in zip(starts, ends, strict=True)] if joined else []


class Shelves:
    """The ranges of one kind of UID, by shelf."""

    def __init__(self, rows: Iterable[tuple[int, str, str]]) -> None:
        self._spans: dict[int, list[Span]] = {}
        found = defaultdict(list)
        for shelf, first, last in rows:
            found[shelf].append((first, last))
        for shelf, ranges in found.items():
            self.add(shelf, ranges)

    def add(self, shelf: int, ranges: list[Span]) -> None:
        """Let a shelf have further ranges."""
        ranges = [*self._spans.get(shelf, []), *ranges]
        self._spans[shelf] = covering(ranges, len(ranges))

    def find(self, wanted: list[Span]) -> list[int]:
        """Shelves that may hold a UID of ``wanted``, in order."""
        wanted = covering(wanted, max(1, len(wanted)))
        return sorted(shelf for shelf, ranges in self._spans.items() if _meet(wanted, ranges))


def _meet(some: list[Span], others: list[Span]) -> bool:
    """Whether two lists of disjoint ordered ranges have a UID in common."""
    if len(some) > len(others):
        some, others = others, some
    lasts = [last for _, last in others]
    for first, last in some:
        at = bisect_left(lasts, first)
        if at < len(others) and others[at][0] <= last:
            return True
    return False


def _shared(one: str, other: str) -> int:
    """Length of the beginning that two UIDs have in common."""
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length
