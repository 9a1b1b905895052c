"""Reports from extract to findings in the identifiable zone: corrections, what is broken, and that a report is read once."""

import csv
import io

import pytest
from houses import only_chaos, settings

from pictures_spark import tables
from pictures_spark.job import run_job
from pictures_spark.keys import init_key
from pictures_spark.radiology import read
from pictures_spark.records import load
from pictures_spark.records.source import source
from pictures_spark.zones import Zones

pytestmark = pytest.mark.spark
CHI = "0101010001"


def extract(*rows):
    columns = [column.name for column in source("reports").columns]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="")
    writer.writeheader()
    for key, text, more in rows:
        base = {"CHI": CHI, "REPORT_ID": key, "ACCESSION_NUMBER": f"A{key}", "REPORT_DATE": "02/01/2015", "REPORT_STATUS": "F"}
        writer.writerow({**base, "REPORT_TEXT": text, **more})
    return out.getvalue()


@only_chaos
def test_reports_are_read_once_and_again_where_they_or_the_rules_change(tmp_path, spark, monkeypatch):
    config = settings(tmp_path, records={"quarantine_limit": 1.0})
    config["records"]["sources"] = {"reports": config["records"]["sources"]["reports"]}
    zones = Zones(config, "identifiable")
    init_key(zones, "k1")
    folder = tmp_path / "extracts"
    folder.mkdir()

    def loaded():
        report = run_job("records", config, "identifiable", load.run)
        report.balance()
        rows = tables.read(spark, zones, "identifiable", "record_report_finding").collect()
        return report, sorted((row.report_key, row.finding, row.polarity, row.certainty, row.subject) for row in rows if row.finding), rows

    (folder / "reports1.csv").write_text(
        extract(
            ("1", 'Findings: "large" mass,\nno nodule.\n\nAddendum: no mass.', {}),
            ("2", "Normal.", {}),
            ("3", "Mass.", {"CHI": CHI[1:]}),
            ("4", "Mass.", {"CHI": ""}),
            ("5", "Mass.", {"REPORT_DATE": "31/02/2015"}),
            ("6", "", {}),
        )
    )
    report, told, rows = loaded()
    assert report.quarantined == {"missing_person_id": 1, "bad_date": 1, "missing_value": 1}
    assert report.details["reports_read"] == 3
    assert told == [
        ("1", "mass", "negated", "certain", "patient"),
        ("1", "nodule", "negated", "certain", "patient"),
        ("3", "mass", "affirmed", "certain", "patient"),
    ]
    assert {row.report_key for row in rows if row.finding is None} == {"2"}
    with pytest.MonkeyPatch.context() as patch:
        # Not even looked at.
        patch.setattr(read, "_findings_of", None)
        patch.setattr(tables, "remove", None)
        report, again, _ = loaded()
    assert "reports_read" not in report.details
    assert again == told

    (folder / "reports2.csv").write_text(extract(("3", "Addended. ?mass", {"REPORT_STATUS": "A", "REPORT_DATE": "03/01/2015"})))
    report, told, rows = loaded()
    assert report.details["reports_read"] == 1
    assert [row for row in told if row[0] == "3"] == [("3", "mass", "affirmed", "possible", "patient")]
    kept = {row.report_key: row.status for row in tables.read(spark, zones, "identifiable", "record_report").collect()}
    assert kept == {"1": "final", "2": "final", "3": "addended"}

    monkeypatch.setattr(read, "nlp_version", lambda: "2.0-other")
    report, again, rows = loaded()
    assert report.details["reports_read"] == 3
    assert again == told
    assert {row.nlp_version for row in rows} == {"2.0-other"}
