"""The whole house: counts balance, the answers are the generator's, and a second run changes nothing."""

import hashlib
import io
from collections import Counter

import pydicom
import pytest

from pictures_spark import demo
from pictures_spark.linkage.evidence import SAID

pytestmark = pytest.mark.spark


def content(folder):
    """Every file below a folder with its hash."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def tables_content(folder):
    """The same for Delta tables; scratch files of the shared session come and go."""
    return {name: digest for name, digest in content(folder).items() if name.startswith("tables/")}


def test_every_job_ended_well_and_its_counts_add_up(house):
    assert list(house.reports) == ["synth", "catalogue", "pixels", "records", "link", "publish", "select", "extract"]
    for report in house.reports.values():
        assert report.status == "ok"
        report.balance()
        assert report.counts["seen"] > 0


def test_every_archive_object_is_accounted_for(house):
    objects = Counter(row.status for row in house.read("identifiable", "object"))
    counts = house.reports["catalogue"].counts
    leaves = sum(n for status, n in objects.items() if status != "container")
    assert counts["seen"] == leaves
    assert counts["written"] == objects["catalogued"]
    quarantined = [row for row in house.read("identifiable", "quarantine") if row.job == "catalogue"]
    assert counts["quarantined"] == len(quarantined) == objects["quarantined"] > 0
    assert all(row.reason and row.locator for row in quarantined)


def test_every_planted_scan_is_catalogued_and_linked_to_the_right_person(house):
    scans = house.truth("scans")
    people = {row["chi"]: row["merged_into_upi"] or row["upi"] for row in house.truth("people")}
    instances = {row.sop_uid: row for row in house.read("identifiable", "header_instance")}
    crosswalk = {row.evidence_id: row for row in house.read("identifiable", "crosswalk") if row.source == "dicom" and row.valid_to is None}
    assert {scan["sop_uid"] for scan in scans} <= set(instances)
    right = wrong = unlinked = 0
    for scan in scans:
        said = [instances[scan["sop_uid"]][name] for name in SAID]
        link = crosswalk.get(hashlib.sha256("\x1f".join(str(part or "") for part in said).encode()).hexdigest())
        if link is None or link.upi is None:
            unlinked += 1
        elif scan["chi"] and link.upi == people[scan["chi"]]:
            right += 1
        else:
            wrong += 1
    assert wrong == 0
    assert right > 0.9 * len(scans)


def test_burned_in_names_are_found(house):
    planted = {row["sop_uid"] for row in house.truth("scans") if row["burned_in_text"]}
    verdicts = {}
    for row in house.read("identifiable", "pixel_text"):
        verdicts.setdefault(row.sop_uid, set()).add(row.verdict)
    assert planted
    assert {uid for uid in planted if verdicts.get(uid) != {"text"}} == set()


def test_the_cohort_is_the_one_that_was_planted(house):
    planted = {row["series_uid"] for row in house.truth("scans") if row["cohort_example"] == "1"}
    instances = {(row.sop_uid, row.content_sha256): row.series_uid for row in house.read("identifiable", "header_instance")}
    from pictures_spark.keys import key_ref, pseudonym
    from pictures_spark.zones import Zones

    key = key_ref(Zones(house.config, "identifiable"), house.config["keys"]["key_id"], "deidentified").bytes()
    by_id = {pseudonym(key, "series", uid): uid for uid in set(instances.values())}
    members = {by_id[row.unit_id] for row in house.read("deidentified", "cohort_member")}
    assert members == planted
    assert len(planted) >= 5


def test_what_was_delivered_opens_and_says_it_is_deidentified(house):
    delivery = house.home / "projects" / demo.PROJECT / demo.COHORT
    files = sorted(delivery.rglob("*.dcm"))
    assert len(files) == house.reports["extract"].counts["written"] > 0
    for file in files:
        dataset = pydicom.dcmread(file)
        assert dataset.pixel_array.size
        assert dataset.PatientIdentityRemoved == "YES"
        assert str(dataset.SOPInstanceUID) == file.stem
        assert str(dataset.PatientID) == file.relative_to(delivery / "images").parts[0]


def test_no_name_can_be_read_in_a_delivered_picture(house):
    from pictures_spark.pixels.decode import decode
    from pictures_spark.pixels.text import find_text
    from pictures_spark.pixels.window import to_8bit

    words = {row["value"].lower() for row in house.truth("canaries") if len(row["value"]) >= 6}
    delivery = house.home / "projects" / demo.PROJECT / demo.COHORT
    for file in sorted(delivery.rglob("*.dcm")):
        for frame in decode(file.read_bytes(), 10**8).frames():
            for box in find_text(to_8bit(frame)):
                assert not any(word in box.text.lower() for word in words)


def test_the_printed_table_adds_up_and_says_what_to_open(house):
    lines = house.printed.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("job "))
    for line in lines[start + 1 : start + 9]:
        numbers = [int(word.replace(",", "")) for word in line.split()[1:-1] if word not in ("=", "+")]
        assert numbers[0] == sum(numbers[1:5]), line
    assert "Open next:" in house.printed
    assert "01_open_a_package.ipynb" in house.printed


def test_a_second_run_changes_nothing(house):
    before = {zone: tables_content(house.home / zone) for zone in ("identifiable", "deidentified")}
    before |= {zone: content(house.home / zone) for zone in ("archive", "extracts", "projects")}
    reports = demo.run(house.config)
    for report in reports:
        assert report.counts.get("written", 0) == 0, report.job
        report.balance()
    after = {zone: tables_content(house.home / zone) for zone in ("identifiable", "deidentified")}
    after |= {zone: content(house.home / zone) for zone in ("archive", "extracts", "projects")}
    assert after == before


def test_counts_by_the_embedded_reader_are_those_of_the_freeze(house, capsys):
    from pictures_spark.cli import main

    arguments = ["cohort", "count", str(demo.question()), "--conf-file", str(house.config.path)]
    assert main([*arguments, "--as", "coordinator", "--purpose", "test"]) == 0
    printed = capsys.readouterr().out
    attrition = sorted(house.read("deidentified", "cohort_attrition"), key=lambda row: row.step_index)
    for row in attrition:
        assert any(row.step_id in line and f"{row.kept:,}" in line for line in printed.splitlines()), row.step_id
    assert io.StringIO(printed).readline()


def test_the_frozen_cohort_is_replayed_and_each_member_is_explained(house, capsys):
    from pictures_spark.cli import main

    trusted = ["--as", "data_manager", "--purpose", "test", "--conf-file", str(house.config.path)]
    members = [row.unit_id for row in house.read("deidentified", "cohort_member")]
    assert main(["cohort", "replay", demo.COHORT, *trusted]) == 0
    assert capsys.readouterr().out.startswith(f"the same {len(members)} members of ")
    assert main(["cohort", "why", demo.COHORT, members[0], *trusted]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "is in the cohort" in said[0]
    assert {line.split()[1] for line in said[1:]} == {"yes"}
    levels = {(row.step_index, row.level): row.kept for row in house.read("deidentified", "cohort_level")}
    last = max(index for index, _ in levels)
    assert levels[last, "series"] == len(members)
    series = house.read("deidentified", "series")
    assert levels[0, "image"] == sum(row.image_count for row in series)
    assert levels[0, "study"] == len({row.study_id for row in series})


def test_the_audit_chain_of_the_house_holds_and_has_its_jobs(house, capsys):
    import json

    from pictures_spark.cli import main

    arguments = ["--conf-file", str(house.config.path)]
    assert main(["audit", "list", *arguments]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["action"] for event in events[:3]] == ["publish", "freeze", "extract"]
    assert main(["audit", "verify", *arguments]) == 0
