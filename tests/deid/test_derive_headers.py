"""Header JSON: only listed value types, only inside their limits; frames of enhanced images read like the classic twin's."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from instances import pydicom_files
from published import CHI, element, header

from pictures_spark.deid.derive_headers import (
    age_in_years,
    fact_words,
    functional_groups,
    listed_tags,
    read_tag_rules,
    tag_rules,
    told_facts,
)
from pictures_spark.deid.derive_images import listed_columns, safe_image, series_facts
from pictures_spark.deid.tables_guard import Border
from pictures_spark.dicom.scan import ScanError, scan
from pictures_spark.errors import ConfigError
from pictures_spark.schema import table

KVP, EXPOSURE, BODY_PART, AGE = "00180060", "00181152", "00180015", "00101010"


def listed(**elements):
    return {tag.keyword: (tag.numbers or tag.codes, tag.withheld) for tag in listed_tags({k.lstrip("t"): v for k, v in elements.items()})}


@pytest.mark.parametrize(
    ("key", "found", "expected"),
    [
        (KVP, element("DS", 120), ("KVP", ([120.0], False))),
        (KVP, element("DS", "120.5 "), ("KVP", ([120.5], False))),
        (KVP, element("DS", 5000), ("KVP", ([], True))),
        (KVP, element("DS", 80, 5000), ("KVP", ([80.0], True))),
        (KVP, element("DS", "1,5"), ("KVP", ([], True))),
        (KVP, element("DS", "NaN"), ("KVP", ([], True))),
        (EXPOSURE, element("IS", int(CHI["ann"])), ("Exposure", ([], True))),
        (EXPOSURE, element("IS", int(CHI["cat"])), ("Exposure", ([], True))),  # nine digits: the leading zero is lost
        (BODY_PART, element("CS", "head "), ("BodyPartExamined", (["HEAD"], False))),
        (BODY_PART, element("CS", CHI["ann"]), ("BodyPartExamined", ([], True))),
        (BODY_PART, element("CS", "HEAD", "QUOLLINGWORTH"), ("BodyPartExamined", (["HEAD"], True))),
        (AGE, element("AS", "018M"), ("PatientAge", ([1.0], False))),
        (AGE, element("AS", "003D"), ("PatientAge", ([0.0], False))),
        (AGE, element("AS", "999Y"), ("PatientAge", ([], True))),
    ],
)
def test_listed_values_cross_only_inside_their_limits(key, found, expected):
    assert listed(**{f"t{key}": found}) == dict([expected])


@pytest.mark.parametrize(
    "elements",
    [
        {"0008103E": element("LO", "Head QUOLLINGWORTH")},  # LO
        {"00181210": element("SH", "H30s")},  # SH
        {"00100010": element("PN", {"Alphabetic": "QUOLLINGWORTH"})},
        {"00204000": element("LT", "0101450010")},
        {"00080018": element("UI", "1.2.826.0.1.3680043.31")},
        {"00091001": element("IS", 7)},  # private
        {KVP: element("DS")},
        {KVP: element("DS", None)},
        {KVP: {"vr": "DS", "InlineBinary": "AAAA"}},
        {KVP: "120"},
        {KVP: {"vr": "DS", "Value": "120"}},
    ],
)
def test_what_is_not_listed_or_has_no_value_is_not_there(elements):
    assert listed_tags(elements) == []


def test_ages_by_unit():
    assert [age_in_years(text) for text in ("045Y", "018M", "104W", "366D", "45", "0x5Y", None, "-45Y")] == [45, 1, 2, 1] + [None] * 4


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"keyword": "SeriesDescription", "vr": "LO"}, "values of type LO do not cross"),
        ({"keyword": "ConvolutionKernel", "vr": "SH"}, "values of type SH do not cross"),
        ({"keyword": "PatientName", "vr": "CS", "values": ["X"]}, "PS3.6 has no such attribute of type CS"),
        ({"keyword": "NoSuchThing", "vr": "CS", "values": ["X"]}, "PS3.6 has no such attribute"),
        ({"keyword": "Modality", "vr": "CS"}, "needs a closed list"),
        ({"keyword": "KVP", "vr": "DS"}, "a number a range"),
        ({"keyword": "KVP", "vr": "DS", "range": [0, 9], "level": "image"}, "level is study or series"),
        ({"keyword": "dBdt", "vr": "DS", "range": [0, 9]}, "takes no such keyword or value"),
        ({"keyword": "Modality", "vr": "CS", "values": ["CT", "Jane Doe"]}, "takes no such keyword or value"),
        ({"keyword": "KVP", "vr": "DS", "range": [0, 9_999_999_999]}, "could hold a date or a CHI number"),
    ],
)
def test_a_faulty_allow_list_is_refused(entry, says):
    with pytest.raises(ConfigError, match=says):
        read_tag_rules({"value_types": ["CS", "DS", "IS"], "tags": [entry]})


def test_the_shipped_allow_list_holds_no_text():
    assert {rule.vr for rule in tag_rules()} <= {"CS", "DS", "IS", "US", "SS", "UL", "SL", "FD", "FL", "AS"}
    assert len(tag_rules()) >= 40


PER_FRAME, SHARED = "52009230", "52009229"


def measures(*values):
    return {"00289110": element("SQ", {"00180050": element("DS", *values)})}


@pytest.mark.parametrize(
    ("elements", "thickness"),
    [
        ({PER_FRAME: element("SQ", measures(2), measures("2.5"), measures(3))}, [[2.0], [2.5], [3.0]]),
        ({SHARED: element("SQ", measures(1.5))}, [[1.5]]),
        ({SHARED: element("SQ", measures(9)), PER_FRAME: element("SQ", measures(2))}, [[2.0]]),
        ({SHARED: element("SQ", measures(9)), PER_FRAME: element("SQ", {}, {})}, [[9.0]]),
        ({PER_FRAME: element("SQ", measures("thin"), measures(3))}, [None, [3.0]]),
        ({PER_FRAME: element("SQ", measures(3), measures("3.0 "))}, [[3.0]]),  # all frames share it
        ({PER_FRAME: element("SQ", measures(), {"00289110": element("SQ")})}, None),
        ({PER_FRAME: {"vr": "SQ", "Value": "x"}}, None),
        ({"00180050": element("DS", 5)}, None),
        ({}, None),
    ],
)
def test_functional_groups(elements, thickness):
    assert functional_groups(elements).get("SliceThickness") == thickness


@pytest.mark.parametrize(
    ("fact", "value", "words"),
    [
        ("convolution_kernel", "B31f", ("STANDARD",)),
        ("convolution_kernel", "Br64", ("SHARP",)),
        ("convolution_kernel", "H10s", ("SMOOTH",)),
        ("convolution_kernel", "LUNG", ("LUNG",)),
        ("convolution_kernel", "BONEPLUS", ("BONE",)),
        ("convolution_kernel", "FC08", ("STANDARD",)),
        ("convolution_kernel", CHI["ann"], ("OTHER",)),
        ("contrast_agent", "Iohexol 300", ("IODINE",)),
        ("contrast_agent", "Gadoteric acid", ("GADOLINIUM",)),
        ("contrast_agent", "QUOLLINGWORTH", ("OTHER",)),
        ("contrast_agent", " none ", ()),
        ("contrast_route", "IV", ("INTRAVENOUS",)),
        ("contrast_route", "Oral route", ("ORAL",)),
        ("contrast_phase", "PORTAL_VENOUS", ("PORTAL_VENOUS",)),
        ("contrast_phase", "QUOLLINGWORTH", ()),
        ("implant_present", "no", ("no",)),
        ("scanning_sequence", "BOTH", ("SE", "GR")),
    ],
)
def test_facts_are_words_of_closed_lists(fact, value, words):
    assert fact_words(fact, value) == words


def test_a_fact_is_told_by_what_most_frames_say():
    kernels = [{"00189314": element("SQ", {"00181210": element("SH", kernel)})} for kernel in ("H60s", "B30f", "B30f", "B31f")]
    (fact,) = told_facts({PER_FRAME: element("SQ", *kernels)})
    assert dict(zip(fact.codes, fact.frames, strict=True)) == {"STANDARD": 3, "SHARP": 1}
    assert fact.vr is None


def test_tags_count_frames():
    echoes = [{"00189114": element("SQ", {"00189082": element("FD", te)})} for te in (80, 20, 80, "x")]
    (tag,) = listed_tags({PER_FRAME: element("SQ", *echoes)})
    assert (tag.keyword, tag.numbers, tag.frames, tag.withheld) == ("EchoTime", [80.0, 20.0], [2, 1], False)


@pytest.mark.parametrize(
    ("image_type", "frame_type", "kinds"),
    [
        (["ORIGINAL", "PRIMARY"], ["DERIVED", "SECONDARY"], ["ORIGINAL"]),
        (["MIXED", "PRIMARY"], ["DERIVED", "SECONDARY"], ["DERIVED"]),
        (None, ["ORIGINAL", "PRIMARY", "LOCALIZER"], ["LOCALIZER"]),
        (["MIXED"], None, []),
    ],
)
def test_kinds_of_frames(image_type, frame_type, kinds):
    shared = {SHARED: element("SQ", {"00189329": element("SQ", {"00089007": element("CS", *frame_type)})})} if frame_type else {}
    assert safe_image(row(image_type=image_type, differences=json.dumps(shared)), b"k" * 32)["kinds"] == kinds


def test_the_anatomy_of_frames_tells_the_region():
    head = {"00209071": element("SQ", {"00082218": element("SQ", {"00080104": element("LO", "Head")})})}
    safe = safe_image(row(body_part_examined=None, differences=json.dumps({SHARED: element("SQ", head)})), b"k" * 32)
    assert safe["regions"] == ["HEAD"]


def test_columns_are_read_off_the_tag_table_where_the_catalogue_does_not_promote():
    """A range or list that is narrower than the tag's would silently lose values."""
    rules = {rule.keyword: rule for rule in tag_rules()}
    for column in listed_columns("series"):
        rule = rules[column.dicom]
        assert column.range is None or column.range == rule.range
        assert column.allowed is None or set(rule.values) <= set(column.allowed)
        assert rule.single or column.rollup != "any"
    assert {column.name for column in listed_columns("series")} >= {"b_values", "flip_angle"}


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=4)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["vr", "Value", "00289110", "00180050"]), inner)),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([PER_FRAME, SHARED, KVP, BODY_PART, AGE]), JSON))
@hypothesis_settings(max_examples=150)
def test_no_header_json_stops_the_job(elements):
    functional_groups(elements)
    for tag in [*listed_tags(elements), *told_facts(elements)]:
        assert all(-10_000_000 < n < 10_000_000 for n in tag.numbers)
        assert len(tag.frames) == len(tag.numbers) + len(tag.codes)


def row(**values):
    blank = dict.fromkeys(table("identifiable", "header_instance").names)
    found = {"n_objects": 1, "in_crosswalk": True, "linked": "a" * 32, "why_not": None, "shared_frames": None}
    return blank | found | header("31", "1", 1, patient_id_raw=CHI["ann"]) | values


TEXT = st.text(min_size=8, max_size=20)


@given(text=TEXT, number=st.one_of(st.integers(10_000_000, 10**12), st.floats(10_000_000, 1e18)))
@hypothesis_settings(max_examples=60)
def test_no_text_and_no_long_number_of_a_header_crosses(text, number):
    """Every column of header_instance holds the text or the number; nothing of it is in what the tables are made of."""
    known = {"sop_uid", "content_sha256", "template_id", "object_id", "run_id"}
    values = {}
    for column in table("identifiable", "header_instance").columns:
        if column.name in known or column.type in ("boolean", "date"):
            continue
        value = text if "string" in column.type else float(number) if "double" in column.type else int(number)
        values[column.name] = [value] * 6 if column.type.startswith("array") else value
    placed = {
        "00209113": element("SQ", {"00200032": element("DS", 0, 0, number)}),
        "00209071": element("SQ", {"00209072": element("CS", text)}),
    }
    values["differences"] = json.dumps(
        {
            KVP: element("DS", number),
            BODY_PART: element("CS", text),
            "00181210": element("SH", text),
            "00180010": element("LO", text),
            "00181040": element("LO", text),
            PER_FRAME: element("SQ", placed),
        }
    )
    planted = row(**values)
    safe = safe_image(planted, b"k" * 32)
    # Two texts go on to tell the series' facts, and end there; all go on to be counted by person and device (test_common_texts.py).
    assert {one["keyword"] for one in safe.pop("said")} <= {"SeriesDescription", "ProtocolName", "StudyDescription"}
    lists: dict = {name: [] for name in ("families", "planes", "kinds", "regions", "agents", "burned", "portables", "scanning_sequence")}
    lists |= {"grids": safe["grids"], "places": [{"places": safe["places"]}], "unplaced": safe["unplaced"], "laterality": None}
    said = {tag["keyword"]: tag["codes"] for tag in safe["tags"] if tag["vr"] is None}
    facts = series_facts({**lists, "facts": said, "texts": safe.pop("texts", []), "study_texts": safe.pop("study_texts", [])})
    # The time of the scan meets its border, the pattern of series.scan_time, after the roll-up; a text does not match it.
    assert not re.fullmatch(table("deidentified", "series").by_name["scan_time"].shape, safe["scan"].pop("time"))
    out = {k: v for k, v in safe.items() if k not in known}

    def scalars(node):
        if isinstance(node, dict):
            return [x for value in node.values() for x in scalars(value)]
        return [x for value in node for x in scalars(value)] if isinstance(node, list | tuple) else [node]

    for value in scalars(out) + scalars(facts):
        assert value != text
        assert not isinstance(value, int | float) or abs(value) < 10_000_000


def test_a_value_outside_is_withheld_and_named():
    safe = safe_image(row(kvp=5000.0, modality=CHI["ann"], slice_thickness=1.0), b"k" * 32)
    assert (safe["series__kvp"], safe["series__modality"], safe["image__modality"]) == ([], [], None)
    assert safe["series__slice_thickness_max"] == [1.0]
    assert safe["counted"] == ["images", "withheld_image.modality", "withheld_image.kvp", "withheld_series.modality", "withheld_series.kvp"]


def test_half_a_position_is_no_position():
    safe = safe_image(row(image_position_patient=[0.0, 0.0, 99999999.0]), b"k" * 32)
    assert safe["image__position"] is None
    assert "withheld_image.position" in safe["counted"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"series_uid": None}, "skipped_no_series"),
        ({"study_uid": " "}, "skipped_no_series"),
        ({"n_objects": None}, "skipped_vanished"),
        ({"in_crosswalk": None}, "not_linked_yet"),
        ({"in_crosswalk": None, "patient_id_raw": " "}, None),
        ({}, None),
    ],
)
def test_why_an_image_is_skipped(values, reason):
    safe = safe_image(row(**values), b"k" * 32)
    assert safe["skip"] == reason
    assert safe["counted"][:2] == ["images", reason] if reason else safe["counted"] == ["images"]


def facts(**said):
    lists = ("families", "planes", "kinds", "regions", "agents", "burned", "portables", "scanning_sequence", "texts", "study_texts")
    blank = {**{name: [] for name in (*lists, "grids", "places")}, "facts": None, "unplaced": None, "laterality": None}
    return series_facts(blank | said)


def test_a_series_that_says_nothing_is_unknown():
    told = facts()
    assert {told[name] for name in ("contrast", "portable", "implant_present", "burned_in_annotation", "geometry_reason")} == {"unknown"}
    assert {told[name] for name in ("contrast_evidence", "contrast_phase_evidence", "implant_evidence", "portable_evidence")} == {"none"}
    assert (told["is_regular_volume"], told["laterality"], told["body_region"], told["differs"]) == (None, None, [], [])


def test_facts_of_a_series():
    both = {"contrast_administered": ["no", "yes"], "contrast_agent": ["IODINE"]}
    told = facts(facts=both)
    assert (told["contrast"], told["contrast_evidence"], told["contrast_agent"]) == ("unknown", "conflict", "IODINE")
    # That it was not given counts more than that its name is there.
    told = facts(facts={"contrast_administered": ["no"], "contrast_ingredient_given": ["yes"], "contrast_agent": ["IODINE"]})
    assert (told["contrast"], told["contrast_agent"]) == ("no", None)
    assert facts(facts={"contrast_ingredient_given": ["yes"]})["contrast"] == "yes"
    told = facts(facts={"convolution_kernel": ["SHARP", "SMOOTH"], "image_laterality": ["L"]})
    assert (told["convolution_kernel"], told["laterality"], told["differs"]) == ("SHARP", "L", ["convolution_kernel"])
    assert facts(laterality="R", facts={"image_laterality": ["L"]})["laterality"] == "R"
    told = facts(scanning_sequence=["SE"], facts={"scanning_sequence": ["GR"], "scanning_inversion": ["IR"]})
    assert told["scanning_sequence"] == ["GR", "IR", "SE"]


def test_every_real_header_gives_only_values_of_its_columns():
    """Facts of real files lie in the closed lists and ranges of the columns that they become."""
    columns = table("deidentified", "series").by_name
    seen = 0
    for path in pydicom_files():
        try:
            record = scan(path.read_bytes())
        except ScanError:
            continue
        if record.kind != "dicom":
            continue
        safe = safe_image(row(**record.columns, has_pixels=record.has_pixels, differences=record.text), b"k" * 32)
        said = {tag["keyword"]: tag["codes"] for tag in safe["tags"] if tag["vr"] is None}
        told = facts(
            families=[safe["family"]], planes=safe["planes"], kinds=safe["kinds"], regions=safe["regions"], agents=[safe["agent"]],
            portables=[safe["portable"]], grids=safe["grids"], places=[{"places": safe["places"]}], unplaced=safe["unplaced"], facts=said,
            texts=safe["texts"], study_texts=safe["study_texts"],
        )  # fmt: skip
        differs = told.pop("differs")
        assert set(differs) <= set(columns)
        told |= {name: safe[name] for name in ("manufacturer_norm", "model_norm")}
        told |= {"protocol_norm": safe["protocol"], "description_norm": safe["described"]}
        for name, value in told.items():
            for one in value if isinstance(value, list) else [value]:
                assert one is None or Border("series", columns[name]).accepts(one), name
        seen += 1
    assert seen > 100
