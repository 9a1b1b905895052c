"""The tables of a house several times over, in minutes: every copy has people, scans and events of its own, otherwise the same.

For the growth of what is asked of a release (benchmarks/cohort.py). To draw ten times as much anew takes `pictures import-idc` an hour;
here DuckDB copies the Parquet files, row for row in their order, with other ids, and the first commit of each table lists them.
"""

import json
import re
import shutil
from pathlib import Path

import duckdb

from pictures_spark.config import load_config
from pictures_spark.zones import Zones

# Tables that tell of the whole: their rows are no more in a larger house.
WHOLE = ("release", "source_cover")


def grown(settings: Path, folder: Path, times: int = 10) -> Path:
    """Settings of a house in ``folder`` with ``times`` as many people as that of ``settings``, made if it is not there."""
    target = folder / "conf.yaml"
    if target.exists():
        return target
    source = Zones(load_config(settings), "counter").path("deidentified", "tables")
    shutil.rmtree(folder, ignore_errors=True)
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        for table in sorted(source.iterdir()):
            copy = folder / "house" / source.parent.name / source.name / table.name
            if table.name in WHOLE:
                shutil.copytree(table, copy)
            else:
                copy.mkdir(parents=True)
                _copied(connection, table, copy, times)
    target.write_text(re.sub(r"(?m)^home: .*$", "home: house", settings.read_text()))
    return target


def _copied(connection: duckdb.DuckDBPyConnection, table: Path, copy: Path, times: int) -> None:
    """The files of a table's only version so many times, and the commit that lists them."""
    (commit,) = sorted((table / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in commit.read_text().splitlines()]
    kept = [action for action in actions if action.keys() & {"protocol", "metaData"}]
    for name in (action["add"]["path"] for action in actions if "add" in action):
        columns = connection.execute(f"DESCRIBE SELECT * FROM read_parquet('{table / name}')").fetchall()
        ids = [column for column, kind, *_ in columns if kind == "VARCHAR" and (column.endswith("_id") or column == "dup_of")]
        ids = [column for column in ids if column not in ("run_id", "station_id")]
        for number in range(times):
            other = ", ".join(f"md5({column} || '/{number}') AS {column}" for column in ids) if number else ""
            path = copy / f"part-{number:02d}-{name.removesuffix('.parquet')}.parquet"
            chosen = f"* REPLACE ({other})" if other else "*"
            connection.execute(f"COPY (SELECT {chosen} FROM read_parquet('{table / name}')) TO '{path}' (FORMAT parquet)")
            (rows,) = connection.execute(f"SELECT count(*) FROM read_parquet('{path}')").fetchone() or (0,)
            said = {"path": path.name, "partitionValues": {}, "size": path.stat().st_size, "modificationTime": 0, "dataChange": True}
            kept.append({"add": {**said, "stats": json.dumps({"numRecords": rows})}})
    log = copy / "_delta_log"
    log.mkdir()
    (log / commit.name).write_text("".join(json.dumps(action) + "\n" for action in kept))
