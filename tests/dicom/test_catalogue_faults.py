"""One house through a limit, a mount that goes away in the middle, a retry, a waiver and a change that undoes it."""

import pytest
from houses import only_chaos, settings
from small_archive import House, image, run

from pictures_spark import quarantine
from pictures_spark.dicom import catalogue
from pictures_spark.errors import ConfigError, InputError, QuarantineLimitError
from pictures_spark.job import Job, run_job
from pictures_spark.keys import init_key
from pictures_spark.report import Report
from pictures_spark.zones import Zones

pytestmark = [pytest.mark.spark, pytest.mark.chaos, only_chaos]

CATALOGUE = {"quarantine_limit": 0.15, "batch_bytes": 1 << 20, "io_failure_minimum": 1}


@pytest.fixture(scope="module")
def house(tmp_path_factory, _session):
    config = settings(tmp_path_factory.mktemp("house"), catalogue=CATALOGUE)
    house = House(config, _session)
    (house.archive / "scans").mkdir(parents=True)
    for number in (1, 2, 3):
        (house.archive / "scans" / f"{number}.dcm").write_bytes(image(number))
    (house.archive / "notes.txt").write_text("nothing")
    init_key(house.zones, "k1")
    return house


def counts(house):
    """What the last report says."""
    return {name: number for name, number in house.report.counts.items() if number}


def run_limited(config, limit):
    reports = []

    def heart(job):
        reports.append(job.report)
        catalogue.run(job, limit)

    with pytest.raises(QuarantineLimitError, match="1 of 4 inputs are in quarantine and not waived"):
        run_job("catalogue", config, "identifiable", heart)
    return reports[0]


def test_a_limit_leaves_files_to_the_next_run_and_a_dry_run_tells_of_them(house, capsys):
    house.report = run_limited(house.config, 2)
    assert counts(house) == {"seen": 4, "written": 1, "quarantined": 1, "skipped_over_limit": 2}
    assert house.report.details["reading_tasks"] == 2
    before = house.versions()
    catalogue.print_preview(house.config)
    told = dict(line.strip().rsplit("  ", 1) for line in capsys.readouterr().out.splitlines()[1:])
    told = {name.strip(): value.strip() for name, value in told.items()}
    size = sum((house.archive / "scans" / f"{number}.dcm").stat().st_size for number in (2, 3))
    assert (told["files listed"], told["files new"], told["bytes"], told["batches"]) == ("4", "2", f"{size:,}", "1")
    assert told["minutes are reckoned from"] == f"run {house.report.run_id}"
    job = Job("catalogue", house.config, Zones(house.config, "identifiable"), Report("catalogue"))
    lines = dict(catalogue.preview(job, 1))
    assert (lines["files new"], lines["left for the next run"]) == ("1", "1")
    assert house.versions() == before


def test_waived_objects_stay_listed_with_who_when_and_why(house, capsys):
    assert quarantine.waive(house.config, None, "not_dicom", "a vendor's readme") == 1
    (waived,) = house.rows("quarantine")
    assert waived["waived_because"] == "a vendor's readme"
    assert waived["waived_by"]
    version = house.versions()["quarantine"]
    assert quarantine.waive(house.config, waived["object_id"], None, "again") == 0
    assert house.rows("quarantine") == [waived]
    assert house.versions()["quarantine"] == version
    quarantine.print_counts(house.config)
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-2:]] == [
        ["catalogue", "not_dicom", "1", "1", "0", "1"],
        ["total", "1", "1", "0"],
    ]
    with pytest.raises(ConfigError, match="no reason is called"):
        quarantine.retry(house.config, reason="no_such")
    with pytest.raises(ConfigError, match="no such object_id"):
        quarantine.waive(house.config, "nobody", None, "x")


@pytest.mark.parametrize("away", ["archive/scans", "archive"])
def test_a_mount_that_goes_away_in_the_middle_stops_the_job_and_quarantines_nothing(house, monkeypatch, away):
    """The second time the job goes on with the first one's plan, and the whole archive goes."""
    if away == "archive/scans":
        quarantine.retry(house.config, reason="not_dicom")
    before = house.versions()
    place = house.config.home / away
    real = catalogue.Catalogue.execute

    def without_mount(self, *arguments, **options):
        place.rename(place.with_name("away"))
        try:
            real(self, *arguments, **options)
        finally:
            place.with_name("away").rename(place)

    monkeypatch.setattr(catalogue.Catalogue, "execute", without_mount)
    with pytest.raises(InputError, match="is the mount there") as stopped:
        run(house.config)
    assert stopped.value.exit_code == 11
    assert house.versions() | {"catalogue_plan": 0} == before | {"catalogue_plan": 0}


def test_with_the_mount_back_the_same_command_goes_on_and_plans_what_has_appeared(house):
    (house.archive / "scans" / "4.dcm").write_bytes(image(4))
    house.report = run(house.config)
    assert counts(house) == {"seen": 5, "written": 3, "unchanged": 1, "quarantined": 1}
    assert house.report.details["waived"] == 1
    # The object in quarantine was tried again, unchanged: its waiver stands.
    (held,) = house.rows("quarantine")
    assert (held["attempts"], held["waived_because"], held["retry"]) == (2, "a vendor's readme", None)
    plans = {}
    for row in house.rows("catalogue_plan"):
        plans.setdefault(row["run_id"], []).append((row["path"], row["change"]))
    assert sorted(sorted(plan) for plan in plans.values()) == [
        [("notes.txt", "new"), ("scans/1.dcm", "new")],
        [("notes.txt", "retry"), ("scans/2.dcm", "new"), ("scans/3.dcm", "new")],
        [("scans/4.dcm", "new")],
    ]
    assert len(house.rows("header_instance")) == 4
    shelves = {row["path"]: row["shelf"] for row in house.rows("object")}
    assert shelves == {"notes.txt": 0, "scans/1.dcm": 0, "scans/2.dcm": 1, "scans/3.dcm": 1, "scans/4.dcm": 2}


def test_a_change_undoes_the_waiver(house):
    (house.archive / "notes.txt").write_text("nothing else")
    with pytest.raises(QuarantineLimitError, match="1 of 5 inputs"):
        run(house.config)
    (held,) = house.rows("quarantine")
    assert (held["attempts"], held["waived_at"], held["waived_by"]) == (3, None, None)
