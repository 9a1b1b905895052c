"""What is told of an image: rules by table, each with its refusals, and ages against an independent count of birthdays."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom.uid import UID_dictionary

from pictures_spark.deid import derive
from pictures_spark.resources import load_schema
from pictures_spark.schema import vocabulary

DAYS = st.dates(date(1880, 1, 1), date(2060, 12, 31))


def birthdays_by(born: date, on: date) -> int:
    """How many birthdays have come, counted one by one; 29 February comes on 1 March where there is none."""
    count = 0
    for year in range(born.year + 1, on.year + 1):
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        birthday = date(year, 3, 1) if (born.month, born.day) == (2, 29) and not leap else born.replace(year=year)
        count += birthday <= on
    return count


@given(st.integers(1, 10**6), st.integers(-4, -1))
def test_what_single_precision_leaves_of_a_measure_goes(digits, power):
    written = float(f"{digits}e{power}")
    single = float(np.float32(written))
    assert derive.plain_number(single) == derive.plain_number(float(f"{single:.14g}")) == float(f"{written:.7g}")
    assert derive.plain_number(written) == written


@given(st.lists(st.tuples(DAYS, DAYS), min_size=50, max_size=50))
@hypothesis_settings(max_examples=40)
def test_age_is_the_number_of_birthdays_that_have_come(pairs):
    for born, on in pairs:
        assert derive.completed_years(born, on) == (birthdays_by(born, on) if on >= born else None)


@pytest.mark.parametrize(
    ("born", "on", "age"),
    [
        (date(2000, 2, 29), date(2001, 2, 28), 0),
        (date(2000, 2, 29), date(2001, 3, 1), 1),
        (date(2000, 2, 29), date(2004, 2, 28), 3),
        (date(2000, 2, 29), date(2004, 2, 29), 4),
        (date(1950, 6, 15), date(2015, 6, 14), 64),
        (date(1950, 6, 15), date(2015, 6, 15), 65),
        (date(1950, 6, 15), date(1950, 6, 15), 0),
        (date(1950, 6, 15), date(1950, 6, 14), None),
        (None, date(1950, 6, 14), None),
        (date(1950, 6, 15), None, None),
    ],
)
def test_ages_at_the_edges(born, on, age):
    assert derive.completed_years(born, on) == age


A, C, S, T = date(2015, 2, 1), date(2015, 2, 2), date(2015, 2, 3), date(2015, 2, 4)


@pytest.mark.parametrize(
    ("dates", "expected"),
    [
        ({"AcquisitionDate": A, "ContentDate": C, "SeriesDate": S, "StudyDate": T}, (0, A, "1")),
        ({"ContentDate": C, "SeriesDate": S, "StudyDate": T}, (1, C, "1")),
        ({"SeriesDate": S, "StudyDate": T}, (2, S, "1")),
        ({"StudyDate": T}, (3, T, "1")),
        ({"AcquisitionDate": date(1601, 1, 1), "StudyDate": T}, (3, T, "1")),  # before the first X-ray: a default, no date
        ({"AcquisitionDate": date(1895, 11, 7)}, None),
        ({"AcquisitionDate": date(1895, 11, 8)}, (0, date(1895, 11, 8), "1")),
        ({}, None),
    ],
)
def test_scan_date_is_the_first_valid_attribute(dates, expected):
    assert derive.scan_moment({keyword: (day, "1") for keyword, day in dates.items()}) == expected


@pytest.mark.parametrize(
    ("cosines", "plane"),
    [
        ([1, 0, 0, 0, 1, 0], "AXIAL"),
        ([-1, 0, 0, 0, -1, 0], "AXIAL"),
        ([1, 0, 0, 0, 0, -1], "CORONAL"),
        ([0, 1, 0, 0, 0, -1], "SAGITTAL"),
        ([1, 0, 0, 0, 0.9455, 0.3256], "AXIAL"),  # 19 degrees
        ([1, 0, 0, 0, 0.9336, 0.3584], "OBLIQUE"),  # 21 degrees
        ([1, 0, 0, 0, 0.7071, 0.7071], "OBLIQUE"),
        ([0, 0, 0, 0, 0, 0], None),
        ([1, 0, 0, 1, 0, 0], None),
        ([2, 0, 0, 0, 2, 0], None),
        ([1, 0, 0, 0, 1], None),
        ([1, 0, 0, 0, 1, None], None),
        ([1, 0, 0, 0, 1, float("nan")], None),
        (None, None),
    ],
)
def test_orientation(cosines, plane):
    assert derive.orientation(cosines) == plane


@given(st.lists(st.one_of(st.none(), st.floats()), max_size=7))
@hypothesis_settings(max_examples=50)
def test_orientation_never_fails(cosines):
    assert derive.orientation(cosines) in (None, *vocabulary("orientation"))


ROOT = "1.2.840.10008.5.1.4.1.1"


@pytest.mark.parametrize(
    ("uid", "family"),
    [
        (f"{ROOT}.2", "image"),
        (f"{ROOT}.2.1", "multiframe_image"),
        (f"{ROOT}.20", "multiframe_image"),  # not below .2
        (f"{ROOT}.7", "image"),
        (f"{ROOT}.7.4", "multiframe_image"),
        (f"{ROOT}.88.22", "sr"),
        (f"{ROOT}.88.59", "key_object"),
        (f"{ROOT}.66.4", "seg"),
        (f"{ROOT}.66.1", "other"),
        (f"{ROOT}.481.3", "rt"),
        (f"{ROOT}.104.1", "pdf"),
        (f"{ROOT}.104.2", "other"),
        (f"{ROOT}.9.1.1", "waveform"),
        (f"{ROOT}.11.1", "presentation"),
        ("1.2.3.4", "other"),
        (None, None),
    ],
)
def test_sop_class_family(uid, family):
    assert derive.sop_class_family(uid) == family


def test_every_registered_image_class_is_told_from_the_rest():
    for uid, (name, kind, *_) in UID_dictionary.items():
        if kind == "SOP Class" and uid.startswith(ROOT) and "SR Storage" in name:
            assert derive.sop_class_family(uid) == "sr", name
        if kind == "SOP Class" and name.endswith("Waveform Storage"):
            assert derive.sop_class_family(uid) == "waveform", name
        if kind == "SOP Class" and "Presentation State Storage" in name:
            assert derive.sop_class_family(uid) == "presentation", name


@pytest.mark.parametrize(
    ("image_type", "uid", "kind"),
    [
        (["ORIGINAL", "PRIMARY", "AXIAL"], f"{ROOT}.2", "ORIGINAL"),
        (["derived ", "SECONDARY"], f"{ROOT}.2", "DERIVED"),
        (["ORIGINAL", "PRIMARY", "LOCALIZER"], f"{ROOT}.2", "LOCALIZER"),
        (["ORIGINAL", "LOCALIZER"], f"{ROOT}.2", "ORIGINAL"),  # not value 3
        (["DERIVED", "SECONDARY"], f"{ROOT}.7", "SCREEN"),
        (["DERIVED", "SECONDARY"], f"{ROOT}.7.4", "SCREEN"),
        (["ORIGINAL", "PRIMARY"], f"{ROOT}.77.1.4", "ORIGINAL"),  # .77 is not below .7
        (["JANE^DOE"], f"{ROOT}.2", None),
        ([None], f"{ROOT}.2", None),
        (None, f"{ROOT}.2", None),
        (["ORIGINAL", "PRIMARY"], f"{ROOT}.88.22", None),
        (["ORIGINAL", "PRIMARY"], None, None),
    ],
)
def test_image_kind(image_type, uid, kind):
    assert derive.image_kind(image_type, uid) == kind


@pytest.mark.parametrize(
    ("agents", "texts", "study_texts", "expected"),
    [
        (["yes"], [], [], ("yes", "ContrastBolusAgent")),
        (["no", None], [], [], ("no", "ContrastBolusAgent")),
        ([None], [], [], ("unknown", "none")),
        ([], ["Head 1.0 without contrast"], [], ("no", "description")),
        ([], ["Head 0.75 non-contrast"], [], ("no", "description")),
        ([], ["CT HEAD W/O CONTRAST"], [], ("no", "description")),
        ([], ["Brain unenhanced"], [], ("no", "description")),
        ([], ["Thorax post contrast"], [], ("yes", "description")),
        ([], ["CT Chest with IV contrast"], [], ("yes", "description")),
        ([], ["Contrast-enhanced MRA"], [], ("yes", "description")),
        ([], ["Head"], ["CT Head with contrast"], ("yes", "description")),
        ([], ["Head without contrast"], ["CT Head with contrast"], ("no", "description")),  # the series' own words win
        ([], ["CT head without and with contrast"], [], ("unknown", "conflict")),
        ([], ["pre contrast", "post contrast"], [], ("unknown", "conflict")),
        (["yes"], ["without contrast"], [], ("unknown", "conflict")),
        (["yes", "no"], [], [], ("unknown", "conflict")),
        (["yes"], ["with contrast"], [], ("yes", "ContrastBolusAgent")),
        ([], ["T1 without fat sat"], [], ("unknown", "none")),
        ([], ["WITHOUT", "CONTRAST"], [], ("no", "description")),
        ([], ["Plain", None], [None], ("unknown", "none")),
        ([], ["R3.2.2 Enhanced DICOM phantom"], [], ("unknown", "none")),
        ([], ["Lung 1.0 edge enhanced"], [], ("unknown", "none")),
        ([], ["Lung enhanced"], [], ("yes", "description")),
    ],
)
def test_contrast(agents, texts, study_texts, expected):
    assert derive.contrast(agents, texts, study_texts) == expected


@pytest.mark.parametrize("agent", ["NONE", "no", " . ", "N/A", "None "])
def test_a_contrast_agent_that_says_none(agent):
    assert derive.agent_says(agent) == "no"


@pytest.mark.parametrize("agent", [None, "", "  "])
def test_a_missing_contrast_agent_says_nothing(agent):
    assert derive.agent_says(agent) is None


@pytest.mark.parametrize(
    ("term", "regions"),
    [
        ("HEAD", ("HEAD",)),
        ("c-spine", ("SPINE",)),
        ("CHESTABDPELVIS", ("CHEST", "ABDOMEN", "PELVIS")),
        ("LT KNEE", ("LOWER_LIMB",)),
        ("QUOLLINGWORTH", ()),
        ("", ()),
        (None, ()),
    ],
)
def test_regions_of_body_part_examined(term, regions):
    assert derive.regions_of_term(term) == regions


@pytest.mark.parametrize(
    ("terms", "texts", "study_texts", "expected"),
    [
        (["HEAD"], [], [], (("HEAD",), "BodyPartExamined", False)),
        (["HEAD"], ["CT Thorax"], [], (("HEAD",), "BodyPartExamined", True)),
        (["HEAD"], ["Brain and neck"], [], (("HEAD",), "BodyPartExamined", False)),
        ([], ["CT Thorax"], ["Head"], (("CHEST",), "description", False)),
        ([], ["AX T2"], ["MR Lumbar spine"], (("SPINE",), "description", False)),
        ([], ["XR left neck of femur"], [], (("LOWER_LIMB",), "description", False)),
        ([], ["head first supine"], [], ((), "none", False)),
        ([], [], [], ((), "none", False)),
    ],
)
def test_body_region(terms, texts, study_texts, expected):
    assert derive.body_region(terms, texts, study_texts) == expected


def test_region_lists_name_only_declared_regions():
    rule = load_schema("derive/body_region.yaml")
    named = {*rule["terms"], *rule["words"], *(region for regions in rule["several"].values() for region in regions)}
    assert named <= set(vocabulary("body_region"))
    assert set(load_schema("derive/sop_class_family.yaml")["families"]) <= set(vocabulary("sop_class_family"))
    assert {row["is"] for row in load_schema("derive/series.yaml")["manufacturer"]} <= set(vocabulary("manufacturer_norm"))


def test_models_descriptions_and_facts_name_only_declared_words():
    models = load_schema("derive/models.yaml")["models"]
    assert set(models) <= set(vocabulary("manufacturer_norm"))
    assert {row["is"] for rows in models.values() for row in rows} | {"OTHER"} == set(vocabulary("model_norm"))
    rule = load_schema("derive/descriptions.yaml")
    assert list(rule["words"]) == list(vocabulary("description_word"))
    assert set(rule["phases"]) <= set(vocabulary("contrast_phase"))
    for name, fact in load_schema("derive/facts.yaml")["facts"].items():
        words = [word for row in fact["patterns"] for word in ([row["is"]] if isinstance(row["is"], str) else row["is"])]
        assert {*words, *([fact["otherwise"]] if "otherwise" in fact else [])} <= set(vocabulary(fact["vocabulary"])), name
    # A phrase that names two words would give one of them by chance.
    for group in ("words", "phases", "implant"):
        phrases = [phrase for listed in rule[group].values() for phrase in listed]
        assert len(phrases) == len(set(phrases))
        assert all(derive.normal_text(phrase).strip() == phrase for phrase in phrases)
    # An agent that says none for contrast must not be an agent of some kind.
    silent = set(load_schema("derive/facts.yaml")["facts"]["contrast_agent"]["silent"])
    assert set(load_schema("derive/contrast.yaml")["agent_none"]) <= silent


@pytest.mark.parametrize(
    ("manufacturer", "norm"),
    [("GE MEDICAL SYSTEMS", "GE"), ("Siemens Healthineers", "SIEMENS"), ("Philips", "PHILIPS"), ("FUJI PHOTO FILM", "FUJIFILM"),
     ("Imageworks", "OTHER"), ("  ", None), (None, None)],
)  # fmt: skip
def test_manufacturer(manufacturer, norm):
    assert derive.manufacturer_norm(manufacturer) == norm


@pytest.mark.parametrize(
    ("manufacturer", "model", "norm"),
    [
        ("SIEMENS", "SOMATOM Definition AS+", "SOMATOM_DEFINITION_AS"),
        ("SIEMENS", "Sensation 64", "SOMATOM_SENSATION"),
        ("SIEMENS", "Avanto", "MAGNETOM_AVANTO"),
        ("SIEMENS", "Biograph_mMR", "BIOGRAPH_MMR"),
        ("GE", "LightSpeed VCT", "LIGHTSPEED"),
        ("GE", "Signa HDxt", "SIGNA"),
        ("PHILIPS", "iCT 256", "ICT"),
        ("CANON", "Aquilion ONE", "AQUILION_ONE"),
        ("TOSHIBA", "Aquilion", "AQUILION"),
        ("CARESTREAM", "DRX-1", "DRX"),
        ("CARESTREAM", "DRX-Revolution", "DRX_REVOLUTION"),
        ("GE", "SOMATOM Definition AS", "OTHER"),  # of another manufacturer
        ("OTHER", "SOMATOM Definition AS", "OTHER"),
        (None, "QUOLLINGWORTH", "OTHER"),
        ("GE", " ", None),
        ("GE", None, None),
    ],
)
def test_model(manufacturer, model, norm):
    assert derive.model_norm(manufacturer, model) == norm


@pytest.mark.parametrize(
    ("header", "texts", "study_texts", "expected"),
    [
        ([], ["Abdomen portal venous"], [], ("PORTAL_VENOUS", "description")),  # not venous as well
        ([], ["Liver late arterial"], [], ("ARTERIAL", "description")),
        ([], ["Liver"], ["CT triple phase delayed"], ("DELAYED", "description")),
        ([], ["Liver arterial"], ["delayed"], ("ARTERIAL", "description")),
        ([], ["arterial", "portal venous"], [], (None, "conflict")),
        (["ARTERIAL"], ["portal venous"], [], ("ARTERIAL", "ContrastBolusAgentPhase")),
        (["ARTERIAL", "DELAYED"], [], [], (None, "conflict")),
        ([], ["Arteriography", None], [], (None, "none")),
        ([], [], [], (None, "none")),
    ],
)
def test_contrast_phase(header, texts, study_texts, expected):
    assert derive.contrast_phase(header, texts, study_texts) == expected


@pytest.mark.parametrize(
    ("models", "texts", "study_texts", "expected"),
    [
        ([False, True], [], [], ("yes", "ManufacturerModelName")),
        ([False], ["Chest AP mobile"], [], ("yes", "description")),
        ([], [], ["XR Chest portable"], ("yes", "description")),
        ([False], ["Chest PA"], ["Automobile accident"], ("unknown", "none")),
        ([], [None], [], ("unknown", "none")),
    ],
)
def test_portable(models, texts, study_texts, expected):
    assert derive.portable(models, texts, study_texts) == expected


@pytest.mark.parametrize(
    ("header", "texts", "expected"),
    [
        (["yes"], [], ("yes", "BreastImplantPresent")),
        (["no", "yes"], [], ("unknown", "conflict")),
        (["no"], ["implant displaced"], ("unknown", "conflict")),
        (["yes"], ["implant displaced"], ("yes", "BreastImplantPresent")),
        ([], ["no implant"], ("no", "description")),
        ([], ["Hip"], ("unknown", "none")),
    ],
)
def test_implant(header, texts, expected):
    assert derive.implant(header, texts, []) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("t2_tse_tra FS", ("T2", "FAT_SUPPRESSED")),
        ("AX T2 STAR", ("T2_STAR",)),
        ("CTPA 1.0", ("PULMONARY_ANGIOGRAM",)),
        ("CT Pulmonary Angiogram", ("PULMONARY_ANGIOGRAM",)),
        ("ep2d_diff_3scan_trace_ADC", ("DWI", "ADC")),
        ("Topogram", ("LOCALIZER",)),
        ("T1W for Dr T2W", ("T1", "T2")),
        ("QUOLLINGWORTH 0101450010", ()),
        ("", ()),
    ],
)
def test_words_of_descriptions(text, words):
    assert derive.description_words(text) == words


@given(st.text(max_size=40))
@hypothesis_settings(max_examples=100)
def test_descriptions_give_only_listed_words(text):
    assert set(derive.description_words(text)) <= set(vocabulary("description_word"))


@pytest.mark.parametrize(("found", "tesla"), [(1.5, 1.5), (15000.0, 1.5), (100.0, 100.0), (0.0, 0.0), (None, None)])
def test_field_strength(found, tesla):
    assert derive.field_tesla(found) == tesla


@pytest.mark.spark
def test_spark_ages_are_the_pure_ages(spark):
    """Ten thousand pairs, most of them within two days of a birthday, where engines differ."""
    from pyspark.sql import functions as F

    pairs = []

    @given(DAYS, st.integers(-2, 110), st.integers(-2, 2))
    @hypothesis_settings(max_examples=10_000, database=None)
    def draw(born: date, years: int, days: int) -> None:
        on = date(born.year + years, 3 if born.month == 2 and born.day == 29 else born.month, 1 if born.day == 29 else born.day)
        pairs.append((len(pairs), born, on + timedelta(days=days)))

    draw()
    pairs += [(-1, None, date(2000, 1, 1)), (-2, date(2000, 1, 1), None)]
    frame = spark.createDataFrame(pairs, "n long, born date, at date")
    rows = frame.select("n", "born", "at", derive.age_years(F.col("born"), F.col("at")).alias("age")).toPandas()
    assert len(rows) >= 10_000
    wrong = [n for n, born, on, age in zip(rows.n, rows.born, rows["at"], rows.age, strict=True)
             if (None if age != age or age is None else int(age)) != derive.completed_years(born, on)]  # fmt: skip
    assert wrong == []
