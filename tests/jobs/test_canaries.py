"""The leak test: no identifier of any synthetic person or sample file is outside the identifiable zone, in any form.

It stays in the suite for ever. If it fails, something leaked: mend the leak, never the test.
"""

from pathlib import Path
from urllib.parse import urlparse

import pytest
from leaks import Scanner

from pictures_spark.resources import conf_dir, schemas_dir

pytestmark = pytest.mark.spark

# The archive and the extracts are identifiable by nature; everything else is searched.
OUTSIDE = ("deidentified", "projects", "reports", "governance")


@pytest.fixture(scope="module")
def scanner(house):
    """A scanner for every canary but those that are words of our own published files, such as a sample file's patient called ANONYMOUS."""
    values = {row["value"] for row in house.truth("canaries")}
    published = "\n".join(
        path.read_text(encoding="utf-8", errors="replace").lower()
        for folder in (schemas_dir(), conf_dir(), Path(__file__).parents[2] / "pictures_spark")
        for path in folder.rglob("*")
        if path.suffix in (".yaml", ".json", ".csv", ".py", ".md")
    )
    synthetic = {row["value"] for row in house.truth("canaries") if row["kind"].startswith("synthetic")}
    kept = synthetic | {value for value in values if value.strip().lower() not in published}
    return Scanner(kept)


def test_the_canaries_are_many_and_of_every_kind(house, scanner):
    kinds = {row["kind"] for row in house.truth("canaries")}
    assert len(scanner.long) > 1000
    assert len(kinds) >= 6
    for person in house.truth("people"):
        for value in (person["chi"], person["forename"], person["surname"], person["birth_date"]):
            assert value.lower() in scanner.long
        assert len(person["forename"]) >= 8
        assert len(person["surname"]) >= 8
    for scan in house.truth("scans"):
        for value in (scan["accession"], scan["study_uid"], scan["series_uid"], scan["sop_uid"]):
            assert value.lower() in scanner.long


def test_the_scanner_finds_the_canaries_where_they_belong(house, scanner):
    """The same scan inside the identifiable zone must be full of hits, or it looks at the wrong thing."""
    for name in ("header_instance", "person", "record_event", "record_reports", "record_report", "pixel_text"):
        hits = scanner.scan(house.home / "identifiable" / "tables" / name)
        assert any(hit.form.startswith("parquet column") for hit in hits), name
    assert scanner.scan(house.home / "identifiable" / "mongodb")


def test_report_texts_hold_canaries_of_every_kind(house):
    """Names of patients and of who referred or reported, numbers, birth dates and words that are in no other file: all are searched for."""
    texts = [row.text.lower() for row in house.read("identifiable", "record_report")]
    told = {}
    for row in house.truth("canaries"):
        told.setdefault(row["kind"], []).append(row["value"].lower())
    for kind in ("synthetic_name", "synthetic_chi", "synthetic_birth_date", "synthetic_physician", "synthetic_report"):
        assert any(value in text for value in told[kind] for text in texts), kind
    assert len(texts) > 20
    assert all(any(word in text for word in told["synthetic_report"]) for text in texts)


@pytest.mark.parametrize("zone", OUTSIDE)
def test_no_canary_outside_the_identifiable_zone(house, scanner, zone):
    folder = house.home / zone
    assert any(folder.rglob("*")), "nothing to search"
    hits = scanner.scan(folder)
    assert sorted({(hit.place, hit.form, hit.shape) for hit in hits}) == []


def test_no_canary_in_what_was_printed(house, scanner):
    assert scanner.text(house.printed) == set()
    assert scanner.bytes(house.printed.encode()) == set()


def test_no_canary_in_spark_event_logs(house, scanner):
    events = Path(urlparse(house.spark.sparkContext.getConf().get("spark.eventLog.dir")).path)
    assert any(path.is_file() for path in events.rglob("*")), "no event log to search"
    assert sorted({(hit.place, hit.form, hit.shape) for hit in scanner.scan(events)}) == []


def test_no_true_path_of_the_archive_outside_the_identifiable_zone(house):
    """Paths carry dates and accessions; their parts are looked for wherever they would be most likely: reports and what was printed."""
    locators = {row.locator for row in house.read("identifiable", "object")}
    names = {Path(locator.split("!")[0]).name for locator in locators if len(Path(locator.split("!")[0]).name) >= 12}
    scanner = Scanner(names)
    assert scanner.scan(house.home / "reports") == []
    assert scanner.text(house.printed) == set()
