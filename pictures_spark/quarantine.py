"""Look into quarantine: what could not be used, where it is, and why (identifiable zone, driver only)."""

from pictures_spark import tables
from pictures_spark.config import Config
from pictures_spark.errors import ConfigError
from pictures_spark.report import aligned
from pictures_spark.session import open_session
from pictures_spark.zones import Zones


def run(action: str, object_id: str | None, config: Config) -> None:
    """``list``: rows by job and reason. ``show``: one row by its object_id; it may name a path, so it is printed nowhere else.

    Raises
    ------
    ConfigError
        ``show`` without an object_id, or with one that is not in quarantine.
    """
    zones = Zones(config, "identifiable")
    rows = tables.read(open_session(config, zones), zones, "identifiable", "quarantine")
    if action == "list":
        counted = rows.groupBy("job", "reason").count().orderBy("job", "reason").collect()
        lines = [(f"{row['job']} {row['reason']}", f"{row['count']:,}") for row in counted]
        print("\n".join(aligned([*lines, ("total", f"{sum(row['count'] for row in counted):,}")])))
        return
    if object_id is None:
        raise ConfigError("which row? give its object_id, as in `pictures quarantine show OBJECT_ID`")
    found = rows.where(rows.object_id == object_id).orderBy("job").collect()
    if not found:
        raise ConfigError("no such object_id is in quarantine; `pictures quarantine list` counts what is")
    for row in found:
        print("\n".join(f"{name}: {value}" for name, value in row.asDict().items()))
