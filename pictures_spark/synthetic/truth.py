"""What is true of the synthetic archive: who is in it, what each image shows, what must never leak, what is broken on purpose.

Enters: people, placed images, extracts, sample identifiers. Leaves: rows of the files below ``extracts/truth/``. Pure; driver.
"""

from pictures_spark.synthetic.archive import Placed
from pictures_spark.synthetic.people import Person
from pictures_spark.synthetic.records import Extract, Row

COLUMNS = {
    "people": ["chi", "upi", "forename", "surname", "birth_date", "sex", "postcode", "merged_into_upi"],
    "scans": [
        "chi", "patient_id_in_header", "accession", "study_uid", "series_uid", "sop_uid", "modality", "locator", "burned_in_text",
        "cohort_example",
    ],
    "canaries": ["kind", "value"],
    "faults": ["source", "row", "fault"],
    "findings": ["report_id", "finding", "polarity", "certainty", "subject"],
}  # fmt: skip


def people_rows(people: list[Person]) -> list[Row]:
    """One row per CHI number; an older number has the person's current one as UPI, and says so in ``merged_into_upi``."""
    return [
        dict(
            zip(
                COLUMNS["people"],
                (
                    chi, person.chi, person.forename, person.surname, person.birth.isoformat(), person.sex, person.residences[-1].postcode,
                    person.chi if chi != person.chi else "",
                ),
                strict=True,
            )
        )
        for person in people
        for chi in person.chis
    ]  # fmt: skip


def scan_rows(placed: list[Placed]) -> list[Row]:
    """One row per object; ``chi`` is the person's, whatever the header says, and empty where the register has no such person."""
    return [
        {
            "chi": item.study.chi or "",
            "patient_id_in_header": item.study.patient_id or "",
            "accession": item.study.accession,
            "study_uid": item.study.uid,
            "series_uid": item.series.uid,
            "sop_uid": item.series.sop_uids[item.number - 1],
            "modality": item.series.protocol["modality"],
            "locator": item.locator,
            "burned_in_text": " | ".join(item.series.burned),
            "cohort_example": "1" if item.series.picked else "0",
        }
        for item in placed
    ]


def canary_rows(people: list[Person], placed: list[Placed], samples: tuple[tuple[str, str], ...], reports: list[str]) -> list[Row]:
    """Every value that must not be found outside the identifiable zone, with its kind, sorted; ``reports``: words of report texts only."""
    found: set[tuple[str, str]] = {(f"sample_{kind}", value) for kind, value in samples}

    def add(kind: str, *values: str | None) -> None:
        found.update((f"synthetic_{kind}", value) for value in values if value)

    for person in people:
        add("chi", *person.chis)
        add("name", person.forename, person.surname)
        add("birth_date", f"{person.birth:%Y-%m-%d}", f"{person.birth:%Y%m%d}", f"{person.birth:%d/%m/%Y}")
        for stay in person.residences:
            add("postcode", stay.postcode, stay.postcode.replace(" ", ""))
    add("report", *reports)
    for item in placed:
        study, hospital = item.study, item.study.hospital
        add("accession", study.accession)
        add("study_uid", study.uid)
        add("series_uid", item.series.uid)
        add("sop_uid", item.series.sop_uids[item.number - 1])
        add("patient_id", study.patient_id, study.hospital_number)
        add("physician", *(part for name in hospital.physicians for part in name.split("^")))
        add("institution", hospital.institution, hospital.institution.split()[0], hospital.address, hospital.address.split()[1])
        add("device", *hospital.stations.values(), *hospital.serials.values())
    return [{"kind": kind, "value": value} for kind, value in sorted(found)]


def fault_rows(extracts: list[Extract]) -> list[Row]:
    """Rows of the extracts that are broken on purpose; rows count from 1 after the header."""
    return [{"source": extract.source, "row": str(row), "fault": fault} for extract in extracts for row, fault in extract.faults]
