"""Cohorts: a question in YAML becomes a typed graph, the graph one relational plan, and the plan the same answer on every engine."""

from typing import Any

# The words of `pictures_spark.cohort.fluent`, imported when one is asked for: jobs that need a part of this package load no more of it.
__all__ = [
    "Cohort",
    "all_of",
    "any_of",
    "between",
    "chain",
    "change",
    "cover",
    "day_of",
    "eq",
    "events",
    "ever",
    "first",
    "follow_up",
    "gap",
    "ge",
    "gt",
    "has",
    "hours",
    "lacks",
    "last",
    "le",
    "lt",
    "matches",
    "member",
    "missing",
    "ne",
    "nearest",
    "none_of",
    "one_of",
    "related",
    "report",
    "stay",
    "to_python",
    "where",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from pictures_spark.cohort import fluent

    return getattr(fluent, name)
