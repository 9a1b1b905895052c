"""Keep the Delta tables of a zone in shape: few large files, and none that no readable version needs.

Tables that grow by the batch are compacted, their rows brought together by shelf (Delta's liquid clustering, which leaves alone what it has
clustered before). Files that no version since the oldest pinned one needs are removed; what a release pins stays readable, however old it
is. Doing it again changes nothing. Runs on the driver; the work is Spark's.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Any

from pictures_spark import tables
from pictures_spark.config import Config
from pictures_spark.errors import InputError
from pictures_spark.report import progress, utc_now
from pictures_spark.schema import Table
from pictures_spark.schema import tables as declared_tables
from pictures_spark.session import open_session
from pictures_spark.zones import Zones

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The role that may write a zone.
ROLES = {"identifiable": "identifiable", "deidentified": "deidentified"}
# Delta's own least: a reader that started a week ago still finds its files.
LEAST_HOURS = 168
# Commits are kept as long as anything may pin them. Delta's default of 30 days would make older releases unreadable.
_LOG = "interval 36500 days"


@dataclass(frozen=True)
class Size:
    """What a table takes on disk, by its newest version."""

    name: str
    rows: int
    files: int
    size: int

    @property
    def per_row(self) -> float:
        """Bytes per row."""
        return self.size / self.rows if self.rows else 0.0


def sizes(spark: "SparkSession", zones: Zones, zone: str) -> list[Size]:
    """Of each table of the zone that was written: rows, files and bytes, as Delta's log says; no data are read."""
    found = []
    for declared in declared_tables(zone):
        if tables.exists(spark, zones, zone, declared.name):
            (detail,) = spark.sql(f"DESCRIBE DETAIL delta.`{zones.table(zone, declared.name)}`").select("numFiles", "sizeInBytes").collect()
            rows = tables.read(spark, zones, zone, declared.name).count()
            found.append(Size(declared.name, rows, int(detail.numFiles), int(detail.sizeInBytes)))
    return found


def run(config: Config, zone: str, dry_run: bool = False) -> None:
    """Maintain the tables of a zone and print their sizes.

    Raises
    ------
    InputError
        A job is writing one of the tables.
    """
    from delta.exceptions import DeltaConcurrentModificationException

    zones = Zones(config, ROLES[zone])
    spark = open_session(config, zones)
    if not dry_run:
        # Its two log entries would make a new version of a table that has not changed, and `publish` would make a new release of it.
        spark.conf.set("spark.databricks.delta.vacuum.logging.enabled", "false")
        # VACUUM lists folders in so many tasks, 10,000 by default, however few the folders are.
        spark.conf.set("spark.sql.sources.parallelPartitionDiscovery.parallelism", str(4 * spark.sparkContext.defaultParallelism))
        pinned = _pinned(spark, zones) if zone == "deidentified" else {}
        for declared in declared_tables(zone):
            if tables.exists(spark, zones, zone, declared.name):
                progress(f"maintain: {declared.name}")
                try:
                    _maintain(spark, zones, declared, pinned.get(declared.name))
                except DeltaConcurrentModificationException:
                    raise InputError(
                        f"maintain: a job writes table {declared.name}: run it again when no job runs; nothing is lost"
                    ) from None
    print("\n".join(lines(sizes(spark, zones, zone))))


def lines(found: list[Size]) -> list[str]:
    """The printed table."""
    width = max((len(size.name) for size in found), default=5)
    head = f"  {'table':<{width}}  {'rows':>15}  {'files':>9}  {'bytes':>18}  {'bytes/row':>11}"
    return [head, *(f"  {s.name:<{width}}  {s.rows:>15,}  {s.files:>9,}  {s.size:>18,}  {s.per_row:>11,.1f}" for s in found)]


def hours_to_keep(now: datetime, oldest: datetime | None) -> int:
    """How many hours back files must be kept: a week, or since the oldest pinned version was written.

    Examples
    --------
    >>> hours_to_keep(datetime(2026, 3, 1), None), hours_to_keep(datetime(2026, 3, 1), datetime(2026, 1, 1))
    (168, 1417)
    """
    if oldest is None:
        return LEAST_HOURS
    return max(LEAST_HOURS, ceil((now - oldest).total_seconds() / 3600) + 1)


def _pinned(spark: "SparkSession", zones: Zones) -> dict[str, int]:
    """Oldest version of each de-identified table that a release or a frozen cohort is made of."""
    texts = [row[0] for row in tables.read(spark, zones, "deidentified", "release").select("table_versions").collect()]
    frozen = tables.read(spark, zones, "deidentified", "cohort_run").select("manifest").collect()
    pins: list[dict[str, Any]] = [json.loads(text) for text in texts]
    pins += [json.loads(row[0]).get("table_versions", {}) for row in frozen]
    oldest: dict[str, int] = {}
    for versions in pins:
        for name, version in versions.items():
            if version is not None:
                oldest[name] = min(int(version), oldest.get(name, int(version)))
    return oldest


def _maintain(spark: "SparkSession", zones: Zones, declared: Table, pinned: int | None) -> None:
    location = f"delta.`{zones.table(declared.zone, declared.name, 'write')}`"
    (detail,) = spark.sql(f"DESCRIBE DETAIL {location}").select("properties", "clusteringColumns").collect()
    if declared.zone != "identifiable" and detail.properties.get("delta.logRetentionDuration") != _LOG:
        spark.sql(f"ALTER TABLE {location} SET TBLPROPERTIES ('delta.logRetentionDuration' = '{_LOG}')")
    # What is replaced as a whole has its order and few files.
    if declared.layout is not None and not declared.layout.order:
        if tuple(detail.clusteringColumns or ()) != declared.layout.cluster:
            spark.sql(f"ALTER TABLE {location} CLUSTER BY ({', '.join(declared.layout.cluster)})")
        spark.sql(f"OPTIMIZE {location}")
    oldest = None
    if pinned is not None:
        written = (
            spark.sql(f"DESCRIBE HISTORY {location}").where(f"version = {pinned}").selectExpr("unix_seconds(timestamp) AS at").collect()
        )
        # Where even the log no longer has it, nothing that is there can be told not to be needed.
        if not written:
            return
        oldest = datetime.fromtimestamp(written[0]["at"], UTC).replace(tzinfo=None)
    spark.sql(f"VACUUM {location} RETAIN {hours_to_keep(utc_now(), oldest)} HOURS")
