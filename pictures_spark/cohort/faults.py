"""Faults of a question, gathered so that a user sees all of them at once, each one sentence with the nearest name that exists."""

from collections.abc import Iterable
from difflib import get_close_matches

from pictures_spark.errors import ConfigError

# A message may not be longer than somebody would read.
_TOLD = 40
# Words of other languages for conditions.
_MEANT = {"not": "none", "and": "all", "or": "any", "exclude": "none", "without": "lacks", "filter": "where", "before": "window"}


class QuestionError(ConfigError):
    """A question cannot be asked. ``faults`` holds one sentence each, in the order of the question."""

    def __init__(self, source: str, faults: Iterable[str]) -> None:
        self.faults = tuple(dict.fromkeys(faults))
        many = f"{len(self.faults)} faults: " if len(self.faults) > 1 else ""
        more = f"; and {len(self.faults) - _TOLD} more" if len(self.faults) > _TOLD else ""
        super().__init__(f"question {source}: {many}{'; '.join(self.faults[:_TOLD])}{more}")


def nearest(name: str, names: Iterable[str]) -> str:
    """``", did you mean X?"`` where a known name is near, else ``", it is one of …"`` where there are few, else nothing."""
    known = [str(n) for n in names]
    meant = [_MEANT[name]] if _MEANT.get(name) in known else []
    for spelt in (name, name.upper(), name.lower()):
        meant = meant or get_close_matches(spelt, known, n=1, cutoff=0.6)
    if meant:
        return f", did you mean {meant[0]}?"
    return f"; there is {', '.join(known)}" if 0 < len(known) <= 16 else ""
