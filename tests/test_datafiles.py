"""Data files that workers write: what Delta makes of them is what Spark would have written, and nothing that is not as declared."""

import json
from datetime import date

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pictures_spark import datafiles, tables
from pictures_spark.cohort import duck
from pictures_spark.errors import ChecksFailedError
from pictures_spark.schema import Column, Table, table
from pictures_spark.zones import Zones

DECLARED = Table(
    "identifiable",
    "thing",
    "Things.",
    ("id",),
    (
        Column("id", "string", "Name.", nullable=False),
        Column("n", "long", "Number."),
        Column("day", "date", "Day."),
        Column("run_id", "string", "Run.", nullable=False),
    ),
)


def rows(ids, n=(1,), day=(None,)):
    columns = {"run_id": ["r"] * len(ids), "day": pa.array(day, pa.date32()), "n": pa.array(n, pa.int32()), "id": ids}
    return pa.table({**columns, "other": ids})


def test_a_file_is_as_declared_and_says_what_is_in_it(tmp_path):
    parts = [rows(["b", "c"], (5, None), (date(2015, 3, 1), None)), rows(["a"], (-2,))]
    file = datafiles.write(parts, DECLARED, str(tmp_path / "thing"), unique=("id",), bounds=("id",))
    path = tmp_path / "thing" / file.name
    assert (file.rows, file.size) == (3, path.stat().st_size)
    found = pq.read_table(path)
    assert found.schema.equals(pa.schema([("id", pa.string()), ("n", pa.int64()), ("day", pa.date32()), ("run_id", pa.string())]))
    assert found["id"].to_pylist() == ["b", "c", "a"]
    assert (file.span("id"), file.span("n"), file.span("day")) == (("a", "c"), (-2, 5), ("2015-03-01", "2015-03-01"))
    assert file.span("run_id") == (None, None)
    told = json.loads(file.statistics)
    assert (told["numRecords"], told["nullCount"]) == (3, {"id": 0, "n": 1, "day": 2, "run_id": 0})


def test_where_there_are_no_rows_no_file_is_left(tmp_path):
    for parts in ([], [rows(["a"]).slice(1)]):
        assert datafiles.write(parts, DECLARED, str(tmp_path)).rows == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("part", "says"),
    [
        (rows(["a"]).drop_columns("n"), "table identifiable.thing needs column n"),
        (rows([None]), "column id has a value that is missing"),
    ],
)
def test_what_is_not_as_declared_is_refused(tmp_path, part, says):
    with pytest.raises(ChecksFailedError, match=says):
        datafiles.write([part], DECLARED, str(tmp_path))


def test_text_is_no_number(tmp_path):
    part = rows(["a"]).set_column(2, "n", pa.array(["x"]))
    with pytest.raises(pa.ArrowInvalid):
        datafiles.write([part], DECLARED, str(tmp_path))


@pytest.mark.spark
def test_committed_files_are_read_beside_those_of_spark_and_others_are_not(spark, config):
    zones, name = Zones(config, "identifiable"), "source_cover"
    declared, folder = table("identifiable", name), zones.table("identifiable", name, "write")
    assert tables.mounted(spark, zones, "identifiable", name)

    def cover(source, days=(date(2008, 1, 1), date(2019, 12, 31))):
        return (source, "demo", *days, 3, ["lab"], "r1")

    def file(*sources):
        types = {column.name: column.arrow_type for column in declared.columns}
        columns = list(zip(*[cover(source) for source in sources], strict=True))
        part = pa.table({n: pa.array(list(values), types[n]) for n, values in zip(types, columns, strict=True)})
        return datafiles.write([part], declared, folder, bounds=("source",))

    written = [file("a", "b"), file("c")]
    file("never committed")
    tables.commit(spark, zones, "identifiable", name, written)
    tables.append(spark.createDataFrame([cover("d")], declared.spark_type()), zones, "identifiable", name)
    tables.commit(spark, zones, "identifiable", name, [file("e")])
    frame = tables.read(spark, zones, "identifiable", name)
    assert sorted(tuple(row) for row in frame.collect()) == [cover(source) for source in "abcde"]
    assert [row.source for row in frame.where("source > 'c' AND source <= 'd'").collect()] == ["d"]
    assert [row.source for row in frame.where("from_date > '2010-01-01'").collect()] == []
    # The empty table, and three writes.
    assert tables.version(spark, zones, "identifiable", name) == 3
    with duckdb.connect() as db:
        db.load_extension(str(duck._extension()))
        assert db.sql(f"SELECT count(*), min(from_date) FROM delta_scan('{folder}')").fetchone() == (5, date(2008, 1, 1))


@pytest.mark.spark
def test_a_table_of_other_columns_takes_no_files(spark, config):
    zones = Zones(config, "identifiable")
    spark.createDataFrame([("a",)], "source string").write.format("delta").save(zones.table("identifiable", "source_cover", "write"))
    with pytest.raises(ChecksFailedError, match="must be made anew"):
        tables.commit(spark, zones, "identifiable", "source_cover", [])
