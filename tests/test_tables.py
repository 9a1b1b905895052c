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
