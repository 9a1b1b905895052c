"""The whole job on a small house: every identifier is linked to the right person, or not, with the reason; again changes nothing."""

from datetime import date

import pytest
from published import fill, header, zone_id

from pictures_spark import tables
from pictures_spark.job import run_job
from pictures_spark.keys import init_key
from pictures_spark.linkage.link import run
from pictures_spark.zones import Zones

pytestmark = pytest.mark.spark

# Synthetic numbers with valid check digits; ANN's older number was merged into her present one.
ANN, ANN_BEFORE, BEN, STRANGER = "2902440146", "0103440127", "1506900119", "0312550146"
BORN = {ANN: date(1944, 2, 29), BEN: date(1990, 6, 15)}


@pytest.fixture
def house(spark, config):
    zones = Zones(config, "identifiable")
    init_key(zones, config["keys"]["key_id"])
    register = [
        {"scheme": "chi", "person_id": ANN, "upi": "U1", "current": True, "birth_date": BORN[ANN], "sex": "F"},
        {"scheme": "chi", "person_id": ANN_BEFORE, "upi": "U1", "current": False, "birth_date": date(1944, 3, 1), "sex": "F"},
        {"scheme": "chi", "person_id": BEN, "upi": "U2", "current": True, "birth_date": BORN[BEN], "sex": "M"},
    ]
    fill(spark, config, "person", register)
    patients = [
        {"patient_id_raw": ANN, "patient_birth_date": BORN[ANN], "patient_sex": "F"},
        {"patient_id_raw": f" {ANN[:6]} {ANN[6:]} ", "patient_birth_date": BORN[ANN], "patient_sex": "F"},
        {"patient_id_raw": ANN_BEFORE, "patient_birth_date": None, "patient_sex": "f"},
        # The birth date differs and the sex does not: still Ben. Then both differ, in one header of two: nobody knows.
        {"patient_id_raw": BEN, "patient_birth_date": date(1990, 6, 16), "patient_sex": "M"},
        {"patient_id_raw": f"{BEN} ", "patient_birth_date": BORN[BEN], "patient_sex": "M"},
        {"patient_id_raw": f"{BEN} ", "patient_birth_date": date(1950, 1, 1), "patient_sex": "F"},
        {"patient_id_raw": STRANGER},
        {"patient_id_raw": ANN[:9] + str((int(ANN[9]) + 1) % 10)},
        {"patient_id_raw": "HOSP 77"},
        {"patient_id_raw": None},
        {"patient_id_raw": None},
    ]
    fill(spark, config, "header_instance", [header("1", "1", number, **values) for number, values in enumerate(patients, 1)])
    event = {"source": "smr01", "scheme": "chi", "kind": "admission", "date": date(2015, 1, 1)}
    events = [{**event, "person_id": person, "event_key": f"e{n}"} for n, person in enumerate((ANN, ANN, BEN, STRANGER))]
    fill(spark, config, "record_event", events)
    return config


def test_every_identifier_is_linked_or_has_its_reason(spark, house):
    report = run_job("link", house, "identifiable", run)
    zones = Zones(house, "identifiable")
    rows = tables.read(spark, zones, "identifiable", "crosswalk").collect()
    ann, ben = (zone_id(house, "patient", upi) for upi in ("U1", "U2"))
    wrong = ANN[:9] + str((int(ANN[9]) + 1) % 10)
    assert {(row.source, row.source_id): (row.patient_id, row.unlinked_reason) for row in rows} == {
        ("dicom", ANN): (ann, None),
        ("dicom", f" {ANN[:6]} {ANN[6:]} "): (ann, None),
        ("dicom", ANN_BEFORE): (ann, None),
        ("dicom", BEN): (ben, None),
        ("dicom", f"{BEN} "): (None, "ambiguous"),
        ("dicom", STRANGER): (None, "unknown_person"),
        ("dicom", wrong): (None, "check_digit"),
        ("dicom", "HOSP 77"): (None, "not_an_identifier"),
        ("dicom", ""): (None, "no_identifier"),
        ("records", ANN): (ann, None),
        ("records", BEN): (ben, None),
        ("records", STRANGER): (None, "unknown_person"),
    }
    assert report.counts == {"seen": 13, "written": 13, "unchanged": 0, "quarantined": 0}
    assert report.details["dicom_birth_date_differs_but_linked"] == 1

    version = tables.version(spark, zones, "identifiable", "crosswalk")
    again = run_job("link", house, "identifiable", run)
    assert again.counts == {"seen": 13, "written": 0, "unchanged": 13, "quarantined": 0}
    assert tables.version(spark, zones, "identifiable", "crosswalk") == version

    # A register that knows the stranger links what was unknown, and leaves the other rows as they are.
    fill(spark, house, "person", [{"scheme": "chi", "person_id": STRANGER, "upi": "U3", "current": True, "birth_date": date(1955, 12, 3)}])
    later = run_job("link", house, "identifiable", run)
    assert later.counts == {"seen": 13, "written": 2, "unchanged": 11, "quarantined": 0}
    found = tables.read(spark, zones, "identifiable", "crosswalk").where(f"person_id = '{STRANGER}' AND valid_to IS NULL").collect()
    assert {row.patient_id for row in found} == {zone_id(house, "patient", "U3")}
