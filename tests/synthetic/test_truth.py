"""The truth: canaries that can be searched for, and the example cohort worked out again from CSV files and headers alone."""

import re
from collections import defaultdict
from datetime import date, datetime, timedelta

import pytest

from pictures_spark.config import load_config
from pictures_spark.synthetic.people import population
from pictures_spark.synthetic.samples import sample_facts
from pictures_spark.synthetic.scans import studies

STEPS = ("population", "ct_head", "thin", "plain", "age", "on_drug")


def day(text, form="%d/%m/%Y"):
    return datetime.strptime(text, form).date()


class Answer:
    """The question of examples/cohorts/ct-head-older-anticoagulated.yaml in plain Python, over what an analyst would have in hand."""

    def __init__(self, made):
        broken = {(row["source"], int(row["row"])) for row in made.rows("truth/faults")}

        def good(source):
            return [row for number, row in enumerate(made.rows(source), start=1) if (source, number) not in broken]

        self.upi = {row["CHI"]: row["UPI_NUMBER"] for row in good("chi")}
        self.birth = {row["UPI_NUMBER"]: day(row["DATE_OF_BIRTH"]) for row in good("chi")}
        self.homes = defaultdict(list)
        for row in good("chi"):
            end = day(row["DATE_TRANSFER_OUT"]) if row["DATE_TRANSFER_OUT"] else date.max
            self.homes[row["UPI_NUMBER"]].append((day(row["DATE_TRANSFER_IN"]), end))
        self.died = {row["UPI_NUMBER"]: day(row["DATE_OF_DEATH"], "%Y%m%d") for row in good("deaths")}
        self.drugs = defaultdict(set)
        for row in good("pis"):
            if row["PI BNF Item Code"].startswith("0208020"):
                self.drugs[self.upi.get(row["Pat UPI"])].add(day(row["Disp Date"]))
        self.series = defaultdict(list)
        for dataset in made.datasets.values():
            self.series[str(dataset.SeriesInstanceUID)].append(dataset)

    def person(self, images):
        identifier = str(images[0].PatientID or "").replace(" ", "")
        return self.upi.get(identifier.zfill(10) if identifier.isdigit() else identifier)

    def scan_date(self, images):
        return min(day(str(image.AcquisitionDate), "%Y%m%d") for image in images)

    def failed(self, images):
        """Steps that a series fails; unknown fails too."""
        first, upi, scan = images[0], self.person(images), self.scan_date(images)
        text = f"{first.get('StudyDescription', '')} {first.get('SeriesDescription', '')}".lower()
        failed = []
        here = upi and any(start <= scan <= end for start, end in self.homes[upi]) and scan <= self.died.get(upi, date.max)
        if not here:
            failed.append("population")
        if first.Modality != "CT" or not (first.get("BodyPartExamined") == "HEAD" or "head" in text):
            failed.append("ct_head")
        if not self.thin(images):
            failed.append("thin")
        agent = first.get("ContrastBolusAgent")
        if not (agent in ("NONE", "NO") or (agent is None and re.search(r"without contrast|non[- ]contrast", text))):
            failed.append("plain")
        if upi is None or not 65 <= years(self.birth[upi], scan) <= 80:
            failed.append("age")
        if not any(timedelta(1) <= scan - taken <= timedelta(90) for taken in self.drugs[upi] if upi):
            failed.append("on_drug")
        return failed

    def thin(self, images):
        for image in images:
            thickness = str(getattr(image.get("SliceThickness"), "original_string", image.get("SliceThickness")))
            if not re.fullmatch(r"\d+(\.\d+)?", thickness) or float(thickness) > 1.5:
                return False
            if list(map(int, image.ImageOrientationPatient)) != [1, 0, 0, 0, 1, 0] or list(image.ImageType) != [
                "ORIGINAL",
                "PRIMARY",
                "AXIAL",
            ]:
                return False
        return True

    def picked(self):
        """One series per person: the earliest, then the largest. Ties would make the answer depend on keys."""
        by_person = defaultdict(list)
        for uid, images in self.series.items():
            if first_is_ct(images) and not self.failed(images):
                size = len({image.SOPInstanceUID for image in images})
                by_person[self.person(images)].append((self.scan_date(images), -size, uid))
        for choices in by_person.values():
            assert len({choice[:2] for choice in choices}) == len(choices)
        return {min(choices)[2] for choices in by_person.values()}


def first_is_ct(images):
    return images[0].Modality == "CT" and "SharedFunctionalGroupsSequence" not in images[0]


def years(birth, on):
    """Completed years; a birthday on 29 February is kept on 1 March in common years."""
    return on.year - birth.year - ((on.month, on.day) < (birth.month, birth.day))


def test_the_example_cohort_is_what_the_files_say(made):
    planted = {row["series_uid"] for row in made.rows("truth/scans") if row["cohort_example"] == "1"}
    assert Answer(made).picked() == planted
    assert len(planted) >= 8
    burned = {row["series_uid"] for row in made.rows("truth/scans") if row["cohort_example"] == "1" and row["burned_in_text"]}
    assert len(burned) >= 2


def test_every_near_miss_fails_by_one_step_and_each_step_has_one(made):
    settings = made.config["synth"]
    people = population(settings["seed"], settings["people"], settings["imaged"], date(2008, 1, 1), set(sample_facts()[0]))
    answer, met = Answer(made), {}
    for study in studies(settings["seed"], people, settings["max_frames"]):
        if study.person.scenario.get("expect") == "near_miss":
            (series,) = study.series
            met[study.person.scenario["id"]] = answer.failed(answer.series[series.uid])
    assert {name for name, failed in met.items() if len(failed) != 1} == set()
    assert met["aged_64"] == met["aged_81"] == met["born_on_29_february"] == ["age"]
    assert met["dispensed_91_days_before"] == met["dispensed_on_the_day"] == ["on_drug"]
    assert {step for failed in met.values() for step in failed} == set(STEPS) - {"ct_head"}


@pytest.fixture(scope="module")
def shipped():
    """The studies of the shipped settings, planned but not written."""
    settings = load_config()["synth"]
    people = population(settings["seed"], settings["people"], settings["imaged"], date(2008, 1, 1), set(sample_facts()[0]))
    return studies(settings["seed"], people, settings["max_frames"])


def test_at_the_shipped_size_too_nobody_is_in_the_cohort_by_chance(shipped):
    """Only scenarios make thin axial heads that say they have no contrast."""
    by_chance = [series for study in shipped if not study.person.scenario for series in study.series]
    assert by_chance
    for series in by_chance:
        head = series.protocol["body"] == "HEAD" and series.protocol["modality"] == "CT"
        assert (
            not (head and series.protocol.get("agent") == "NONE" and "AXIAL" in series.protocol["type"])
            or series.protocol["thickness"] == "5.0"
        )


def test_the_shipped_size_is_the_one_that_was_promised(shipped):
    series = [series for study in shipped for series in study.series]
    assert len({study.person.index for study in shipped}) == 150
    assert 450 <= sum(study.frames for study in shipped) <= 600
    assert {one.protocol["modality"] for one in series} == {"CT", "MR", "CR", "US"}
    # About one series in eight has text burned in.
    assert 0.09 <= sum(bool(one.burned) for one in series) / len(series) <= 0.16


def canaries(made):
    found = defaultdict(set)
    for row in made.rows("truth/canaries"):
        found[row["kind"]].add(row["value"])
    return found


def test_every_identifier_of_every_person_and_scan_is_a_canary(made):
    found = canaries(made)
    for row in made.rows("truth/people"):
        assert row["chi"] in found["synthetic_chi"]
        assert {row["forename"], row["surname"]} <= found["synthetic_name"]
        assert {row["birth_date"], row["birth_date"].replace("-", "")} <= found["synthetic_birth_date"]
        assert row["postcode"] in found["synthetic_postcode"]
    for row in made.rows("truth/scans"):
        assert row["accession"] in found["synthetic_accession"]
        assert row["study_uid"] in found["synthetic_study_uid"]
        assert row["series_uid"] in found["synthetic_series_uid"]
        assert row["sop_uid"] in found["synthetic_sop_uid"]
        assert not row["patient_id_in_header"] or row["patient_id_in_header"] in found["synthetic_patient_id"]


def test_names_of_staff_places_and_machines_in_headers_are_canaries(made):
    found = canaries(made)
    for dataset in made.datasets.values():
        assert dataset.InstitutionName in found["synthetic_institution"]
        assert {dataset.StationName, dataset.DeviceSerialNumber} <= found["synthetic_device"]
        for keyword in ("ReferringPhysicianName", "OperatorsName", "PerformingPhysicianName"):
            assert set(str(dataset[keyword].value).split("^")) <= found["synthetic_physician"]


def test_identifiers_of_the_sample_files_are_canaries(made):
    found = canaries(made)
    assert {"CompressedSamples^CT1", "Lestrade", "Moriarty"} <= found["sample_name"] | found["sample_physician"]
    assert "JFK IMAGING CENTER" in found["sample_institution"]
    assert "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322" in found["sample_study_uid"]
    assert len(found["sample_sop_uid"]) > 100


def test_no_canary_is_so_short_or_common_that_finding_it_proves_nothing(made):
    for kind, values in canaries(made).items():
        for value in values:
            least = {"synthetic_postcode": 7, "sample_name": 5, "sample_physician": 5, "sample_patient_id": 6, "sample_institution": 6}
            assert len(value) >= least.get(kind, 8), (kind, value)
            assert value.lower() not in ("anonymous", "anonymized", "toshiba", "operator", "11111111")
