"""Reports through the whole house: what is published of them is what the generator planted, and none of their words is anywhere else."""

from collections import Counter, defaultdict

import pytest

from pictures_spark.keys import key_ref, pseudonym
from pictures_spark.radiology.findings import Finding, nlp_version
from pictures_spark.radiology.quality import scores
from pictures_spark.zones import Zones

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def zone_id(house):
    key = key_ref(Zones(house.config, "identifiable"), house.config["keys"]["key_id"], "deidentified").bytes()
    return lambda kind, value: pseudonym(key, kind, value)


@pytest.fixture(scope="module")
def published(house):
    return {row.report_id: row for row in house.read("deidentified", "report")}


def test_every_report_of_a_linked_person_is_published_under_pseudonyms(house, published, zone_id):
    kept = {row.report_key: row for row in house.read("identifiable", "record_report")}
    crosswalk = {row.source_id: row.patient_id for row in house.read("identifiable", "crosswalk") if row.source == "records"}
    expected = {zone_id("report", key): crosswalk[row.person_id] for key, row in kept.items() if crosswalk[row.person_id]}
    assert {key: row.patient_id for key, row in published.items()} == expected
    assert len(published) > 20
    patients = {row.patient_id for row in house.read("deidentified", "patient")}
    assert {row.patient_id for row in published.values()} <= patients


def test_a_report_belongs_to_the_study_with_its_accession_number_and_its_person(house, published, zone_id):
    studies = {row.study_id: row for row in house.read("deidentified", "study")}
    scans = {scan["accession"]: zone_id("study", scan["study_uid"]) for scan in house.truth("scans")}
    kept = {zone_id("report", row.report_key): row for row in house.read("identifiable", "record_report")}
    links = Counter(row.study_link for row in published.values())
    assert links["linked"] > 0.7 * len(published)
    for key, row in published.items():
        study = scans.get(kept[key].accession_number)
        assert (row.study_id is not None) == (row.study_link == "linked")
        if row.study_link == "linked":
            assert row.study_id == study
            assert studies[study].patient_id == row.patient_id
        elif row.study_link == "other_person":
            assert studies[study].patient_id != row.patient_id
        elif row.study_link == "no_accession":
            assert not kept[key].accession_number


def test_what_reports_say_is_what_was_planted(house, published, zone_id):
    planted, found = defaultdict(set), defaultdict(set)
    for row in house.truth("findings"):
        planted[zone_id("report", row["report_id"])].add(Finding(row["finding"], row["polarity"], row["certainty"], row["subject"]))
    for row in house.read("deidentified", "report_finding"):
        assert row.nlp_version == nlp_version()
        assert (row.study_id, row.patient_id) == (published[row.report_id].study_id, published[row.report_id].patient_id)
        found[row.report_id].add(Finding(row.finding, row.polarity, row.certainty, row.subject))
    overall = scores([(found[key], planted[key]) for key in published])[0]
    assert overall.right > 50
    assert overall.precision > 0.95
    assert overall.recall > 0.95


def test_a_study_has_the_findings_of_its_report(house, published):
    by_report = defaultdict(set)
    for row in house.read("deidentified", "report_finding"):
        if row.subject == "patient":
            by_report[row.study_id].add((row.finding, row.polarity, row.certainty))
    reported = {row.study_id for row in published.values() if row.study_id}
    for study in house.read("deidentified", "study"):
        told = by_report[study.study_id]
        if study.study_id not in reported:
            assert study.findings_affirmed is study.findings_possible is study.findings_negated is None
            continue
        assert study.findings_affirmed == sorted(name for name, polarity, _ in told if polarity == "affirmed")
        assert study.findings_possible == sorted(name for name, polarity, sure in told if (polarity, sure) == ("affirmed", "possible"))
        assert study.findings_negated == sorted(name for name, polarity, _ in told if polarity == "negated")
