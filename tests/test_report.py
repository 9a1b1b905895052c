"""Reports balance, are written whatever happens, and quote nothing."""

import json

import pytest

from pictures_spark.errors import ChecksFailedError, ConfigError, QuarantineLimitError
from pictures_spark.job import run_job
from pictures_spark.report import Report


def reports(config):
    return [json.loads(path.read_text()) for path in sorted((config.home / "reports").glob("*.json"))]


def test_counts_that_do_not_add_up_fail_the_job(config):
    def heart(job):
        job.report.counts = {"seen": 3, "written": 1, "quarantined": 1}
        job.report.quarantined = {"truncated": 1}

    with pytest.raises(ChecksFailedError, match="seen 3 but quarantined 1 \\+ written 1 = 2"):
        run_job("catalogue", config, "identifiable", heart)
    assert [r["status"] for r in reports(config)] == ["failed"]


def test_quarantine_reasons_must_add_up():
    report = Report("x", counts={"seen": 1, "quarantined": 1}, quarantined={})
    with pytest.raises(ChecksFailedError, match="reasons"):
        report.balance()


def test_an_unexpected_error_is_named_by_its_class_only(config):
    def heart(job):
        raise RuntimeError("SMITHSON^JANE 0101501234")

    with pytest.raises(RuntimeError):
        run_job("catalogue", config, "identifiable", heart)
    (report,) = reports(config)
    assert report["message"] == "unexpected RuntimeError"
    assert "SMITHSON" not in json.dumps(report)


def test_a_good_report_has_the_contract_fields(config, capsys):
    def heart(job):
        job.report.counts = {"seen": 2, "written": 1, "unchanged": 1}

    run_job("catalogue", config, "identifiable", heart)
    (report,) = reports(config)
    assert {"job", "run_id", "started", "ended", "status", "counts", "quarantined", "rates", "versions", "tables"} <= set(report)
    assert report["status"] == "ok"
    assert "catalogue: ok" in capsys.readouterr().out


def test_quarantine_above_the_limit_ends_with_20(config):
    def heart(job):
        job.report.counts = {"seen": 10, "written": 5, "quarantined": 5}
        job.report.quarantined = {"truncated": 5}
        job.check_quarantine_limit()

    with pytest.raises(QuarantineLimitError, match="5 of 10") as caught:
        run_job("catalogue", config, "identifiable", heart)
    assert caught.value.exit_code == 20


def test_a_role_that_needs_a_project_says_so(config):
    with pytest.raises(ConfigError, match="project name"):
        run_job("extract", config, "extractor", lambda job: None)
