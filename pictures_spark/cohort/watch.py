"""``pictures cohort watch FILE``: a question that is being written, answered again whenever the file is saved.

The release is held in memory (`pictures_spark.cohort.live`), so an edit is answered in a fraction of a second. For roles that see exact
counts, each answer an event of the audit chain; what others may see depends on all that they have seen, which `count` keeps account of.
"""

import time
from collections.abc import Callable
from pathlib import Path

from pictures_spark.cohort import attrition, commands, duck, live
from pictures_spark.cohort.model import saved_cohorts
from pictures_spark.config import Config
from pictures_spark.errors import ConfigError, NotPermittedError, PicturesError
from pictures_spark.readers import Reader
from pictures_spark.zones import Zones

_PAUSE = 0.1  # seconds between two looks at the file


def run(question: str, config: Config, reader: Reader, goes_on: Callable[[], bool] = lambda: True) -> None:
    """Print the attrition of a question now and after every change of its file, until interrupted; faults are told and waited out.

    The release is the newest one at the start.

    Raises
    ------
    NotPermittedError
        The reader does not see exact counts.
    ConfigError
        There is no such file.
    InputError
        Nothing is published.
    """
    if not reader.exact:
        raise NotPermittedError("cohort watch shows exact counts, which this role does not see: use `pictures cohort count`")
    path, zones, seen = Path(question), Zones(config, "counter"), None
    if not path.is_file():
        raise ConfigError(f"question {path} cannot be read: give the path of a cohort specification, YAML")
    with live.opened(zones) as held:
        try:
            while goes_on():
                now = _state(path)
                if now != seen:
                    seen = now
                    print("\n".join(_told(held, path, zones, reader)), flush=True)
                time.sleep(_PAUSE)
        except KeyboardInterrupt:
            return


def _state(path: Path) -> tuple[int, int] | None:
    """What changes when a file is saved; None where there is none just now, as while an editor replaces it."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _told(held: live.Live, path: Path, zones: Zones, reader: Reader) -> list[str]:
    try:
        asked = commands.load(path)
        if saved_cohorts(asked.question):
            with duck.reader(zones) as connection:
                asked = commands.with_saved(connection, zones, asked, held.release)
        start = time.perf_counter()
        found = held.ask(asked.question, asked.codes, str(path), asked.saved)
        took = time.perf_counter() - start
    except PicturesError as error:
        return ["", str(error)]
    last = found.levels[-1]
    commands.audited(zones, "count", asked, held.release, reader, {"units": last.kept, "patients": last.kept_patients})
    return ["", *attrition.lines(asked.question.unit, found.levels), f"  {took:.2f} s"]
