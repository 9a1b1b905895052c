"""One small house published: what comes out, what never does, and that a release is whole or not at all."""

import json
from datetime import date

import pytest
from houses import only_chaos, settings
from published import BORN, CHI, NAMES, POSTCODE, UPI, fill, header, house, objects_of, uid, zone_id
from twins import CT, CT_TWIN, MR, MR_TWIN, ONLY_ONE

from pictures_spark import tables
from pictures_spark.deid import publish
from pictures_spark.errors import ChecksFailedError, ConfigError, InputError
from pictures_spark.job import run_job
from pictures_spark.schema import DEID_ACTIONS
from pictures_spark.schema import tables as declared_tables
from pictures_spark.zones import Zones

pytestmark = pytest.mark.spark
PUBLISHED = (
    "patient",
    "residence",
    "source_cover",
    "study",
    "series",
    "image",
    "tag",
    "study_tag",
    "image_feature",
    "burned_in_text",
    "event",
    "stay",
    "report",
    "report_finding",
)


class House:
    """The house, its first release, and its tables as rows."""

    def __init__(self, spark, config):
        self.spark, self.config = spark, config
        house(spark, config)
        self.report = self.publish()
        self.rows = {name: tables.read(spark, self.zones, "deidentified", name).collect() for name in (*PUBLISHED, "release")}

    @property
    def zones(self):
        return Zones(self.config, "publisher")

    def publish(self, config=None):
        return run_job("publish", config or self.config, "publisher", publish.run)

    def versions(self):
        return {name: tables.version(self.spark, self.zones, "deidentified", name) for name in (*PUBLISHED, "release")}

    def person(self, who):
        return zone_id(self.config, "patient", UPI[who])

    def one(self, name, **key):
        (found,) = [row for row in self.rows[name] if all(row[column] == value for column, value in key.items())]
        return found

    def series(self, study):
        return self.one("series", series_id=zone_id(self.config, "series", uid(study, "1")))

    def study(self, study):
        return self.one("study", study_id=zone_id(self.config, "study", uid(study)))


@pytest.fixture(scope="module")
def published(_session, tmp_path_factory):
    return House(_session, settings(tmp_path_factory.mktemp("published") / "house"))


def test_counts_balance_and_say_what_was_left_out(published):
    assert published.report.counts == {
        "seen": 38, "written": 35, "skipped_no_series": 1, "skipped_unlinked": 1, "skipped_vanished": 1,
    }  # fmt: skip
    withheld = {name: n for name, n in published.report.details.items() if name.startswith("withheld_")}
    assert withheld == {
        f"withheld_{column}": 1
        for column in (
            "event.code", "event.value", "image.kvp", "image.modality", "image.position", "image.slice_thickness", "residence.health_board",
            "residence.simd_quintile", "series.kvp", "series.modality", "series.slice_thickness_max", "series.slice_thickness_min",
            "tag.BodyPartExamined", "tag.Exposure", "tag.KVP",
        )
    }  # fmt: skip


def test_series_is_rolled_up_from_its_images(published):
    series = published.series("31")
    assert (series.slice_thickness_min, series.slice_thickness_max, series.kvp, series.modality) == (1.0, 1.5, 120.0, "CT")
    assert (series.image_count, series.frame_count, series.n_objects) == (3, 3, 4)
    # The earliest acquisition date, with its earliest time; it is not the study date.
    assert (series.scan_date, series.scan_time, series.scan_date_source) == (date(2015, 2, 28), "08:00:00", "AcquisitionDate")
    assert (series.orientation, series.image_kind, series.manufacturer_norm) == ("AXIAL", "ORIGINAL", "SIEMENS")
    assert (series.body_region, series.body_region_evidence) == (["HEAD"], "BodyPartExamined")
    assert (series.contrast, series.contrast_evidence) == ("no", "ContrastBolusAgent")
    assert series.conflict_flags == ["slice_thickness_max", "slice_thickness_min"]


def test_an_enhanced_series_reads_like_its_classic_twin(published):
    series = published.series("33")
    assert (series.slice_thickness_min, series.slice_thickness_max) == (2.0, 3.0)
    assert (series.pixel_spacing_min, series.pixel_spacing_max, series.orientation) == (0.5, 0.75, "CORONAL")
    assert (series.field_tesla, series.contrast, series.sop_class_family) == (1.5, "yes", "multiframe_image")
    assert (series.image_count, series.frame_count) == (1, 3)


@pytest.mark.parametrize(("classic", "twin"), [(CT, CT_TWIN), (MR, MR_TWIN)])
def test_an_enhanced_image_is_published_as_its_classic_twin(published, classic, twin):
    different = {"series_id", "study_id", "sop_class_family", "image_count", "n_objects"}
    rows = [published.series(study).asDict() for study in (classic, twin)]
    assert [(row["sop_class_family"], row["image_count"]) for row in rows] == [("image", rows[0]["frame_count"]), ("multiframe_image", 1)]
    one, other = ({name: value for name, value in row.items() if name not in different} for row in rows)
    assert one == other

    def tags(row):
        told = ("vr", "values", "majority", "n_distinct", "n_missing", "min", "max")
        mine = [tag for tag in published.rows["tag"] if tag.series_id == row["series_id"] and tag.keyword not in ONLY_ONE]
        return {tag.keyword: tuple(tag[name] for name in told) for tag in mine}

    assert tags(rows[0]) == tags(rows[1])
    assert len(tags(rows[0])) > 20


def test_what_the_twins_say(published):
    ct, mr = published.series(CT_TWIN), published.series(MR_TWIN)
    assert (ct.is_regular_volume, ct.geometry_reason, ct.spacing_positions, ct.spacing_between_slices) == (True, "regular", 2.5, 2.5)
    assert (ct.kvp, ct.gantry_tilt, ct.convolution_kernel, ct.model_norm) == (120.0, 0.0, "STANDARD", "SOMATOM_DEFINITION_AS")
    assert (ct.contrast, ct.contrast_evidence, ct.contrast_agent, ct.contrast_route) == (
        "yes",
        "ContrastBolusAgent",
        "IODINE",
        "INTRAVENOUS",
    )
    assert (ct.contrast_phase, ct.contrast_phase_evidence) == ("PORTAL_VENOUS", "description")
    assert ct.station_id == zone_id(published.config, "station", "Nether Infirmary|CT1")
    # Two b-values at each place: no single volume.
    assert (mr.is_regular_volume, mr.geometry_reason, mr.spacing_positions) == (False, "duplicates", 3.3)
    assert (mr.b_values, mr.flip_angle, mr.echo_time, mr.repetition_time, mr.inversion_time) == ([0.0, 1000.0], 90.0, 81.5, 4000.0, 180.0)
    assert (mr.scanning_sequence, mr.field_tesla, mr.contrast, mr.image_kind) == (["IR", "SE"], 1.5, "no", "ORIGINAL")
    assert published.one("image", series_id=ct.series_id).position == [-100.0, -100.0, -10.0]


def test_ages_and_flags(published):
    # Born on 29 February 1944: on 28 February 2015 still 70, on 1 March 71. She died on 20 February 2015.
    assert [(published.study(s).age_years, published.study(s).after_death) for s in ("31", "32")] == [(70, True), (71, True)]
    assert (published.study("33").age_years, published.study("33").before_birth) == (25, False)
    ages = {row.date: row.age_years for row in published.rows["event"] if row.patient_id == published.person("cat")}
    assert ages == {date(2013, 12, 2): 57, date(2013, 12, 3): 58}
    assert published.one("event", source="pis").age_years is None  # a day before birth


def test_unlinked_scans_stay_and_say_why(published):
    reasons = {study: (published.study(study).patient_id, published.study(study).unlinked_reason) for study in ("34", "35", "38")}
    assert reasons == {"34": (None, "no_identifier"), "35": (None, "ambiguous"), "38": (None, "not_an_identifier")}
    assert published.study("35").conflict_flags == ["patient_id"]
    assert {row.patient_id for row in published.rows["image"] if row.study_id == published.study("35").study_id} == {None}
    assert published.series("34").image_kind == "SCREEN"
    assert published.study("34").age_years is None
    # A device's default date is no date.
    assert published.series("38").scan_date_source == "StudyDate"


def test_both_contents_of_one_uid_stay(published):
    images = [row for row in published.rows["image"] if row.image_id == zone_id(published.config, "image", uid("32", "1", 1))]
    assert [row.conflict for row in images] == [True, True]
    content = f"sha-{uid('32', '1', 1)}"
    expected = {zone_id(published.config, "locator", f"{uid('32', '1', 1)}|{name}") for name in (content, "other-content")}
    assert {row.locator_id for row in images} == expected
    assert (published.series("32").image_count, published.series("32").image_kind) == (1, "LOCALIZER")
    assert (published.series("32").conflict_count, published.study("32").conflict_count, published.report.details["conflicts"]) == (2, 2, 2)
    assert (published.series("31").conflict_count, published.study("31").conflict_count) == (0, 0)


def test_the_same_pixels_under_other_uids_are_a_duplicate(published):
    assert published.series("45").dup_of == published.series("46").series_id  # of the day before
    assert {row.series_id for row in published.rows["series"] if row.dup_of} == {published.series("45").series_id}


def test_tags_cross_by_the_allow_list_alone(published):
    def tags(study):
        series = published.series(study).series_id
        return {row.keyword: (row.values, row.n_missing, row.min) for row in published.rows["tag"] if row.series_id == series}

    assert tags("33") == {"SliceThickness": (["2", "2.5", "3"], 0, 2.0), "PixelSpacing": (["0.5", "0.75"], 0, 0.5)}
    assert [tags(study) for study in ("32", "34", "35", "38", "45")] == [{}] * 5
    assert tags("31") == {
        "Modality": (["CT"], 0, None),
        "KVP": (["120"], 2, 120.0),
        "Exposure": (["200"], 2, 200.0),
        "PresentationIntentType": (["FOR PRESENTATION"], 2, None),
        "BodyPartExamined": (["HEAD"], 0, None),
        "PatientAge": (["1"], 0, 1.0),
        "PixelSpacing": (["0.5"], 0, 0.5),
        "WindowCenter": (["0", "40"], 0, 0.0),
        "PatientSex": (["F", "O"], 1, None),
        "PatientPosition": (["FFS", "HFS"], 1, None),
    }
    both = {row.keyword: row.asDict() for row in published.rows["study_tag"] if row.study_id == published.study("31").study_id}
    assert {keyword: (row["values"], row["n_missing"], row["min"]) for keyword, row in both.items()} == tags("31")
    assert (both["KVP"]["majority"], both["PatientSex"]["majority"], both["PixelSpacing"]["majority"]) == ("120", "F", None)


def test_what_should_agree_and_does_not_is_flagged(published):
    assert published.series("31").tag_conflicts == ["PatientPosition", "PatientSex"]
    assert published.study("31").tag_conflicts == ["PatientSex"]  # another series may be of another position
    assert (published.series("61").tag_conflicts, published.study("61").tag_conflicts) == ([], [])


def test_events_stays_features_and_boxes(published):
    codes = {row.code for row in published.rows["event"]}
    assert codes == {None, "I639", "eGFR", "0208020V0AAAAAA"}
    (stay,) = published.rows["stay"]
    assert (stay.start_date, stay.end_date, stay.patient_id) == (date(2014, 1, 5), date(2014, 1, 20), published.person("ann"))
    assert stay.episode_ids == sorted(zone_id(published.config, "event", key) for key in ("e1", "e2"))
    measured = {(row.level, row.feature): (row.value, row.status, row.unit) for row in published.rows["image_feature"]}
    (image,) = [row for row in published.rows["image"] if row.image_id == published.rows["burned_in_text"][0].image_id]
    area = 29 * 10 / (image.rows * image.columns * image.frames)
    # A series has the value of its images that have one.
    assert measured == {
        **{(level, "intensity_mean"): (12.5, "ok", "modality value") for level in ("image", "series")},
        **{(level, "text_area"): (area, "ok", "share") for level in ("image", "series")},
    }
    assert {row.id for row in published.rows["image_feature"]} == {image.image_id, image.series_id}
    (box,) = published.rows["burned_in_text"]
    assert (box.x0, box.y0, box.x1, box.y1, box.verdict) == (1, 2, 30, 12, "text")


def test_patients_are_those_with_a_scan_or_a_record(published):
    found = {row.patient_id: (row.birth_month, row.sex, row.death_date, row.death_source) for row in published.rows["patient"]}
    assert found == {
        published.person("ann"): ("1944-02", "F", date(2015, 2, 20), "deaths"),
        published.person("ben"): ("1990-06", "M", None, None),
        published.person("cat"): ("1955-12", "F", None, None),
    }


def test_no_birth_date_and_no_identifier_is_in_any_table(published):
    text = json.dumps([[row.asDict() for row in rows] for rows in published.rows.values()], default=str)
    assert not [born for born in BORN.values() if born.isoformat() in text]
    secrets = [*CHI.values(), *(chi.lstrip("0") for chi in CHI.values()), *NAMES.values(), *UPI.values(), POSTCODE]
    secrets += ["ANNABELLINE", "ACC0042", "RESEARCH-007", "1.2.826", "H30s", "312550021"]
    assert not [secret for secret in secrets if secret in text]
    assert published.one("residence", patient_id=published.person("ann")).from_date == date(1944, 2, 1)
    assert published.one("residence", patient_id=published.person("ben")).from_date == date(2010, 1, 1)


def test_every_column_of_the_zone_says_how_it_was_made_safe():
    for declared in declared_tables("deidentified"):
        for column in declared.columns:
            assert column.deid in DEID_ACTIONS, f"{declared.name}.{column.name}"
            if declared.name in PUBLISHED and "string" in column.type and column.name not in ("release", "run_id"):
                closed = column.vocabulary or column.pattern or column.deid == "pseudonym"
                assert closed, f"{declared.name}.{column.name} is a string without a closed list or a pattern"


def test_the_release_pins_its_tables(published):
    (release,) = published.rows["release"]
    assert release.release == "demo-0001"
    assert json.loads(release.table_versions) == {name: n for name, n in published.versions().items() if name != "release"}
    assert json.loads(release.counts) == {name: len(published.rows[name]) for name in PUBLISHED}


def test_publishing_again_writes_nothing(published):
    before = published.versions()
    report = published.publish()
    assert (report.counts["seen"], report.counts["unchanged"]) == (38, 35)
    assert "written" not in report.counts
    assert published.versions() == before


@pytest.mark.chaos
@only_chaos
def test_a_killed_publish_leaves_the_former_release_intact(published, monkeypatch):
    other = settings(published.config.path.parent, publish={"release": "other"})
    write = publish._write

    def killed(job, name, frame, release):
        if name == "event":
            raise RuntimeError("killed")
        return write(job, name, frame, release)

    monkeypatch.setattr(publish, "_write", killed)
    with pytest.raises(RuntimeError):
        published.publish(other)
    (release,) = tables.read(published.spark, published.zones, "deidentified", "release").collect()
    for name, version in json.loads(release.table_versions).items():
        rows = tables.read(published.spark, published.zones, "deidentified", name, version).collect()
        assert sorted(rows, key=str) == sorted(published.rows[name], key=str)


def test_an_identifier_in_a_published_string_stops_everything(published):
    before = published.versions()
    # A surname where a site's name belongs: of the right shape, so only the last look can find it.
    day = {"from_date": date(2008, 1, 1), "to_date": date(2019, 12, 31), "lag_days": 1, "kinds": ["lab"]}
    fill(published.spark, published.config, "source_cover", [{"source": "labs", "site": NAMES["ben"], **day}])
    with pytest.raises(ChecksFailedError, match=r"source_cover\.site \(name\)") as caught:
        published.publish()
    assert NAMES["ben"] not in str(caught.value)
    assert published.versions() == before


def test_headers_that_were_not_linked_yet_stop_the_job(published):
    late = [header("40", "1", 1, patient_id_raw="LATECOMER-1")]
    fill(published.spark, published.config, "header_instance", late)
    fill(published.spark, published.config, "object", objects_of(late))
    with pytest.raises(InputError, match="run `pictures link` first"):
        published.publish()


def test_an_undeclared_column_is_refused(published):
    frame = tables.read(published.spark, published.zones, "deidentified", "residence").selectExpr("*", "'x' AS postcode")
    with pytest.raises(ChecksFailedError, match="refuses undeclared column postcode"):
        tables.replace(frame, published.zones, "deidentified", "residence")


def test_only_pseudonyms_go_into_pseudonym_columns(published):
    from pictures_spark.deid.tables_check import only_pseudonyms
    from pictures_spark.schema import table

    declared = table("deidentified", "residence")
    frame = tables.read(published.spark, published.zones, "deidentified", "residence").selectExpr(
        f"'{CHI['ann']}' AS patient_id", *[name for name in declared.names if name != "patient_id"]
    )
    with pytest.raises(ChecksFailedError, match="column patient_id has a value that is not a pseudonym"):
        tables.replace(only_pseudonyms(frame, declared), published.zones, "deidentified", "residence")


def test_nothing_to_publish_is_one_sentence(spark, config):
    with pytest.raises(InputError, match="run `pictures catalogue`"):
        run_job("publish", config, "publisher", publish.run)


def test_a_declared_column_that_nothing_makes_is_one_sentence(published):
    from pictures_spark.deid.tables_images import _only

    with pytest.raises(ConfigError, match="which publish does not make"):
        _only(published.spark.createDataFrame([("a",)], "study_id string"), "study")
