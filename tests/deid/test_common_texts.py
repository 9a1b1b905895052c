"""Which texts of headers are published: those of many people on several devices, and never a name or a number."""

import pytest

from pictures_spark.deid.tables_texts import description

pytestmark = pytest.mark.spark
# Series of one person each: text -> how many people have it, on how many devices.
TEXTS = {
    "CT HEAD W O CONTRAST": (10, 2),
    "BRAIN LAB PROTOCOL 7": (12, 3),
    "RARE PHRASE": (9, 2),
    "ONE SCANNER ONLY": (12, 1),
    "REVIEW BY VEXTERHOLM": (12, 2),
    "HEAD NG STYLE": (12, 2),
    "TRIAL RESEARCH007": (12, 2),
    "SEEN 12 03 2015": (12, 2),
    "WHITE MATTER": (12, 2),
    "QUOLLINGWORTH": (12, 2),
    "CHI 0312550021": (12, 2),
    "AX T2 1MM": (12, 2),
}


@pytest.fixture(scope="module")
def rows(_session):
    images, studies, series = [], [], []
    for number, (text, (people, devices)) in enumerate(TEXTS.items()):
        for who in range(people):
            name = f"{number}-{who}"
            images.append((name, [("SeriesDescription", text)]))
            series.append((name, f"study {name}", f"station {who % devices}", "GE", "OTHER"))
            studies.append((f"study {name}", f"person {who}"))
    # The same person and device again and again, and a scan that is linked to nobody, make no text common.
    for again in range(20):
        images.append((f"again-{again}", [("SeriesDescription", "RARE PHRASE"), ("StudyDescription", "RARE PHRASE")]))
        series.append((f"again-{again}", f"study again-{again}", "station 0", "GE", "OTHER"))
        studies.append((f"study again-{again}", "person 0" if again else None))
    make = _session.createDataFrame
    inputs = {
        "header_instance": make(
            [("RESEARCH007", "ACC1", "1.2.3", "1.2.4", "1.2.5", "1.2.6", "Vexterholm^Cat")],
            "patient_id_raw string, accession_number string, sop_uid string, series_uid string, study_uid string, "
            "frame_of_reference_uid string, patient_name string",
        ),
        "person": make(
            [("U1", "0312550021", "DD1 9ZZ", "Li", "Ng"), ("U2", "x", "y", "Ann", "White"), ("U3", "x", "y", "Jo", "Quollingworth")],
            "upi string, person_id string, postcode string, forename string, surname string",
        ),
        "record_report": make([("r", "ACC2")], "report_key string, accession_number string"),
        "crosswalk": make([("0312550021",)], "source_id string"),
    }
    found = description(
        make(images, "series_id string, said array<struct<keyword:string,text:string>>"),
        make(studies, "study_id string, patient_id string"),
        make(series, "series_id string, study_id string, station_id string, manufacturer_norm string, model_norm string"),
        inputs,
    )
    return found.collect()


@pytest.mark.parametrize(
    ("text", "skip"),
    [
        ("CT HEAD W O CONTRAST", None),
        ("BRAIN LAB PROTOCOL 7", None),
        ("WHITE MATTER", None),  # somebody's name, but a word of the list
        ("RARE PHRASE", "rare"),
        ("ONE SCANNER ONLY", "rare"),
        ("REVIEW BY VEXTERHOLM", "named"),
        ("HEAD NG STYLE", "named"),
        ("TRIAL RESEARCH007", "named"),
        ("SEEN 12 03 2015", "named"),
        ("QUOLLINGWORTH", "named"),
        ("AX T2 1MM", "named"),  # has the shape of a postcode, which would stop the release
        ("CHI 0312550021", "named"),
    ],
)
def test_what_crosses_and_why_the_rest_does_not(rows, text, skip):
    found = {(row.skip, tuple(row.counted)) for row in rows if row.text == text}
    name = f"withheld_description.{skip}"
    assert found == {(name, (name,)) if skip else (None, ())}


def test_every_series_has_its_row(rows):
    assert len(rows) == sum(people for people, _ in TEXTS.values()) + 40
    assert {row.keyword for row in rows if row.series_id == "again-3"} == {"SeriesDescription", "StudyDescription"}
    assert all(row.study_id == f"study {row.series_id}" for row in rows)
