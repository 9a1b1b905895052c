"""The writer: declared columns only, safe values only, exactly once."""

import pytest

from pictures_spark import tables
from pictures_spark.errors import ChecksFailedError, ZoneViolationError
from pictures_spark.schema import table
from pictures_spark.zones import Zones

pytestmark = pytest.mark.spark


def tag_rows(spark, rows):
    return spark.createDataFrame(rows, table("deidentified", "residence").spark_type())


def test_undeclared_column_is_refused(spark, config):
    df = tag_rows(spark, []).selectExpr("*", "'x' AS postcode")
    with pytest.raises(ChecksFailedError, match="refuses undeclared column postcode"):
        tables.append(df, Zones(config, "publisher"), "deidentified", "residence")


def test_value_outside_its_range_stops_the_write_and_is_not_quoted(spark, config):
    from datetime import date

    good = ("p1", date(2010, 1, 1), None, "S08000024", 3, "2020", "r", "run")
    bad = ("p2", date(2010, 1, 1), None, "S08000024", 1234567890, "2020", "r", "run")
    zones = Zones(config, "publisher")
    tables.append(tag_rows(spark, [good]), zones, "deidentified", "residence")
    with pytest.raises(ChecksFailedError, match="column simd_quintile has a value that is outside its range") as caught:
        tables.append(tag_rows(spark, [bad]), zones, "deidentified", "residence")
    assert "1234567890" not in str(caught.value)
    assert tables.read(spark, zones, "deidentified", "residence").count() == 1


def test_append_under_one_transaction_name_adds_once(spark, config):
    from datetime import date

    row = ("p1", date(2010, 1, 1), None, None, None, None, "r", "run")
    zones = Zones(config, "publisher")
    for _ in range(2):
        tables.append(tag_rows(spark, [row]), zones, "deidentified", "residence", txn="run-0")
    assert tables.read(spark, zones, "deidentified", "residence").count() == 1


def test_batches_may_be_committed_in_any_order(spark, config):
    """Delta skips a version that is not above the last one of its app id: hence a name for each batch."""
    from datetime import date

    zones = Zones(config, "publisher")
    for batch in (7, 6, 8, 6):
        row = (f"p{batch}", date(2010, 1, 1), None, None, None, None, "r", "run")
        tables.append(tag_rows(spark, [row]), zones, "deidentified", "residence", txn=f"run-{batch}")
    assert sorted(row.patient_id for row in tables.read(spark, zones, "deidentified", "residence").collect()) == ["p6", "p7", "p8"]


def test_a_merge_of_few_rows_opens_and_rewrites_few_of_many_files(spark, config):
    """By the table's own log: of 12 files with a shelf each, a change of two rows on two shelves opens two and rewrites none."""
    from delta.tables import DeltaTable
    from pyspark.sql import functions as F

    zones = Zones(config, "identifiable")
    declared = table("identifiable", "object")

    def rows(numbers, status):
        fixed = {"kind": "dicom", "status": status, "run_id": f"run {status}"}
        values = [{**fixed, "object_id": f"o{n}", "locator": f"p{n}", "path": f"p{n}", "shelf": n // 10} for n in numbers]
        full = [tuple(value.get(name) for name in declared.names) for value in values]
        return spark.createDataFrame(full, declared.spark_type())

    tables.append(rows(range(120), "catalogued").repartitionByRange(12, "shelf"), zones, "identifiable", "object")
    target = DeltaTable.forPath(spark, zones.table("identifiable", "object"))
    files = tables.read(spark, zones, "identifiable", "object")
    assert len(files.inputFiles()) == 12
    assert len(files.where(tables.within("shelf", [3, 7])).inputFiles()) == 2
    tables.merge(rows([31, 75], "vanished"), zones, "identifiable", "object", shelves=[3, 7])
    (done,) = target.history(1).collect()
    metrics = {name: int(number) for name, number in done.operationMetrics.items()}
    assert done.operation == "MERGE"
    assert (metrics["numTargetRowsUpdated"], metrics["numTargetRowsInserted"]) == (2, 0)
    assert (metrics["numTargetFilesRemoved"], metrics["numTargetRowsCopied"]) == (0, 0)
    # A shelf that the rows are not on is not looked at: the merge has no other way to find its files.
    tables.merge(rows([119], "vanished"), zones, "identifiable", "object", shelves=[0])
    after = tables.read(spark, zones, "identifiable", "object")
    assert after.where(F.col("object_id") == "o119").count() == 2


def test_the_rows_of_each_file_of_events_stand_in_the_order_that_questions_look_for(spark, config):
    from datetime import date

    import pyarrow.parquet as pq

    declared, zones = table("deidentified", "event"), Zones(config, "publisher")
    kinds = [("diagnosis", "icd10", "I63"), ("diagnosis", "icd10", "I61"), ("death", None, None), ("diagnosis", "icd10", "I61")]
    values = {"source": "smr01", "release": "r", "run_id": "run"}
    rows = [
        values | {"event_id": f"{n:032x}", "patient_id": f"{n % 7:032x}", "kind": kind, "system": system, "code": code}
        for n, (kind, system, code) in enumerate(kinds * 5)
    ]
    full = [tuple((row | {"date": date(2010, 1, 20 - n)}).get(name) for name in declared.names) for n, row in enumerate(rows)]
    tables.replace(spark.createDataFrame(full, declared.spark_type()).repartition(2), zones, "deidentified", "event")
    files = list(zones.path("deidentified", "tables", "event").glob("*.parquet"))
    assert files
    for file in files:
        found = pq.read_table(file, columns=["kind", "system", "code", "date"]).to_pylist()
        assert found == sorted(found, key=lambda row: tuple((value is not None, value) for value in row.values()))


def test_maintenance_compacts_once_and_keeps_what_is_there(spark, config, capsys):
    from pictures_spark import maintain

    zones = Zones(config, "identifiable")
    row = {"kind": "sop", "run_id": "run"}
    for shelf in range(3):
        values = [{**row, "shelf": shelf, "first_uid": f"1.{shelf}", "last_uid": f"1.{shelf}"}]
        full = [tuple(value.get(name) for name in table("identifiable", "header_span").names) for value in values]
        frame = spark.createDataFrame(full, table("identifiable", "header_span").spark_type())
        tables.append(frame, zones, "identifiable", "header_span")
    before = tables.read(spark, zones, "identifiable", "header_span").orderBy("shelf").collect()
    maintain.run(config, "identifiable")
    (size,) = maintain.sizes(spark, zones, "identifiable")
    assert (size.name, size.rows, size.files) == ("header_span", 3, 1)
    assert "header_span" in capsys.readouterr().out
    version = tables.version(spark, zones, "identifiable", "header_span")
    maintain.run(config, "identifiable")
    assert tables.version(spark, zones, "identifiable", "header_span") == version
    assert tables.read(spark, zones, "identifiable", "header_span").orderBy("shelf").collect() == before


@pytest.mark.parametrize("pinned", [True, False])
def test_maintenance_keeps_what_a_release_pins_and_only_that(spark, config, monkeypatch, capsys, pinned):
    import json
    from datetime import date, datetime

    from pictures_spark import maintain

    zones = Zones(config, "deidentified")
    for number in (1, 2):
        row = (f"p{number}", date(2010, 1, 1), None, None, None, None, "r", "run")
        tables.replace(tag_rows(spark, [row]), zones, "deidentified", "residence")
    if pinned:
        versions = json.dumps({"residence": 0, "image": None})
        release = ("f", datetime(2020, 1, 1), versions, "{}", "{}", "k1", "r", "run")
        frame = spark.createDataFrame([release], table("deidentified", "release").spark_type())
        tables.append(frame, zones, "deidentified", "release")
    # As if a week were nothing.
    monkeypatch.setattr(maintain, "LEAST_HOURS", 0)
    spark.conf.set("spark.databricks.delta.retentionDurationCheck.enabled", "false")
    try:
        maintain.run(config, "deidentified")
    finally:
        spark.conf.unset("spark.databricks.delta.retentionDurationCheck.enabled")
    assert [row.patient_id for row in tables.read(spark, zones, "deidentified", "residence").collect()] == ["p2"]
    old = tables.read(spark, zones, "deidentified", "residence", 0)
    if pinned:
        assert [row.patient_id for row in old.collect()] == ["p1"]
    else:
        with pytest.raises(Exception, match=r"FILE_NOT_EXIST|DELTA_FILE_NOT_FOUND|does not exist"):
            old.collect()


def test_a_role_cannot_write_what_is_not_its_own(spark, config):
    with pytest.raises(ZoneViolationError, match="role counter may not write zone deidentified"):
        tables.append(tag_rows(spark, []), Zones(config, "counter"), "deidentified", "residence")


def test_merge_keeps_first_and_adds_attempts(spark, config):
    from datetime import datetime

    zones = Zones(config, "identifiable")
    declared = table("identifiable", "quarantine")

    def row(day):
        return (
            "o1",
            "a/b",
            "catalogue",
            "truncated",
            None,
            datetime(2020, 1, day),
            datetime(2020, 1, day),
            1,
            None,
            None,
            None,
            None,
            f"run{day}",
        )

    for day in (1, 2):
        df = spark.createDataFrame([row(day)], declared.spark_type())
        tables.merge(df, zones, "identifiable", "quarantine", keep=("first_seen",), add=("attempts",))
    (merged,) = tables.read(spark, zones, "identifiable", "quarantine").collect()
    assert (merged.first_seen, merged.last_seen, merged.attempts) == (datetime(2020, 1, 1), datetime(2020, 1, 2), 2)
