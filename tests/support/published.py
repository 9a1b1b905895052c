"""Hand-made rows of the identifiable zone for the tests of publish: a builder, and one small house with every trap in it."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from typing import Any

from twins import header_rows, twins

from pictures_spark import tables
from pictures_spark.config import Config
from pictures_spark.keys import init_key, key_ref, pseudonym
from pictures_spark.schema import table
from pictures_spark.zones import Zones

HEAD_CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Identifiers of the house. Names are words of at least eight letters that occur nowhere else.
CHI = {"ann": "2902440019", "ben": "1506900034", "cat": "0312550021", "nobody": "1111111111"}
UPI = {"ann": "U290244001", "ben": "U150690003", "cat": "U031255002"}
NAMES = {"ann": "QUOLLINGWORTH", "ben": "BRAMBLESNATH", "cat": "VEXTERHOLM"}
BORN = {"ann": date(1944, 2, 29), "ben": date(1990, 6, 15), "cat": date(1955, 12, 3)}
POSTCODE = "DD1 9ZZ"


_DEFAULTS = {"string": "hand", "boolean": True, "long": 1, "timestamp_ntz": datetime(2020, 1, 1)}


def fill(spark: Any, config: Config, name: str, rows: list[dict[str, Any]]) -> None:
    """Append rows to an identifiable table; columns that a row leaves out are null, or a plain default where null may not be."""
    declared = table("identifiable", name)
    unknown = {key for row in rows for key in row} - set(declared.names)
    assert not unknown, f"{name} has no column {unknown}"
    defaults = {c.name: _DEFAULTS.get(c.type) for c in declared.columns if not c.nullable}
    values = [tuple({**defaults, **row}.get(column) for column in declared.names) for row in rows]
    df = spark.createDataFrame(values, declared.spark_type())
    tables.append(df, Zones(config, "identifiable"), "identifiable", name)


def element(vr: str, *values: Any) -> dict[str, Any]:
    """One element of the DICOM JSON model."""
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def header(study: str, series: str, number: int, **values: Any) -> dict[str, Any]:
    """A header_instance row of image ``number``; ``differences`` may be a dictionary. UIDs are made from the names."""
    uid = f"1.2.826.0.1.3680043.{study}.{series}.{number}"
    row = {
        "sop_uid": uid,
        "content_sha256": f"sha-{uid}",
        "object_id": f"object-{uid}",
        "template_id": f"template-{study}.{series}",
        "differences": {},
        "conflict": False,
        "sop_class_uid": HEAD_CT,
        "study_uid": f"1.2.826.0.1.3680043.{study}",
        "series_uid": f"1.2.826.0.1.3680043.{study}.{series}",
        "modality": "CT",
        "has_pixels": True,
        "rows": 64,
        "columns": 64,
        "instance_number": number,
        "image_type": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "study_date": date(2015, 3, 1),
        "study_time": "10:15:00",
    } | values
    return row | {"differences": json.dumps(row["differences"])}


def objects_of(headers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One readable archive object per header row."""
    return [
        {
            "object_id": h["object_id"],
            "locator": f"2015/03/01/{h['object_id']}",
            "path": "x",
            "kind": "dicom",
            "sha256": h["content_sha256"],
            "status": "catalogued",
            "first_seen": datetime(2020, 1, 1),
        }
        for h in headers
    ]


def templates(headers: list[dict[str, Any]], **elements: dict[str, Any]) -> list[dict[str, Any]]:
    """The header_series rows of some headers; ``elements`` has the common elements of a study's series, by the study's name after s."""
    rows = {h["template_id"]: {name: h[name] for name in ("template_id", "study_uid", "series_uid", "modality")} for h in headers}
    common = {f"template-{name.removeprefix('s')}.1": value for name, value in elements.items()}
    return [row | {"elements": json.dumps(common.get(key, {}))} for key, row in rows.items()]


def link(config: Config, source: str, source_id: str, upi: str | None, reason: str | None = None) -> dict[str, Any]:
    """A crosswalk row as the link job writes it."""
    zones = Zones(config, "identifiable")
    key = key_ref(zones, config["keys"]["key_id"], "deidentified").bytes()
    return {
        "source": source,
        "source_id": source_id,
        "scheme": "chi",
        "person_id": source_id if upi else None,
        "upi": upi,
        "patient_id": pseudonym(key, "patient", upi) if upi else None,
        "method": "exact" if upi else None,
        "score": 1.0 if upi else None,
        "unlinked_reason": reason,
        "key_id": config["keys"]["key_id"],
    }


def zone_id(config: Config, kind: str, value: str) -> str:
    """The zone-wide pseudonym of a value."""
    key = key_ref(Zones(config, "identifiable"), config["keys"]["key_id"], "deidentified").bytes()
    return pseudonym(key, kind, value)


def uid(study: str, series: str | None = None, number: int | None = None) -> str:
    """The UID that `header` makes."""
    return ".".join(["1.2.826.0.1.3680043", study, *([series] if series else []), *([str(number)] if number else [])])


def house(spark: Any, config: Config) -> None:
    """Three people, one stranger, sixteen studies; see the comments."""
    init_key(Zones(config, "identifiable"), config["keys"]["key_id"])
    ann, ben = CHI["ann"], CHI["ben"]
    identity = {"patient_name": f"{NAMES['ann']}^ANNABELLINE", "patient_birth_date": BORN["ann"], "patient_sex": "F"}
    ct = {
        "patient_id_raw": ann,
        **identity,
        "accession_number": "ACC0042",
        "series_description": "Head 1.0 non contrast",
        "body_part_examined": "HEAD",
        "manufacturer": "SIEMENS Healthineers",
        "image_orientation_patient": [1.0, 0.0, 0.0, 0.0, 0.9848, -0.1736],  # tilted by ten degrees
        "frame_of_reference_uid": "1.2.826.0.1.3680043.9.1.1.1",
        "kvp": 120.0,
    }
    headers = [
        # 31: a CT head of Ann whose images differ; the first has no acquisition date, the third lies about its modality and thickness.
        header("31", "1", 1, **ct, slice_thickness=1.0, image_position_patient=[0.0, 0.0, 1.0], contrast_bolus_agent="NONE"),
        header(
            "31",
            "1",
            2,
            **ct,
            slice_thickness=1.5,
            acquisition_date=date(2015, 2, 28),
            acquisition_time="23:59:00",
            differences={
                "00180060": element("DS", 120),
                "00181152": element("IS", 200),
                "00080068": element("CS", "FOR PRESENTATION"),
                "00100040": element("CS", "F"),
                "00185100": element("CS", "HFS"),
            },
        ),
        header(
            "31",
            "1",
            3,
            **ct | {"kvp": 5000.0, "modality": ann},
            slice_thickness=99999.0,
            acquisition_date=date(2015, 2, 28),
            acquisition_time="08:00:00",
            image_position_patient=[0.0, 0.0, 123456789.0],
            differences={
                "00180060": element("DS", int(ann)),
                "00181152": element("IS", int(ann)),
                "00180015": element("CS", ann),
                "00100040": element("CS", "O"),
                "00185100": element("CS", "FFS"),
            },
        ),
        # 32: the same person, the same UID twice with different content; a localizer.
        header("32", "1", 1, **identity, patient_id_raw=ann, image_type=["ORIGINAL", "PRIMARY", "LOCALIZER"], conflict=True),
        header(
            "32",
            "1",
            1,
            **identity,
            patient_id_raw=ann,
            image_type=["ORIGINAL", "PRIMARY", "LOCALIZER"],
            conflict=True,
            content_sha256="other-content",
            object_id="other-object",
        ),
        # 33: an enhanced MR of Ben: thickness, planes and spacing only in functional groups; a field in gauss.
        header(
            "33",
            "1",
            1,
            patient_id_raw=ben,
            modality="MR",
            sop_class_uid=ENHANCED_MR,
            number_of_frames=3,
            magnetic_field_strength=15000.0,
            acquisition_date=date(2016, 6, 14),
            study_date=date(2016, 6, 15),
            contrast_bolus_agent="Gadovist",
            differences={
                "52009229": element("SQ", {"00209116": element("SQ", {"00200037": element("DS", 1, 0, 0, 0, 0, -1)})}),
                "52009230": element(
                    "SQ",
                    *[
                        {"00289110": element("SQ", {"00180050": element("DS", mm), "00280030": element("DS", 0.5, "0.75")})}
                        for mm in (2, 2.5, 3)
                    ],
                ),
            },
        ),
        # 34: nobody's: no PatientID; a screen shot.
        header("34", "1", 1, sop_class_uid=SECONDARY_CAPTURE, modality="OT", study_date=None, patient_id_raw=" "),
        # 35: one study whose images name two people.
        header("35", "1", 1, patient_id_raw=ann),
        header("35", "1", 2, patient_id_raw=ben),
        # 36: no archive object holds it any more. 37: no series. 38: an identifier that is none.
        header("36", "1", 1, patient_id_raw=ann),
        header("37", "1", 1, patient_id_raw=ann, series_uid=None),
        header("38", "1", 1, patient_id_raw="RESEARCH-007", study_date=date(2015, 3, 1), content_date=date(1601, 1, 1)),
    ]
    # 45, 46: the same pixels under other UIDs, of Ann; 47: the same, of Ben; 48: one of two images only.
    copied = [header("45", "1", 1, patient_id_raw=ann, study_date=date(2015, 3, 2))]
    copied += [header(study, "1", 1, patient_id_raw=who) for study, who in (("46", ann), ("47", ben), ("48", ann))]
    copied.append(header("48", "1", 2, patient_id_raw=ann))
    headers += copied
    common = {
        "00080060": element("CS", "CT"),
        "00100010": element("PN", {"Alphabetic": f"{NAMES['ann']}^ANNABELLINE"}),
        "00100020": element("LO", ann),
        "00101010": element("AS", "018M"),
        "0008103E": element("LO", f"Head {NAMES['ann']}"),
        "00180015": element("CS", "HEAD"),
        "00181210": element("SH", f"H30s {ann}"),
        "00280030": element("DS", 0.5, 0.5),
        "00281050": element("DS", 40, -0.0),
    }
    rows = {"header_instance": headers, "header_series": templates(headers, s31=common)}
    rows["object"] = objects_of([h for h in headers if h["study_uid"] != uid("36")]) + objects_of(headers[:1])
    # 61 to 64: two classic series and their enhanced twins, made as files and read as the catalogue does; of nobody.
    for images in twins().values():
        made, series = header_rows(images, {})
        rows["header_instance"] += made
        rows["header_series"].append(series)
        rows["object"] += objects_of(made)
    people = ("ann", "ben", "cat")
    rows["crosswalk"] = (
        [link(config, "dicom", CHI[who], UPI[who]) for who in ("ann", "ben")]
        + [link(config, "records", CHI[who], UPI[who]) for who in people]
        + [
            link(config, "dicom", "RESEARCH-007", None, "not_an_identifier"),
            link(config, "records", CHI["nobody"], None, "unknown_person"),
        ]
    )
    rows["person"] = [
        {
            "upi": UPI[who],
            "person_id": CHI[who],
            "scheme": "chi",
            "forename": "ANNABELLINE",
            "surname": NAMES[who],
            "birth_date": BORN[who],
            "sex": "M" if who == "ben" else "F",
            "postcode": POSTCODE,
            "file_sha256": "f",
        }
        for who in people
    ]
    lives = {"scheme": "chi", "health_board": "S08000024", "simd_quintile": 2, "simd_edition": "2020v2", "file_sha256": "f"}
    rows["person_residence"] = [
        {"person_id": CHI["ann"], "from_date": BORN["ann"], "to_date": date(2019, 1, 1), **lives},
        {"person_id": CHI["ben"], "from_date": date(2010, 1, 1), **lives, "health_board": POSTCODE, "simd_quintile": 9},
    ]
    event = {"source": "smr01", "scheme": "chi", "file_sha256": "f", "position": 0}

    def happened(key: str, who: str, kind: str, day: date, **values: Any) -> dict[str, Any]:
        return {"event_key": key, "person_id": CHI[who], "kind": kind, "date": day, **event, **values}

    rows["record_event"] = [
        happened("e1", "ann", "admission", date(2014, 1, 5), end_date=date(2014, 1, 9), stay_key="s1"),
        happened("e2", "ann", "admission", date(2014, 1, 9), end_date=date(2014, 1, 20), stay_key="s1"),
        happened("e3", "ann", "discharge", date(2014, 1, 20), stay_key="s1"),
        happened("e4", "ann", "diagnosis", date(2014, 1, 5), system="icd10", code="I639", code_root="I63", stay_key="s1"),
        happened("e5", "ann", "death", date(2015, 2, 20), source="deaths"),
        happened("e6", "cat", "lab", date(2013, 12, 2), source="labs", code=CHI["cat"], system="local", value=71.0, unit_raw="mls/min"),
        happened("e7", "cat", "lab", date(2013, 12, 3), source="labs", code="eGFR", system="local", value=312550021.0, time="09:30:00"),
        happened("e8", "nobody", "diagnosis", date(2013, 1, 1), system="icd10", code="I10", code_root="I10"),
        happened("e9", "ben", "dispensing", date(1990, 6, 14), source="pis", system="bnf", code="0208020V0AAAAAA", code_root="0208020"),
    ]
    cover = {
        "site": "demo",
        "from_date": date(2008, 1, 1),
        "to_date": date(2019, 12, 31),
        "lag_days": 60,
        "kinds": ["admission", "diagnosis"],
    }
    rows["source_cover"] = [{"source": "smr01", **cover}]
    pixels = {"sop_uid": uid("31", "1", 1), "content_sha256": f"sha-{uid('31', '1', 1)}", "series_uid": uid("31", "1")}
    rows["pixel_feature"] = [
        {
            **pixels,
            "level": "image",
            "feature": "intensity_mean",
            "version": "1",
            "value": 12.5,
            "unit": "modality value",
            "status": "ok",
        },
        {**pixels, "level": "image", "feature": "pixel_sha256", "version": "1", "value_text": "ab" * 32, "status": "ok"},
    ]
    rows["pixel_feature"] += [
        {**rows["pixel_feature"][1], **{name: h[name] for name in ("sop_uid", "content_sha256", "series_uid")}} for h in copied[:4]
    ]
    rows["pixel_text"] = [
        {
            **pixels,
            "frame_from": 0,
            "frame_to": 0,
            "plane": "pixel",
            "x0": 1,
            "y0": 2,
            "x1": 30,
            "y1": 12,
            "kind": "text",
            "score": 0.9,
            "text": NAMES["ann"],
            "verdict": "text",
            "engine_version": "detector 1.0",
            "rule": "frame",
        }
    ]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda item: fill(spark, config, *item), rows.items()))
