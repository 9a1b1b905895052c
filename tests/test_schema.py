"""schemas/ is the single truth: it is whole, and everything derived from it agrees."""

import subprocess
import sys

import pytest

from pictures_spark import docs
from pictures_spark.errors import ConfigError
from pictures_spark.schema import DUCKDB_TYPES, ZONES, _build, table, tables


@pytest.mark.parametrize("declared", [t for zone in ZONES for t in tables(zone)], ids=lambda t: f"{t.zone}.{t.name}")
def test_every_table_is_well_declared(declared):
    assert declared.meaning.endswith(".")
    assert set(declared.key) <= set(declared.names)
    for column in declared.columns:
        assert column.meaning.endswith("."), column.name
        assert column.name == column.name.lower(), column.name
        assert column.type in DUCKDB_TYPES
        if declared.zone != "identifiable":
            assert column.deid, column.name
            if column.dicom and column.deid == "keep":
                # A header value that crosses as it is must be a number in a range, a date or a time (DESIGN section 3).
                assert column.range or column.type == "date" or column.name.endswith("_time"), column.name
            if column.deid == "vocabulary" and column.dicom:
                assert column.vocabulary, column.name


def test_a_column_without_deid_cannot_exist_outside_the_identifiable_zone():
    raw = {"table": "t", "meaning": "x", "key": ["a"], "columns": [{"name": "a", "type": "string", "meaning": "b"}]}
    _build("identifiable", "t", raw)
    for zone in ("deidentified", "project"):
        with pytest.raises(ConfigError, match=rf"{zone}.t.a: needs deid"):
            _build(zone, "t", raw)


@pytest.mark.parametrize(
    ("column", "fault"),
    [
        ({"name": "a", "type": "text", "meaning": "b", "deid": "keep"}, "type 'text' is not one of"),
        ({"name": "a", "type": "string", "deid": "keep"}, "needs meaning"),
        ({"name": "a", "type": "string", "meaning": "b", "deid": "hide"}, "needs deid"),
        ({"name": "a", "type": "string", "meaning": "b", "deid": "keep", "colour": "red"}, "unknown field colour"),
        ({"name": "a", "type": "string", "meaning": "b", "deid": "keep", "vocabulary": "none"}, "vocabulary 'none' is not declared"),
        ({"name": "a", "type": "string", "meaning": "b", "deid": "keep", "rollup": "median"}, "rollup 'median'"),
        ({"name": "b", "type": "string", "meaning": "b", "deid": "keep"}, "key column a is not declared"),
    ],
)
def test_faulty_declarations_are_refused(column, fault):
    with pytest.raises(ConfigError, match=fault):
        _build("deidentified", "t", {"table": "t", "meaning": "x", "key": ["a"], "columns": [column]})


def test_an_undeclared_table_says_where_to_declare_it():
    with pytest.raises(ConfigError, match=r"add schemas/deidentified/nothing\.yaml"):
        table("deidentified", "nothing")


def test_generated_pages_are_up_to_date():
    for name, text in docs.pages().items():
        assert (docs.page_folder() / name).read_text(encoding="utf-8") == text, f"docs/{name} is stale: run make docs"


def test_importing_the_command_line_starts_nothing_heavy():
    code = "import sys, pictures_spark.cli; print([m for m in ('pyspark', 'pandas', 'pydicom', 'duckdb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
