"""A small house with a frozen cohort, ready to be extracted: a few instances in an archive and the tables that lead to them."""

import hashlib
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from instances import dicom_bytes, instance, pydicom_file
from pydicom import Dataset

from pictures_spark import tables
from pictures_spark.config import Config
from pictures_spark.doctor import init_keys
from pictures_spark.keys import key_ref, pseudonym
from pictures_spark.schema import table
from pictures_spark.zones import Zones

COHORT = "heads"
PEOPLE = {"upi1": ("0104501236", "Morwenna", "Quillfeather", "EH1 2AB"), "upi2": ("0203402345", "Tobias", "Hazelthwaite", "G12 8QQ")}
EVENT_DATES = {"upi1": date(2015, 6, 1), "upi2": date(2014, 2, 3)}


class House:
    """The zones of a configuration, filled with hand-made rows."""

    def __init__(self, spark: Any, config: Config) -> None:
        self.spark, self.config = spark, config
        init_keys(config)
        self.zones = Zones(config, "identifiable")
        self.key = key_ref(self.zones, config["keys"]["key_id"], "deidentified").bytes()
        self.archive = Path(config.location(config["zones"]["archive"]))
        self.rows: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def id(self, kind: str, value: str) -> str:
        """A zone id."""
        return pseudonym(self.key, kind, value)

    def add(self, zone: str, name: str, **values: Any) -> None:
        """Remember a row of a table; columns that are not given are null."""
        self.rows.setdefault((zone, name), []).append(values)

    def add_person(self, upi: str) -> None:
        """A person with an event, in every table that has people."""
        chi, forename, surname, postcode = PEOPLE[upi]
        patient = self.id("patient", upi)
        self.add("identifiable", "crosswalk", source="dicom", source_id=chi, scheme="chi", person_id=chi, upi=upi, patient_id=patient,
                 key_id="k1")  # fmt: skip
        self.add("identifiable", "person", upi=upi, person_id=chi, scheme="chi", current=True, forename=forename, surname=surname,
                 birth_date=date(1950, 4, 1), postcode=postcode, file_sha256="0")  # fmt: skip
        self.add("deidentified", "patient", patient_id=patient, sex="F", death_date=date(2018, 1, 1))
        self.add("deidentified", "event", event_id=self.id("event", upi), patient_id=patient, source="pis", kind="dispensing",
                 system="bnf", code="0208020V0AAAAAA", date=EVENT_DATES[upi], age_years=65)  # fmt: skip

    def add_image(
        self,
        data: bytes,
        dataset: Dataset,
        upi: str | None,
        verdict: str | None = "clean",
        boxes: tuple[tuple[int, int, int, int], ...] = (),
        conflict: bool = False,
        archived: bool = True,
    ) -> None:
        """An instance: its file in the archive, and its rows."""
        content = hashlib.sha256(data).hexdigest()
        path = f"{content[:8]}.dcm"
        if archived:
            self.archive.mkdir(parents=True, exist_ok=True)
            (self.archive / path).write_bytes(data)
        sop, study, series = dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID
        self.add("identifiable", "object", object_id=content, locator=path, path=path, kind="dicom", size=len(data), sha256=content,
                 status="catalogued")  # fmt: skip
        self.add("identifiable", "header_instance", sop_uid=sop, content_sha256=content, object_id=content, template_id="t",
                 differences="{}", conflict=conflict, study_uid=study, series_uid=series, has_pixels=True)  # fmt: skip
        common = {"sop_uid": sop, "content_sha256": content, "verdict": verdict, "engine_version": "test", "rule": "frame"}
        for x0, y0, x1, y1 in boxes:
            self.add("identifiable", "pixel_text", **common, frame_from=0, frame_to=0, plane="pixel", x0=x0, y0=y0, x1=x1, y1=y1)
        if verdict and not boxes:
            self.add("identifiable", "pixel_text", **common)
        self.add("deidentified", "image", image_id=self.id("image", sop), series_id=self.id("series", series),
                 study_id=self.id("study", study), patient_id=self.id("patient", upi) if upi else None, scan_date=date(2015, 6, 25),
                 age_years=65, modality="CT", conflict=conflict, locator_id=self.id("locator", f"{sop}|{content}"))  # fmt: skip

    def freeze(self, unit: str, unit_ids: list[str]) -> None:
        """A frozen cohort of these units."""
        for unit_id in unit_ids:
            self.add("deidentified", "cohort_member", cohort_run_id="f" * 32, unit_id=unit_id, patient_id=self.person_of(unit_id), steps=1)
        self.add("deidentified", "cohort_run", cohort_run_id="f" * 32, cohort_id=COHORT, spec_sha256="0" * 64, spec="cohort: 1", unit=unit,
                 member_count=len(unit_ids), patient_count=1, content_sha256="0" * 64,
                 manifest=json.dumps({"table_versions": {"image": 0, "event": 0, "patient": 0}}), frozen=datetime(2020, 1, 1))  # fmt: skip

    def person_of(self, unit_id: str) -> str | None:
        """patient_id of a series, as the image rows say."""
        return next((row["patient_id"] for row in self.rows["deidentified", "image"] if row["series_id"] == unit_id), None)

    def write(self) -> None:
        """Write every remembered row to its table."""
        for (zone, name), rows in self.rows.items():
            declared = table(zone, name)
            filled = [tuple({"release": "r1", "run_id": "run0", **row}.get(column) for column in declared.names) for row in rows]
            role = "identifiable" if zone == "identifiable" else "deidentified"
            df = self.spark.createDataFrame(filled, declared.spark_type()).coalesce(1)
            tables.replace(df, Zones(self.config, role), zone, name)
        self.rows.clear()


def uid(*parts: int) -> str:
    """A source UID."""
    return ".".join(["1.2.826.0.1.3680043.10.1234", *map(str, parts)])


def ct(upi: str, number: int, **values: Any) -> Dataset:
    """A CT slice of a person, one series each."""
    chi, forename, surname, _ = PEOPLE[upi]
    series = int(upi[-1])
    pixels = np.random.default_rng(number).integers(0, 4000, (16, 16), dtype=np.uint16)
    about = {
        "PatientID": chi,
        "PatientName": f"{surname}^{forename}",
        "StudyInstanceUID": uid(series),
        "SeriesInstanceUID": uid(series, 1),
        "SOPInstanceUID": uid(series, 1, number),
        "InstanceNumber": str(number),
        "SeriesDescription": f"{surname} head",
    }
    return instance(pixels, **{**about, **values})


def small_house(spark: Any, config: Config) -> House:
    """Two people, six delivered images (one with text) and one withheld for each reason that a house can have."""
    house = House(spark, config)
    for upi in PEOPLE:
        house.add_person(upi)
        for number in (1, 2):
            source = ct(upi, number)
            house.add_image(dicom_bytes(source), source, upi)
    burned = ct("upi1", 3)
    house.add_image(dicom_bytes(burned), burned, "upi1", verdict="text", boxes=((2, 2, 9, 5),))
    unlinked = ct("upi2", 4, PatientID="X1", StudyInstanceUID=uid(9), SeriesInstanceUID=uid(9, 1))
    house.add_image(dicom_bytes(unlinked), unlinked, None)
    for number, options in ((5, {"verdict": None}), (6, {"conflict": True}), (7, {"archived": False})):
        source = ct("upi1", number)
        house.add_image(dicom_bytes(source), source, "upi1", **options)
    report = pydicom_file("test-SR.dcm")
    source = ct("upi1", 8)
    house.add_image(report, source, "upi1")
    house.freeze("series", [house.id("series", uid(1, 1)), house.id("series", uid(2, 1)), house.id("series", uid(9, 1))])
    house.write()
    return house
