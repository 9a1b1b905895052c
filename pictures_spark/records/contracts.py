"""What extracts are held to, counted by source and month: the rows of table record_contract. Pure; driver."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from functools import cache

from pictures_spark.resources import load_schema

ACCEPTED, DUPLICATE, SUPERSEDED, LEFT_OUT = "accepted", "duplicate", "superseded", "value_left_out"
KEPT, FRESHNESS = "kept", "freshness"
UNKNOWN = "unknown"
# (month, reason) -> rows, of one source.
Outcomes = Mapping[tuple[str, str], int]


@cache
def contract_of() -> dict[str, str]:
    """Reason -> the contract that it breaks."""
    return {ACCEPTED: KEPT} | {reason: contract for contract, reasons in load_schema("record_contracts.yaml").items() for reason in reasons}


def judged(outcomes: Outcomes, days: tuple[date, date], lag_days: int) -> list[tuple[str, str, str, int]]:
    """(month, contract, reason, row_count) of one source, sorted.

    A month of ``days``, the first and last that the source holds, has no rows where none is accepted; months that still lie within the
    lag are not looked at. Accepted rows of months before or after are outside its cover.

    Examples
    --------
    >>> judged({("2015-01", "accepted"): 5, ("2015-01", "bad_date"): 1}, (date(2015, 1, 1), date(2015, 3, 31)), 31)
    [('2015-01', 'kept', 'accepted', 5), ('2015-01', 'type', 'bad_date', 1), ('2015-02', 'freshness', 'no_rows', 0)]
    """
    found = [(month, contract_of()[reason], reason, count) for (month, reason), count in outcomes.items() if count]
    filled = Counter({month: count for (month, reason), count in outcomes.items() if reason == ACCEPTED and month != UNKNOWN})
    expected = list(_months(days[0], days[1] - timedelta(days=lag_days)))
    found += [(month, FRESHNESS, "no_rows", 0) for month in expected if not filled[month]]
    first, last = f"{days[0]:%Y-%m}", f"{days[1]:%Y-%m}"
    found += [(month, FRESHNESS, "outside_cover", count) for month, count in filled.items() if count and not first <= month <= last]
    return sorted(found)


def _months(first: date, last: date) -> Iterator[str]:
    """The months that begin to end within some days."""
    month = first.replace(day=1)
    while (after := (month + timedelta(days=31)).replace(day=1)) - timedelta(days=1) <= last:
        yield f"{month:%Y-%m}"
        month = after
