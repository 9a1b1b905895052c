"""Reasons are declared once, and what the code gives is declared; what is asked for is asked for in one way."""

import re
from pathlib import Path

import pytest

import pictures_spark
from pictures_spark.cli import main
from pictures_spark.quarantine import reasons
from pictures_spark.resources import load_schema

CODE = Path(pictures_spark.__file__).parent


def test_every_reason_that_reading_gives_is_declared_with_its_meaning():
    declared = load_schema("quarantine_reasons.yaml")["catalogue"]
    given, of_import = set(), set()
    for file in (CODE / "dicom").glob("*.py"):
        codes = of_import if file.stem == "imported" else given
        codes |= set(re.findall(r'(?:ScanError|_fail)\(\s*"([a-z_]+)"', file.read_text()))
    assert of_import == set(load_schema("quarantine_reasons.yaml")["mongo-import"])
    # A pipe or device is no object: it is counted as skipped.
    assert given - {"not_a_file"} <= set(declared)
    assert {"not_dicom", "truncated", "unreadable"} <= given
    assert all(reason["meaning"].endswith(".") and isinstance(reason["storage"], bool) for reason in declared.values())
    assert {code for code, reason in declared.items() if reason["storage"]} == {"unreadable", "timeout"}


def test_no_job_has_a_reason_twice():
    named = [(job, code) for job, code, _, _ in reasons()]
    assert len(named) == len(set(named))
    assert {job for job, _ in named} == {"catalogue", "mongo-import", "pixels", "records"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["quarantine", "waive", "o1"], "--because"),
        (["quarantine", "waive", "--because", "x"], "OBJECT_ID"),
        (["quarantine", "retry", "o1", "--reason", "truncated"], "not allowed with"),
        (["quarantine", "show"], "OBJECT_ID"),
        (["catalogue", "--limit", "0"], "must be 1 or more"),
        (["catalogue", "--limit", "many"], "invalid"),
    ],
)
def test_bad_usage_is_one_sentence(arguments, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 10
    assert says in capsys.readouterr().err
