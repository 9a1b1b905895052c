"""What the language means, one small table each. Both the interpreter and the compiled SQL must give the answers written here.

T is yes, F is no, ? is unknown. Day +0 is 1 February 2010; nothing but the columns shown has a value.
"""

from pathlib import Path

import duckdb
import pytest
from cohort_cases import full, into_duckdb, rows

from pictures_spark.cohort import codelists, duck, yaml_face
from pictures_spark.cohort.compile import Saved, compiled
from pictures_spark.cohort.interpreter import interpret, show

SAID = {True: "T", False: "F", None: "?"}
# People who are always observed, so that a test can be about one thing.
AT_HOME = {
    "residence": """
        patient_id | from_date | to_date
        p1         | -400      |
        p2         | -400      |
    """,
    "source_cover": """
        source | site | from_date | to_date | lag_days | kinds
        smr01  | demo | -300      | +300    | 0        | diagnosis procedure
        pis    | demo | -300      | +300    | 0        | dispensing
    """,
}


def spec(question: str, expected: str, **tables: str) -> None:
    """Ask a question of tables; ``expected`` has, for each unit, the answers in the order of the attrition after the start."""
    asked = yaml_face.from_yaml(f"{{cohort: 1, id: spec, {question}}}")
    codes, faults = codelists.resolve(asked, Path("/nowhere"))
    assert not faults
    data = {name: rows(name, text) for name, text in tables.items()}
    wanted = dict(line.split(None, 1) for line in expected.strip().splitlines())
    wanted = {unit: said.split() for unit, said in wanted.items()}
    read = {row.one.id: [SAID[said] for said in row.answers] for row in interpret(asked, codes, full(data))}
    assert read == wanted
    plan = compiled(asked, codes)
    with duckdb.connect() as connection:
        into_duckdb(connection, data, plan.tables)
        found = connection.execute(plan.sql("duckdb")).fetchall()
    assert len(found) == len(wanted)
    bits = range(1, len(plan.steps))
    assert {
        unit: ["T" if holds >> bit & 1 else "?" if unknowns >> bit & 1 else "F" for bit in bits]
        for unit, _, _, holds, unknowns, *_ in found
    } == wanted


@pytest.mark.parametrize(
    ("test", "answers"),
    [
        ("1.5", "F T F ?"),
        ("{lt: 1.5}", "T F F ?"),
        ("{le: 1.5}", "T T F ?"),
        ("{gt: 1.5}", "F F T ?"),
        ("{ge: 1.5}", "F T T ?"),
        ("{between: [1, 1.5]}", "T T F ?"),
        ("{ne: 1.5}", "T F T ?"),
        ("{ne: [1, 1.5]}", "F F T ?"),
        ("[1, 3]", "T F T ?"),
        ("{is_missing: true}", "F F F T"),
        ("{is_missing: false}", "T T T F"),
        ("{gt: 1, lt: 3}", "F T F ?"),
    ],
)
def test_comparisons_with_a_number(test, answers):
    a, b, c, d = answers.split()
    spec(
        f"unit: series, steps: [{{id: x, where: {{slice_thickness_max: {test}}}}}]",
        f"s1 T {a}\ns2 T {b}\ns3 T {c}\ns4 T {d}",
        series="""
            series_id | slice_thickness_max
            s1        | 1
            s2        | 1.5
            s3        | 3
            s4        |
        """,
    )


@pytest.mark.parametrize(
    ("test", "answers"),
    [("HEAD", "T F ? ?"), ("[CHEST, NECK]", "T T ? ?"), ("{ne: CHEST}", "T F ? ?"), ("{is_missing: true}", "F F T T")],
)
def test_a_set_is_equal_to_what_it_contains_and_an_empty_one_could_not_be_told(test, answers):
    a, b, c, d = answers.split()
    spec(
        f"unit: series, steps: [{{id: x, where: {{body_region: {test}}}}}]",
        f"s1 T {a}\ns2 T {b}\ns3 T {c}\ns4 T {d}",
        series="""
            series_id | body_region
            s1        | HEAD NECK
            s2        | CHEST
            s3        | {}
            s4        |
        """,
    )


def test_an_empty_set_of_flags_is_not_missing():
    spec(
        "unit: series, steps: [{id: x, where: {conflict_flags: modality}}]",
        "s1 T T\ns2 T F\ns3 T ?",
        series="""
            series_id | conflict_flags
            s1        | modality
            s2        | {}
            s3        |
        """,
    )


@pytest.mark.parametrize(
    ("test", "answers"),
    [("small_vessel_disease", "T F F ?"), ("{ne: small_vessel_disease}", "F T T ?"), ("{is_missing: true}", "F F F T")],
)
def test_a_report_that_affirms_nothing_is_an_answer_and_no_report_is_none(test, answers):
    a, b, c, d = answers.split()
    spec(
        f"unit: study, population: all, steps: [{{id: reported, where: {{findings_affirmed: {test}}}}}]",
        f"x1 T {a}\nx2 T {b}\nx3 T {c}\nx4 T {d}",
        study="""
            study_id | findings_affirmed
            x1       | infarct small_vessel_disease
            x2       | infarct
            x3       | {}
            x4       |
        """,
    )


def test_unknown_in_a_closed_list_is_a_missing_value():
    spec(
        'unit: series, steps: [{id: plain, where: {contrast: "no"}}, {id: not_plain, where: {contrast: {ne: "no"}}}, '
        "{id: gone, where: {contrast: {is_missing: true}}}]",
        """
        s1 T T F F
        s2 T F T F
        s3 T ? ? T
        s4 T ? ? T
        """,
        series="""
            series_id | contrast
            s1        | no
            s2        | yes
            s3        | unknown
            s4        |
        """,
    )


def test_one_no_decides_a_step_of_several_tests():
    spec(
        "unit: series, steps: [{id: x, where: {modality: CT, orientation: AXIAL}}]",
        "s1 T T\ns2 T F\ns3 T F\ns4 T ?",
        series="""
            series_id | modality | orientation
            s1        | CT       | AXIAL
            s2        | MR       | AXIAL
            s3        | MR       |
            s4        |          | AXIAL
        """,
    )


def test_values_flow_down_from_study_and_patient_and_the_units_own_come_first():
    spec(
        "unit: series, population: all, steps: [{id: sex, where: {sex: F}}, {id: studied, where: {study_date: 2010-02-06}}, "
        "{id: own, where: {scan_date: 2010-02-02}}]",
        "s1 T T T T\ns2 T ? ? F",
        series="""
            series_id | study_id | patient_id | scan_date
            s1        | t1       | p1         | +1
            s2        | t9       |            | +2
        """,
        study="""
            study_id | patient_id | study_date | scan_date
            t1       | p1         | +5         | +9
        """,
        patient="""
            patient_id | sex
            p1         | F
        """,
    )


def test_linked_is_a_step_that_unlinked_scans_fail_visibly():
    spec(
        "unit: series, population: linked, steps: [{id: ct, where: {modality: CT}}]",
        "s1 T T\ns2 F T",
        series="""
            series_id | patient_id | modality
            s1        | p1         | CT
            s2        |            | CT
        """,
    )


def test_alive_and_resident_on_the_index_date_both_ends_included():
    spec(
        "unit: series, population: alive_and_resident, steps: [{id: ct, where: {modality: {is_missing: true}}}]",
        """
        before F T
        first  T T
        death  T T
        after  F T
        gone   F T
        back   T T
        nodate ? T
        nobody F T
        """,
        series="""
            series_id | patient_id | scan_date
            before    | p1         | +9
            first     | p1         | +10
            death     | p1         | +30
            after     | p1         | +31
            gone      | p2         | +11
            back      | p2         | +20
            nodate    | p2         |
            nobody    |            | +20
        """,
        patient="""
            patient_id | death_date
            p1         | +30
            p2         |
        """,
        residence="""
            patient_id | from_date | to_date
            p1         | +10       |
            p2         | -50       | +10
            p2         | +20       | +40
        """,
    )


def test_windows_are_whole_days_and_both_ends_are_in():
    spec(
        "unit: series, population: all, codelists: {drug: {system: bnf, codes: [0208020]}}, "
        "steps: [{id: x, has: {event: dispensing, codes: drug, window: [-10d, -1d]}}]",
        "on_day T F\nday_before T T\nfirst_day T T\ntoo_early T F",
        series="""
            series_id  | patient_id | scan_date
            on_day     | p1         | +0
            day_before | p1         | +1
            first_day  | p1         | +10
            too_early  | p1         | +11
        """,
        event="""
            patient_id | kind       | system | code            | date
            p1         | dispensing | bnf    | 0208020V0AAAAAA | +0
        """,
        **AT_HOME,
    )


def test_codes_match_by_prefix_or_exactly_and_within_their_system_and_kind():
    spec(
        "unit: patient, index: 2010-02-01, population: all, codelists: {stroke: {system: icd10, codes: [I63]}, "
        "stroke_itself: {system: icd10, codes: [I63], expand: exact}}, "
        "steps: [{id: below, has: {event: diagnosis, codes: stroke, window: [-9d, 9d]}}, "
        "{id: itself, has: {event: diagnosis, codes: stroke_itself, window: [-9d, 9d]}}, "
        "{id: any_code, has: {event: [diagnosis, procedure], window: [-9d, 9d]}}]",
        "p1 T T F T\np2 T F F T",
        patient="""
            patient_id
            p1
            p2
        """,
        event="""
            patient_id | kind      | system | code | date
            p1         | diagnosis | icd10  | I639 | +0
            p2         | procedure | icd10  | I63  | +0
            p2         | diagnosis | icd9   | I63  | +0
            p2         | diagnosis | icd10  | AI63 | +0
        """,
        **AT_HOME,
    )


def test_at_least_counts_different_days():
    spec(
        "unit: patient, index: 2010-02-01, population: all, "
        "steps: [{id: twice, has: {event: dispensing, window: [0d, 9d], at_least: 2}}, "
        "{id: less, lacks: {event: dispensing, window: [0d, 9d], at_least: 2}}]",
        "p1 T F T\np2 T T F",
        patient="""
            patient_id
            p1
            p2
        """,
        event="""
            patient_id | kind       | system | code    | date
            p1         | dispensing | bnf    | 0208020 | +1
            p1         | dispensing | bnf    | 0208020 | +1
            p2         | dispensing | bnf    | 0208020 | +1
            p2         | dispensing | bnf    | 0206010 | +2
        """,
        **AT_HOME,
    )


COVERED = """
    source | site | from_date | to_date | lag_days | kinds
    smr01  | demo | +0        | +100    | 10       | diagnosis
"""


def test_none_found_is_unknown_where_the_source_does_not_cover_the_window():
    spec(
        "unit: series, population: all, steps: [{id: had, has: {event: diagnosis, window: [-10d, 0d]}}, "
        "{id: had_not, lacks: {event: diagnosis, window: [-10d, 0d]}}]",
        """
        found   T T F
        early   T ? ?
        covered T F T
        last    T F T
        late    T ? ?
        nobody  T ? ?
        nodate  T ? ?
        """,
        series="""
            series_id | patient_id | scan_date
            found     | p1         | +6
            early     | p2         | +9
            covered   | p2         | +10
            last      | p2         | +90
            late      | p2         | +91
            nobody    |            | +50
            nodate    | p2         |
        """,
        event="""
            patient_id | kind      | system | code | date
            p1         | diagnosis | icd10  | I63  | +5
        """,
        residence=AT_HOME["residence"],
        source_cover=COVERED,
    )


def test_every_source_that_can_hold_the_event_must_cover_the_window():
    spec(
        "unit: series, population: all, steps: [{id: one, has: {event: diagnosis, window: [-10d, 0d]}}, "
        "{id: both, has: {event: [diagnosis, death_cause], window: [-10d, 0d]}}]",
        "s1 T F ?\ns2 T F F",
        series="""
            series_id | patient_id | scan_date
            s1        | p1         | +15
            s2        | p1         | +30
        """,
        residence=AT_HOME["residence"],
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            smr01  | demo | +0        | +100    | 0        | diagnosis
            deaths | demo | +20       | +100    | 0        | death death_cause
        """,
    )


def test_a_window_is_observed_only_inside_one_unbroken_residence():
    spec(
        "unit: series, population: all, steps: [{id: had, has: {event: diagnosis, window: [-10d, 0d]}}]",
        "moved T F\ngap T ?\nafter T F\ntoo_late T ?",
        series="""
            series_id | patient_id | scan_date
            moved     | p1         | +25
            gap       | p2         | +25
            after     | p2         | +32
            too_late  | p2         | +51
        """,
        residence="""
            patient_id | from_date | to_date
            p1         | -50       | +20
            p1         | +21       |
            p2         | -50       | +20
            p2         | +22       | +50
        """,
        source_cover=COVERED.replace("+0 ", "-90"),
    )


def test_time_before_birth_and_after_death_needs_no_cover():
    spec(
        "unit: series, population: all, steps: [{id: had, has: {event: diagnosis, window: [-20d, 20d]}}]",
        "born T F\ndied T F\nmoved T ?",
        series="""
            series_id | patient_id | scan_date
            born      | p1         | +15
            died      | p2         | +15
            moved     | p3         | +15
        """,
        patient="""
            patient_id | birth_month | death_date
            p1         | 2010-02     |
            p2         | 1950-01     | +20
            p3         | 1950-01     |
        """,
        residence="""
            patient_id | from_date | to_date
            p1         | +0        |
            p2         | -300      | +20
            p3         | -300      | +20
        """,
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            smr01  | demo | -90       | +40     | 0        | diagnosis
        """,
    )


def test_ever_reaches_as_far_as_the_source():
    spec(
        "unit: series, population: all, steps: [{id: at_any_time, has: {event: diagnosis, ever: true}}, "
        "{id: before, has: {event: diagnosis, window: [ever, -1d]}}, {id: from_then, has: {event: diagnosis, window: [0d, ever]}}]",
        """
        then    T T F T
        later   T T T F
        newcome T ? ? ?
        """,
        series="""
            series_id | patient_id | scan_date
            then      | p1         | +50
            later     | p1         | +51
            newcome   | p3         | +51
        """,
        event="""
            patient_id | kind      | system | code | date
            p1         | diagnosis | icd10  | I63  | +50
        """,
        residence=AT_HOME["residence"] + "p3 | +1 | +60",
        source_cover=COVERED,
    )


def test_first_ever_in_the_window():
    spec(
        "unit: series, population: all, steps: [{id: x, first: {event: diagnosis, ever: true, window: [0d, 10d]}}]",
        """
        in_window T T
        last_day  T T
        before    T F
        not_yet   T F
        never     T F
        uncovered T ?
        """,
        series="""
            series_id | patient_id | scan_date
            in_window | p1         | +20
            last_day  | p1         | +10
            before    | p1         | +21
            not_yet   | p1         | +9
            never     | p2         | +20
            uncovered | p2         | +85
        """,
        event="""
            patient_id | kind      | system | code | date
            p1         | diagnosis | icd10  | I63  | +20
            p1         | diagnosis | icd10  | I64  | +25
        """,
        residence=AT_HOME["residence"],
        source_cover=COVERED,
    )


def test_a_window_without_an_index_date_has_no_inside():
    spec(
        "unit: series, population: all, steps: [{id: has, has: {event: diagnosis, window: [-10d, ever]}}, "
        "{id: first, first: {event: diagnosis, ever: true, window: [-10d, ever]}}, "
        "{id: first_by, first: {event: diagnosis, ever: true, window: [ever, 10d]}}, "
        "{id: at_any_time, has: {event: diagnosis, ever: true}}]",
        "dated T T T T T\nnodate T ? ? ? T",
        series="""
            series_id | patient_id | scan_date
            dated     | p1         | +20
            nodate    | p1         |
        """,
        event="""
            patient_id | kind      | system | code | date
            p1         | diagnosis | icd10  | I63  | +20
        """,
        residence=AT_HOME["residence"],
        source_cover=COVERED,
    )


def test_a_pick_takes_the_first_of_each_patient_missing_last_and_ends_ties_by_id():
    spec(
        "unit: series, population: all, steps: [{id: ct, where: {modality: CT}}], "
        "pick: {one_per: patient, order: [scan_date, -image_count]}",
        """
        a T T F
        b T T T
        c T T F
        d T F F
        e T T T
        f T T F
        g T T ?
        """,
        series="""
            series_id | patient_id | modality | scan_date | image_count
            a         | p1         | CT       | +1        |
            b         | p1         | CT       | +1        | 10
            c         | p1         | CT       | +1        | 9
            d         | p1         | MR       | +0        | 99
            e         | p2         | CT       |           | 5
            f         | p2         | CT       |           | 5
            g         |            | CT       | +1        | 5
        """,
    )


def test_a_merged_patient_is_not_a_unit_and_an_image_of_two_contents_is_one():
    spec(
        "unit: patient, population: all, steps: [{id: woman, where: {sex: F}}]",
        "p1 T T",
        patient="""
            patient_id | sex | merged_into
            p1         | F   |
            p2         | F   | p1
        """,
    )
    spec(
        "unit: image, steps: [{id: big, where: {rows: {ge: 512}}}, {id: ct, where: {modality: CT}}]",
        "i1 T T T\ni2 T F T",
        image="""
            image_id | locator_id | series_id | study_id | modality | rows
            i1       | l2         | s1        | t1       | CT       | 64
            i1       | l1         | s1        | t1       | CT       | 512
            i2       | l3         | s1        | t1       | CT       | 64
        """,
    )


def test_age_is_the_one_that_was_published():
    spec(
        "unit: series, population: all, steps: [{id: age, where: {age_at: {between: [65, 80]}}}]",
        "s1 T F\ns2 T T\ns3 T T\ns4 T F\ns5 T ?",
        series="""
            series_id | age_years | scan_date
            s1        | 64        | +1
            s2        | 65        | +1
            s3        | 80        | +1
            s4        | 81        | +1
            s5        |           | +1
        """,
    )


def test_parts_of_a_step_are_all_any_or_none_of_three_values():
    parts = "[{where: {modality: CT}}, {where: {orientation: AXIAL}}]"
    spec(
        f"unit: series, steps: [{{id: every, all: {parts}}}, {{id: some, any: {parts}}}, {{id: neither, none: {parts}}}]",
        """
        s1 T T T F
        s2 T F T F
        s3 T ? T F
        s4 T F F T
        s5 T F ? ?
        """,
        series="""
            series_id | modality | orientation
            s1        | CT       | AXIAL
            s2        | MR       | AXIAL
            s3        | CT       |
            s4        | MR       | CORONAL
            s5        | MR       |
        """,
    )


def test_a_pattern_is_looked_for_anywhere_and_means_the_same_on_every_engine():
    spec(
        "unit: series, steps: [{id: part, where: {scan_time: {matches: '1.3'}}}, "
        "{id: whole, where: {scan_time: {matches: '^1[0-9]{2}$'}}}, {id: letters, where: {scan_time: {matches: '(?i)^a|\\\\'}}}]",
        """
        s1 T T T F
        s2 T T F F
        s3 T F F T
        s4 T F F T
        s5 T F F F
        s6 T ? ? ?
        """,
        series="""
            series_id | scan_time
            s1        | 123
            s2        | 0123
            s3        | Ab
            s4        | x\\y
            s5        | ä
            s6        |
        """,
    )


def test_every_number_of_a_tag_must_be_so_and_a_word_must_be_among_its_words():
    spec(
        "unit: series, steps: [{id: thin, where: {tag.SliceThickness: {le: 1.5}}}, {id: thick, where: {tag.SliceThickness: {ge: 1.5}}}, "
        "{id: equal, where: {tag.SliceThickness: 1.5}}, {id: echo, where: {tag.ScanningSequence: SE}}]",
        """
        s1 T T T T T
        s2 T F T F F
        s3 T T F F ?
        s4 T ? ? ? ?
        """,
        series="""
            series_id
            s1
            s2
            s3
            s4
        """,
        tag="""
            series_id | keyword          | vr | min | max | values
            s1        | SliceThickness   | DS | 1.5 | 1.5 | 1.5
            s2        | SliceThickness   | DS | 1.5 | 3   | 1.5 3
            s3        | SliceThickness   | DS | 1   | 1.5 | 1 1.5
            s1        | ScanningSequence | CS |     |     | IR SE
            s2        | ScanningSequence | CS |     |     | IR
            s3        | ScanningSequence | CS |     |     | {}
        """,
    )


def test_a_series_has_the_smallest_and_the_largest_of_a_feature_of_its_images():
    spec(
        "unit: series, steps: [{id: low, where: {feature.intensity_mean@1.min: {lt: 0}}}, "
        "{id: high, where: {feature.intensity_mean@1.max: {ge: 9}}}]",
        "s1 T T T\ns2 T ? ?",
        series="""
            series_id
            s1
            s2
        """,
        image_feature="""
            level | id | series_id | feature        | version | value | status
            image | i1 | s1        | intensity_mean | 1       | -5    | ok
            image | i2 | s1        | intensity_mean | 1       | 9     | ok
            image | i3 | s2        | intensity_mean | 2       | -5    | ok
            image | i4 | s2        | intensity_mean | 1       | -5    | failed
        """,
    )


def test_related_are_other_series_of_the_study_and_what_is_unknown_of_them_may_decide():
    spec(
        'unit: series, population: all, steps: [{id: plain, related: {unit: series, of: study, where: {contrast: "no"}}}, '
        "{id: framed, related: {unit: series, of: study, same: [frame_of_reference_id]}}]",
        """
        s1 T T T
        s2 T F T
        s3 T ? ?
        s4 T T ?
        s5 T ? ?
        """,
        series="""
            series_id | study_id | contrast | frame_of_reference_id
            s1        | t1       | yes      | f1
            s2        | t1       | no       | f1
            s3        | t2       | no       | f1
            s4        | t2       | unknown  |
            s5        |          | no       | f1
        """,
    )


def test_related_counts_studies_within_so_many_days():
    spec(
        "unit: patient, population: all, index: 2010-02-01, steps: [{id: often, related: {unit: series, of: patient, "
        "where: {modality: CT}, count: study, at_least: 3, within: 10d}}, "
        "{id: before, related: {unit: series, of: patient, window: [ever, -1d]}}]",
        """
        p1 T T F
        p2 T F T
        p3 T ? ?
        p4 T F F
        """,
        patient="""
            patient_id
            p1
            p2
            p3
            p4
        """,
        series="""
            series_id | study_id | patient_id | modality | scan_date
            s1        | t1       | p1         | CT       | +0
            s2        | t2       | p1         | CT       | +5
            s3        | t2       | p1         | CT       | +6
            s4        | t3       | p1         | CT       | +10
            s5        | t4       | p2         | CT       | -1
            s6        | t5       | p2         | CT       | +5
            s7        | t6       | p2         | CT       | +10
            s8        | t7       | p3         | CT       | +0
            s9        | t8       | p3         | CT       | +1
            s10       | t9       | p3         | CT       |
        """,
    )


def test_last_ever_is_the_mirror_of_first_ever():
    spec(
        "unit: series, population: all, steps: [{id: x, last: {event: diagnosis, ever: true, window: [-10d, 0d]}}]",
        """
        in_window T T
        after     T F
        long_ago  T F
        uncovered T ?
        """,
        series="""
            series_id | patient_id | scan_date
            in_window | p1         | +30
            after     | p1         | +24
            long_ago  | p1         | +36
            uncovered | p2         | +95
        """,
        event="""
            patient_id | kind      | system | code | date
            p1         | diagnosis | icd10  | I63  | +20
            p1         | diagnosis | icd10  | I64  | +25
        """,
        residence=AT_HOME["residence"],
        source_cover=COVERED,
    )


def test_a_chain_is_of_events_that_follow_one_another():
    spec(
        "unit: patient, population: all, index: 2010-02-01, steps: [{id: regular, chain: {event: dispensing, window: [0d, 90d], "
        "at_least: 3, gap: [5d, 30d]}}, {id: dense, chain: {event: dispensing, ever: true, at_least: 3, within: 20d}}]",
        """
        p1 T T F
        p2 T F T
        p3 T ? ?
        """,
        patient="""
            patient_id
            p1
            p2
            p3
        """,
        event="""
            patient_id | kind       | system | code    | date
            p1         | dispensing | bnf    | 0208020 | +0
            p1         | dispensing | bnf    | 0208020 | +0
            p1         | dispensing | bnf    | 0208020 | +28
            p1         | dispensing | bnf    | 0208020 | +56
            p2         | dispensing | bnf    | 0208020 | +0
            p2         | dispensing | bnf    | 0208020 | +1
            p2         | dispensing | bnf    | 0208020 | +20
        """,
        **AT_HOME,
    )


def test_cover_is_yes_or_no_and_main_and_source_narrow_the_events():
    spec(
        "unit: series, population: all, steps: [{id: seen, cover: {event: diagnosis, window: [-10d, 0d]}}, "
        "{id: main, has: {event: diagnosis, window: [-10d, 0d], position: main}}, "
        "{id: there, has: {event: diagnosis, window: [-10d, 0d], source: smr01}}, "
        "{id: elsewhere, has: {event: diagnosis, window: [-10d, 0d], source: smr06}}]",
        """
        early   T F ? ? ?
        covered T T F T ?
        nobody  T F ? ? ?
        """,
        series="""
            series_id | patient_id | scan_date
            early     | p2         | +9
            covered   | p1         | +10
            nobody    |            | +10
        """,
        event="""
            patient_id | kind      | source | position | date
            p1         | diagnosis | smr01  | 1        | +5
            p1         | diagnosis | smr01  |          | +6
        """,
        residence=AT_HOME["residence"],
        source_cover=COVERED,
    )


def test_a_sample_takes_of_each_stratum_those_whose_hash_comes_first():
    # SHA-256 of one:a begins with 24, of one:b with 5b; a missing modality is a stratum of its own.
    spec(
        "unit: series, steps: [{id: some, where: {image_count: {ge: 1}}}], sample: {size: 1, seed: one, strata: [modality]}",
        "a T T T\nb T T F\nc T T T\nd T F F",
        series="""
            series_id | modality | image_count
            a         | CT       | 5
            b         | CT       | 5
            c         |          | 5
            d         | CT       | 0
        """,
    )


def test_the_nearest_event_is_the_earlier_of_two_as_near_and_its_value_decides():
    spec(
        "unit: series, population: all, steps: [{id: near, nearest: {event: lab, window: [-9d, 9d]}}, "
        "{id: low, nearest: {event: lab, window: [-9d, 9d], then: {value_std: {lt: 30}}}}, "
        "{id: last_low, nearest: {event: lab, window: [-9d, 9d], take: latest, then: {value_std: {lt: 30}}}}]",
        """
        tie    T T T F
        bound  T T ? ?
        none   T F F F
        unseen T ? ? ?
        """,
        series="""
            series_id | patient_id | scan_date
            tie       | p1         | +50
            bound     | p1         | +90
            none      | p2         | +50
            unseen    | p2         | +299
        """,
        event="""
            event_id | patient_id | kind | date | value_std | comparator
            e1       | p1         | lab  | +47  | 20        |
            e2       | p1         | lab  | +53  | 60        | =
            e3       | p1         | lab  | +90  | 60        | >
        """,
        residence=AT_HOME["residence"],
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            labs   | demo | -300      | +300    | 0        | lab
        """,
    )


def test_a_condition_on_an_event_that_is_unknown_may_make_it_one():
    spec(
        "unit: patient, population: all, index: 2010-02-01, steps: [{id: low, has: {event: lab, window: [0d, 9d], where: "
        "{value_std: {lt: 30}}}}, {id: none_low, lacks: {event: lab, window: [0d, 9d], where: {value_std: {lt: 30}}}}]",
        "p1 T T F\np2 T F T\np3 T ? ?",
        patient="""
            patient_id
            p1
            p2
            p3
        """,
        event="""
            event_id | patient_id | kind | date | value_std | comparator
            e1       | p1         | lab  | +1   | 20        |
            e2       | p1         | lab  | +2   |           |
            e3       | p2         | lab  | +1   | 60        |
            e4       | p3         | lab  | +1   | 60        | >
        """,
        residence=AT_HOME["residence"] + "p3 | -400 | ",
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            labs   | demo | -300      | +300    | 0        | lab
        """,
    )


def test_the_nearest_scan_is_another_one_and_one_without_a_date_may_be_it():
    spec(
        "unit: series, population: all, steps: [{id: near, nearest: {unit: series, of: patient, where: {modality: CT}, "
        "window: [-9d, 9d]}}, "
        "{id: thin, nearest: {unit: series, of: patient, where: {modality: CT}, window: [-9d, 9d], then: {slice_thickness_max: {le: 1}}}}]",
        """
        mr1 T T T
        ct1 T T F
        ct2 T T T
        mr2 T F F
        mr3 T ? ?
        ct3 T F F
        """,
        series="""
            series_id | patient_id | modality | scan_date | slice_thickness_max
            mr1       | p1         | MR       | +10       |
            ct1       | p1         | CT       | +8        | 1
            ct2       | p1         | CT       | +12       | 5
            mr2       | p2         | MR       | +10       |
            mr3       | p3         | MR       | +10       |
            ct3       | p3         | CT       |           | 1
        """,
    )


def test_a_stay_holds_its_events_whatever_the_episode():
    spec(
        "unit: series, population: all, codelists: {hip: {system: icd10, codes: [S72]}}, "
        "steps: [{id: operated, stay: {has: [{event: diagnosis, codes: hip}, {event: procedure}], begins: [-1d, 1d]}}, "
        "{id: inside, stay: {has: [{event: diagnosis, codes: hip}], begins: [ever, 0d], ends: [0d, ever]}}]",
        """
        day_before T T ?
        first_day  T T T
        third_day  T F T
        last_day   T F T
        day_after  T F ?
        lasting    T ? ?
        """,
        series="""
            series_id  | patient_id | scan_date
            day_before | p1         | +19
            first_day  | p1         | +20
            third_day  | p1         | +22
            last_day   | p1         | +30
            day_after  | p1         | +31
            lasting    | p3         | +31
        """,
        stay="""
            stay_id | patient_id | start_date | end_date
            y1      | p1         | +20        | +30
            y2      | p1         | +40        | +50
            y3      | p3         | +30        |
        """,
        event="""
            event_id | patient_id | kind      | system | code | date | stay_id
            e1       | p1         | diagnosis | icd10  | S720 | +20  | y1
            e2       | p1         | procedure | opcs4  | W19  | +25  | y1
            e3       | p1         | procedure | opcs4  | W19  | +41  | y2
            e4       | p3         | diagnosis | icd10  | S720 | +30  | y3
        """,
        residence="""
            patient_id | from_date | to_date
            p1         | +0        |
            p3         | +31       |
        """,
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            smr01  | demo | -300      | +300    | 0        | admission diagnosis procedure
        """,
    )


def test_windows_may_count_from_the_stay_around_the_index_date():
    spec(
        "unit: series, population: all, steps: [{id: from_discharge, has: {event: dispensing, window: [1d, 5d], from: end_of_stay}}, "
        "{id: from_admission, has: {event: dispensing, window: [0d, 9d], from: start_of_stay}}]",
        """
        inside  T T F
        second  T F T
        outside T ? ?
        """,
        series="""
            series_id | patient_id | scan_date
            inside    | p1         | +25
            second    | p1         | +30
            outside   | p1         | +60
        """,
        stay="""
            stay_id | patient_id | start_date | end_date
            y1      | p1         | +20        | +30
            y2      | p1         | +30        | +50
        """,
        event="""
            event_id | patient_id | kind       | date
            e1       | p1         | dispensing | +31
            e2       | p1         | dispensing | +60
        """,
        **AT_HOME,
    )


def test_the_index_date_may_be_the_day_of_an_event():
    spec(
        "unit: patient, codelists: {stroke: {system: icd10, codes: [I63]}}, index: {first: {event: diagnosis, codes: stroke}}, "
        "steps: [{id: again, has: {event: diagnosis, codes: stroke, window: [31d, ever]}}]",
        "p1 T T\np2 T F\np3 ? ?",
        patient="""
            patient_id
            p1
            p2
            p3
        """,
        event="""
            event_id | patient_id | kind      | system | code | date
            e1       | p1         | diagnosis | icd10  | I63  | +10
            e2       | p1         | diagnosis | icd10  | I639 | +41
            e3       | p2         | diagnosis | icd10  | I63  | +10
            e4       | p2         | diagnosis | icd10  | I639 | +40
            e5       | p3         | diagnosis | icd10  | G30  | +10
        """,
        residence=AT_HOME["residence"] + "p3 | -400 | ",
        source_cover=AT_HOME["source_cover"],
    )


def test_days_between_two_dates():
    spec(
        "unit: study, population: all, steps: [{id: agree, gap: {from: study_date, to: scan_date, days: [-1d, 1d]}}]",
        "x1 T T\nx2 T T\nx3 T F\nx4 T ?",
        study="""
            study_id | study_date | scan_date
            x1       | +5         | +4
            x2       | +5         | +6
            x3       | +5         | +7
            x4       |            | +7
        """,
    )


AT_THE_DOOR = {
    "residence": """
        patient_id | from_date | to_date
        p1         | -400      |
        p2         | -400      |
    """,
    "source_cover": """
        source | site | from_date | to_date | lag_days | kinds
        ae2    | demo | -300      | +300    | 0        | attendance
    """,
}


def test_hours_count_by_the_clock_and_a_time_that_is_not_known_may_be_any_of_its_day():
    spec(
        "unit: series, index: scan_date, population: all, steps: [{id: four, has: {event: attendance, window: [-4h, 0h]}}, "
        "{id: two_days, has: {event: attendance, window: [-48h, 48h]}}, {id: none, lacks: {event: attendance, window: [-4h, 0h]}}]",
        "s1 T T T F\ns2 T F T T\ns3 T ? T ?\ns4 T F F T\ns5 T ? ? ?",
        series="""
            series_id | patient_id | scan_date | scan_time
            s1        | p1         | +10       | 02:00:00
            s2        | p1         | +10       | 12:00:00
            s3        | p1         | +10       |
            s4        | p1         | +30       |
            s5        | p1         |           | 02:00:00
        """,
        event="""
            event_id | patient_id | kind       | date | time
            e1       | p1         | attendance | +9   | 22:00:00
        """,
        residence=AT_THE_DOOR["residence"],
        source_cover=AT_THE_DOOR["source_cover"],
    )


def test_hours_are_closed_to_the_second_and_an_event_without_a_time_may_be_the_nearest():
    spec(
        "unit: series, index: scan_date, population: all, steps: [{id: one, has: {event: attendance, window: [-1h, 0h]}}, "
        "{id: near, nearest: {event: attendance, window: [-24h, 24h], then: {value_std: {lt: 5}}}}]",
        "s1 T T T\ns2 T F T\ns3 T ? ?\ns4 T F F",
        series="""
            series_id | patient_id | scan_date | scan_time
            s1        | p1         | +10       | 12:00:00
            s2        | p1         | +10       | 12:00:01
            s3        | p2         | +10       | 12:00:00
            s4        | p2         | +20       | 12:00:00
        """,
        event="""
            event_id | patient_id | kind       | date | time     | value_std
            e1       | p1         | attendance | +10  | 11:00:00 | 1
            e2       | p2         | attendance | +10  |          | 1
        """,
        residence=AT_THE_DOOR["residence"],
        source_cover=AT_THE_DOOR["source_cover"],
    )


def test_none_found_within_hours_is_no_only_where_the_days_they_reach_are_covered():
    spec(
        "unit: series, index: scan_date, population: all, steps: [{id: x, has: {event: attendance, window: [-4h, 4h]}}]",
        "early T ?\nfirst T F\nlast T F\nlate T ?\nsome_time T ?",
        series="""
            series_id | patient_id | scan_date | scan_time
            early     | p1         | -300      | 03:59:59
            first     | p1         | -300      | 04:00:00
            last      | p1         | +300      | 19:59:59
            late      | p1         | +300      | 20:00:00
            some_time | p1         | +300      |
        """,
        residence=AT_THE_DOOR["residence"],
        source_cover=AT_THE_DOOR["source_cover"],
    )


def test_scans_without_a_day_are_each_told_of_once_whatever_their_times():
    spec(
        "unit: series, index: scan_date, population: alive_and_resident, steps: "
        "[{id: x, has: {event: attendance, window: [-4h, 4h]}}, {id: y, lacks: {event: attendance, window: [-1d, 1d]}}]",
        "s1 ? ? ?\ns2 ? ? ?\ns3 ? ? ?",
        series="""
            series_id | patient_id | scan_date | scan_time
            s1        | p1         |           | 02:00:00
            s2        | p1         |           | 03:00:00
            s3        | p1         |           |
        """,
        patient="""
            patient_id
            p1
        """,
        residence=AT_THE_DOOR["residence"],
        source_cover=AT_THE_DOOR["source_cover"],
    )


def test_hours_to_other_scans_and_between_two_dates():
    spec(
        "unit: series, index: scan_date, population: all, steps: [{id: soon, related: {unit: series, of: patient, window: [0h, 2h]}}, "
        "{id: begun, gap: {from: study_date, to: index, days: [0h, 1h]}}]",
        "s1 T T T\ns2 T F F\ns3 T F F\ns4 T ? ?\ns5 T ? T",
        study="""
            study_id | study_date | study_time
            t1       | +10        | 22:30:00
        """,
        series="""
            series_id | study_id | patient_id | scan_date | scan_time
            s1        | t1       | p1         | +10       | 23:00:00
            s2        | t1       | p1         | +11       | 00:59:59
            s3        | t1       | p2         | +11       | 03:00:00
            s4        | t1       | p3         | +10       |
            s5        | t1       | p3         | +10       | 23:00:00
        """,
    )


def test_hours_from_the_first_event_whose_time_is_that_of_the_first_of_its_day():
    spec(
        "unit: patient, index: {first: {event: attendance}}, population: all, "
        "steps: [{id: x, related: {unit: series, of: patient, window: [0h, 4h]}}]",
        "p1 T T\np2 T F\np3 T ?\np4 T ?",
        patient="""
            patient_id
            p1
            p2
            p3
            p4
        """,
        event="""
            event_id | patient_id | kind       | date | time
            e1       | p1         | attendance | +9   | 21:00:00
            e2       | p1         | attendance | +9   | 20:00:00
            e3       | p2         | attendance | +9   | 20:00:00
            e4       | p2         | attendance | +9   | 23:00:00
            e5       | p3         | attendance | +9   | 20:00:00
            e6       | p3         | attendance | +9   |
        """,
        series="""
            series_id | patient_id | scan_date | scan_time
            s1        | p1         | +10       | 00:00:00
            s2        | p2         | +10       | 00:00:01
            s3        | p3         | +10       | 00:00:00
            s4        | p4         | +10       | 00:00:00
        """,
    )


def test_the_first_and_the_last_event_day_may_have_to_lie_apart():
    spec(
        "unit: patient, index: 2010-02-01, population: all, steps: [{id: lasting, has: {event: lab, where: {value_std: {lt: 60}}, "
        "window: [0d, 99d], at_least: 2, apart: 90d}}]",
        "p1 T T\np2 T F\np3 T ?\np4 T F",
        patient="""
            patient_id
            p1
            p2
            p3
            p4
        """,
        event="""
            event_id | patient_id | kind | date | value_std
            e1       | p1         | lab  | +0   | 50
            e2       | p1         | lab  | +90  | 50
            e3       | p2         | lab  | +0   | 50
            e4       | p2         | lab  | +89  | 50
            e5       | p2         | lab  | +95  | 60
            e6       | p3         | lab  | +0   | 50
            e7       | p3         | lab  | +95  |
        """,
        residence="""
            patient_id | from_date | to_date
            p1         | -400      |
            p2         | -400      |
            p3         | -400      |
            p4         | -400      |
        """,
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            labs   | demo | -300      | +300    | 0        | lab
        """,
    )


def test_an_event_may_be_asked_for_by_its_date():
    spec(
        "unit: patient, index: {first: {event: lab, where: {date: {ge: 2010-02-03}}}}, population: all, "
        "steps: [{id: x, has: {event: lab, window: [0d, 9d], where: {value_std: {lt: 60}}}}]",
        "p1 T F\np2 T T\np3 T ?",
        patient="""
            patient_id
            p1
            p2
            p3
        """,
        event="""
            event_id | patient_id | kind | date | value_std
            e1       | p1         | lab  | +1   | 50
            e2       | p1         | lab  | +5   | 60
            e3       | p2         | lab  | +2   | 50
            e4       | p3         | lab  | +1   | 50
        """,
        residence="""
            patient_id | from_date | to_date
            p1         | -400      |
            p2         | -400      |
            p3         | -400      |
        """,
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            labs   | demo | -300      | +300    | 0        | lab
        """,
    )


def test_one_image_of_each_series():
    spec(
        "unit: image, index: scan_date, population: all, steps: [{id: x, where: {modality: CT}}], "
        "pick: {one_per: series, order: [instance_number]}",
        "i1 T T F\ni2 T T T\ni3 T F F\ni4 T T T",
        image="""
            image_id | locator_id | series_id | modality | instance_number
            i1       | l1         | s1        | CT       | 2
            i2       | l2         | s1        | CT       | 1
            i3       | l3         | s1        | MR       | 0
            i4       | l4         | s2        | CT       |
        """,
    )


def test_stays_are_counted_and_may_have_to_last():
    spec(
        "unit: patient, index: 2010-02-01, population: all, codelists: {copd: {system: icd10, codes: [J44]}}, steps: ["
        "{id: twice, stay: {has: [{event: diagnosis, codes: copd}], begins: [ever, -1d], at_least: 2}}, "
        "{id: long, stay: {has: [{event: diagnosis, codes: copd}], begins: [ever, -1d], days: [7d, ever]}}]",
        "p1 T T F\np2 T F T\np3 T F ?",
        patient="""
            patient_id
            p1
            p2
            p3
        """,
        stay="""
            stay_id | patient_id | start_date | end_date
            y1      | p1         | -50        | -44
            y2      | p1         | -30        | -30
            y3      | p2         | -50        | -43
            y4      | p3         | -5         |
        """,
        event="""
            event_id | patient_id | kind      | system | code | date | stay_id
            e1       | p1         | diagnosis | icd10  | J440 | -50  | y1
            e2       | p1         | diagnosis | icd10  | J449 | -30  | y2
            e3       | p2         | diagnosis | icd10  | J440 | -50  | y3
            e4       | p2         | diagnosis | icd10  | J449 | -44  | y3
            e5       | p3         | diagnosis | icd10  | J440 | -5   | y4
        """,
        residence="""
            patient_id | from_date | to_date
            p1         | -400      |
            p2         | -400      |
            p3         | -400      |
        """,
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            smr01  | demo | -300      | +300    | 0        | admission diagnosis
        """,
    )


def test_others_may_have_to_differ_or_to_be_so_many_times_as_large():
    spec(
        "unit: series, index: scan_date, population: all, steps: [{id: sharp, related: {unit: series, of: study, "
        "differ: [convolution_kernel]}}, {id: thicker, related: {unit: series, of: study, ratio: {slice_thickness_max: {ge: 2}}}}]",
        "s1 T T T\ns2 T T F\ns3 T ? F\ns4 T ? F\ns5 T F ?\ns6 T F ?",
        series="""
            series_id | study_id | convolution_kernel | slice_thickness_max
            s1        | t1       | SHARP              | 1
            s2        | t1       | STANDARD           | 2
            s3        | t2       | SHARP              | 1
            s4        | t2       |                    | 1.5
            s5        | t3       | SHARP              | 0
            s6        | t3       | SHARP              |
        """,
    )


def test_a_pattern_may_be_in_any_text_of_a_set():
    spec(
        "unit: series, index: scan_date, population: all, steps: [{id: flair, where: {tag.SeriesDescription: {matches: FLAIR$}}}, "
        "{id: whole, where: {tag.SeriesDescription: T2 FLAIR}}]",
        "s1 T T F\ns2 T T T\ns3 T F F\ns4 T ? ?",
        series="""
            series_id
            s1
            s2
            s3
            s4
        """,
        description="""
            series_id | keyword           | text
            s1        | SeriesDescription | T1
            s1        | SeriesDescription | AX FLAIR
            s2        | SeriesDescription | T2 FLAIR
            s3        | SeriesDescription | FLAIR AX
            s4        | StudyDescription  | T2 FLAIR
        """,
    )


def test_a_report_says_yes_or_no_and_without_one_it_is_unknown():
    spec(
        "unit: study, population: all, steps: [{id: mass, report: {finding: mass}}, "
        "{id: surely, report: {finding: mass, certainty: certain}}, {id: negated, report: {finding: mass, polarity: negated}}]",
        "x1 T T F F\nx2 T F F F\nx3 T F F T\nx4 T ? ? ?\nx5 T ? ? ?",
        study="""
            study_id
            x1
            x2
            x3
            x4
            x5
        """,
        report="""
            report_id | study_id | report_date | status
            r1        | x1       | +5          | final
            r2        | x2       | +5          |
            r3        | x3       | +5          | final
            r4        | x4       | +5          | cancelled
        """,
        report_finding="""
            report_id | finding | polarity | certainty | subject
            r1        | mass    | affirmed | possible  | patient
            r2        | mass    | affirmed | certain   | family
            r3        | mass    | negated  | certain   | patient
        """,
    )


def test_first_and_last_must_lie_so_many_days_apart():
    spec(
        "unit: patient, population: all, index: 2010-02-01, steps: [{id: again, related: {unit: series, of: patient, count: study, "
        "at_least: 2, apart: 10d}}]",
        "p1 T T\np2 T F\np3 T ?\np4 T F",
        patient="""
            patient_id
            p1
            p2
            p3
            p4
        """,
        series="""
            series_id | study_id | patient_id | scan_date
            s1        | t1       | p1         | +0
            s2        | t2       | p1         | +10
            s3        | t3       | p2         | +0
            s4        | t4       | p2         | +9
            s5        | t5       | p3         | +0
            s6        | t6       | p3         |
            s7        | t7       | p4         | +0
            s8        | t7       | p4         | +10
        """,
    )


def test_others_may_be_asked_for_others_in_turn():
    spec(
        "unit: study, steps: [{id: registered, related: {unit: series, of: study, where: {modality: PT}, "
        "related: {unit: series, of: study, where: {modality: CT}, same: [frame_of_reference_id]}}}]",
        "x1 T T\nx2 T F\nx3 T ?",
        study="""
            study_id
            x1
            x2
            x3
        """,
        series="""
            series_id | study_id | modality | frame_of_reference_id
            s1        | x1       | PT       | f1
            s2        | x1       | CT       | f1
            s3        | x2       | PT       | f1
            s4        | x2       | CT       | f2
            s5        | x3       | PT       | f1
            s6        | x3       | CT       |
        """,
    )


def test_where_a_person_lived_on_the_day():
    spec(
        "unit: series, population: all, steps: [{id: poorest, where: {simd_quintile: 1}}]",
        "before T ?\nfirst T T\nmoved T F\ngone T ?\nnobody T ?",
        series="""
            series_id | patient_id | scan_date
            before    | p1         | -1
            first     | p1         | +0
            moved     | p1         | +20
            gone      | p1         | +31
            nobody    |            | +20
        """,
        residence="""
            patient_id | from_date | to_date | simd_quintile
            p1         | +0        | +19     | 1
            p1         | +20       | +30     | 5
        """,
    )


def test_text_in_any_picture_is_text_in_the_series():
    spec(
        "unit: series, steps: [{id: text, where: {text_verdict: text}}, {id: clean, where: {text_verdict: clean}}]",
        "s1 T T F\ns2 T F F\ns3 T F T\ns4 T ? ?",
        series="""
            series_id
            s1
            s2
            s3
            s4
        """,
        burned_in_text="""
            image_id | series_id | verdict
            i1       | s1        | clean
            i2       | s1        | text
            i3       | s2        | clean
            i4       | s2        | not_determined
            i5       | s3        | clean
        """,
    )


def test_a_split_at_a_date_puts_nobody_in_both_parts():
    spec(
        "unit: series, population: all, steps: [{id: ct, where: {modality: CT}}], split: {parts: [train, test], at: 2010-02-11}",
        """
        early  T T T
        later  T T F
        other  T T T
        nobody T T ?
        nodate T T ?
        mr     T F F
        """,
        series="""
            series_id | patient_id | modality | scan_date
            early     | p1         | CT       | +9
            later     | p1         | CT       | +10
            other     | p2         | CT       | +10
            nobody    |            | CT       | +9
            nodate    | p2         | CT       |
            mr        | p2         | MR       | +9
        """,
    )


def test_follow_up_ends_with_the_outcome_or_where_nobody_would_know_of_it():
    """Days, 1 or 0, and what ended it; an outcome on the last day counts."""
    asked = yaml_face.from_yaml(
        "{cohort: 1, id: spec, unit: series, population: all, steps: [{id: all, where: {modality: {is_missing: true}}}], output: [{id: f, "
        "follow_up: {event: diagnosis, window: [1d, 60d], until: 2010-05-01}}]}"
    )
    data = {
        "series": rows(
            "series",
            """
            series_id | patient_id | scan_date
            had_it    | p1         | +10
            same_day  | p1         | +20
            died      | p2         | +10
            moved     | p3         | +10
            window    | p4         | +10
            study_end | p4         | +80
            covered   | p4         | +88
            too_late  | p4         | +90
            dead      | p2         | +31
            """,
        ),
        "patient": rows("patient", "patient_id | death_date\np1 |\np2 | +30\np3 |\np4 |"),
        "residence": rows(
            "residence", "patient_id | from_date | to_date\np1 | -400 |\np2 | -400 |\np3 | -400 | +15\np3 | +17 |\np4 | -400 |"
        ),
        "source_cover": rows("source_cover", COVERED.replace("+100", " +99")),
        "event": rows("event", "event_id | patient_id | kind | date\ne1 | p1 | diagnosis | +20\ne2 | p3 | diagnosis | +18"),
    }
    wanted = {
        "had_it": (10, 1, "event"),
        "same_day": (60, 0, "window_end"),
        "died": (20, 0, "death"),
        "moved": (5, 0, "transfer_out"),
        "window": (60, 0, "window_end"),
        "study_end": (9, 0, "study_end"),
        "covered": (1, 0, "study_end"),
        "too_late": (None, None, None),
        "dead": (None, None, None),
    }
    assert show(asked, {}, interpret(asked, {}, full(data))) == wanted
    plan = compiled(asked, {})
    with duckdb.connect() as connection:
        into_duckdb(connection, data)
        assert duck.shown(connection, plan, members=False) == wanted


def test_cases_are_given_controls_that_are_like_them_and_nobody_twice():
    """SHA-256 of one:a:x begins with 78, of one:a:y with f2, of one:b:x with 9f and of one:b:y with 01: x goes with a, y with b."""
    asked = yaml_face.from_yaml(
        "{cohort: 1, id: spec, unit: series, population: all, steps: [{id: all, where: {scan_date: {is_missing: false}}}], "
        "match: {cases: old, level: series, ratio: 1, seed: one, exact: [modality], caliper: {scan_date: 5d}}}"
    )
    data = {
        "series": rows(
            "series",
            """
            series_id | patient_id | modality | scan_date
            a         | p1         | CT       | +10
            b         | p2         | CT       | +10
            lonely    | p3         | MR       | +10
            x         | p4         | CT       | +5
            y         | p5         | CT       | +15
            far       | p6         | CT       | +16
            own       | p1         | CT       | +10
            """,
        ),
        "cohort_member": [{"cohort_run_id": "r", "unit_id": name} for name in ("a", "b", "lonely")],
    }
    found = interpret(asked, {}, full(data), {"old": ("series", frozenset({"a", "b", "lonely"}))})
    assert {row.one.id for row in found if row.answers[-1]} == {"a", "b", "x", "y"}
    assert {row.one.id: row.controls for row in found if row.controls} == {"a": ("x",), "b": ("y",)}
    plan = compiled(asked, {}, {"old": Saved("r", "series")})
    with duckdb.connect() as connection:
        into_duckdb(connection, data)
        passed = connection.execute(f"SELECT unit_id FROM ({plan.sql('duckdb')}) WHERE passed = {plan.last}").fetchall()
        pairs = connection.execute(plan.pairs.sql("duckdb")).fetchall()
    assert {row[0] for row in passed} == {"a", "b", "x", "y"}
    assert sorted(pairs) == sorted((row.one.id, control, 1) for row in found for control in row.controls)


def test_other_scans_may_be_looked_for_among_the_members_of_a_frozen_cohort():
    asked = yaml_face.from_yaml(
        "{cohort: 1, id: spec, unit: series, population: all, steps: [{id: a, related: {unit: series, of: patient, window: [ever, -1d], "
        "among: {cohort: old, level: series}}}]}"
    )
    data = {
        "series": rows("series", "series_id | patient_id | scan_date\na | p1 | +1\nb | p1 | +2\nc | p1 | +3\nd | p2 | +1\ne | p2 | +2"),
        "cohort_member": [{"cohort_run_id": "r", "unit_id": name} for name in ("b", "e")],
    }
    wanted = {"a": False, "b": False, "c": True, "d": False, "e": False}
    found = interpret(asked, {}, full(data), {"old": ("series", frozenset({"b", "e"}))})
    assert {row.one.id: row.answers[-1] for row in found} == wanted
    plan = compiled(asked, {}, {"old": Saved("r", "series")})
    with duckdb.connect() as connection:
        into_duckdb(connection, data)
        bits = connection.execute(plan.sql("duckdb")).fetchall()
    assert {row[0]: bool(row[3] >> plan.last & 1) for row in bits} == wanted


def test_the_first_event_that_meets_a_condition_is_unknown_where_one_before_it_may_meet_it():
    spec(
        "unit: patient, population: all, index: 2010-02-01, steps: [{id: x, first: {event: lab, ever: true, window: [5d, 9d], "
        "where: {value_std: {lt: 30}}}}]",
        """
        high_then_low T T
        low_before    T F
        maybe_before  T ?
        maybe_inside  T ?
        sure_inside   T T
        none          T F
        """,
        patient="""
            patient_id
            high_then_low
            low_before
            maybe_before
            maybe_inside
            sure_inside
            none
        """,
        event="""
            event_id | patient_id    | kind | date | value_std | comparator
            e1       | high_then_low | lab  | +1   | 60        |
            e2       | high_then_low | lab  | +6   | 20        |
            e3       | low_before    | lab  | +4   | 20        |
            e4       | maybe_before  | lab  | +4   | 20        | >
            e5       | maybe_before  | lab  | +6   | 20        |
            e6       | maybe_inside  | lab  | +6   |           |
            e7       | sure_inside   | lab  | +6   |           |
            e8       | sure_inside   | lab  | +7   | 20        |
        """,
        residence="""
            patient_id    | from_date | to_date
            high_then_low | -400      |
            low_before    | -400      |
            maybe_before  | -400      |
            maybe_inside  | -400      |
            sure_inside   | -400      |
            none          | -400      |
        """,
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            labs   | demo | -300      | +300    | 0        | lab
        """,
    )


@pytest.mark.parametrize(
    ("test", "answers"),
    [
        ("scan_date.weekday: MON", "T F F ?"),
        ("scan_date.weekday: [SAT, SUN]", "F T F ?"),
        ("scan_date.month_of_year: {in: [12, 1, 2]}", "T T F ?"),
        ("scan_date.year: {ge: 2010}", "T T F ?"),
        ("scan_date.month: 2010-02", "T T F ?"),
        ("scan_time.hour: {lt: 9}", "T F F ?"),
        ("scan_time.hour: {between: [17, 23]}", "F T F ?"),
        ("scan_time.hour: {is_missing: true}", "F F F T"),
    ],
)
def test_a_date_has_a_day_of_the_week_and_a_time_an_hour(test, answers):
    a, b, c, d = answers.split()
    spec(
        f"unit: series, steps: [{{id: x, where: {{{test}}}}}]",
        f"s1 T {a}\ns2 T {b}\ns3 T {c}\ns4 T {d}",
        series="""
            series_id | scan_date  | scan_time
            s1        | +0         | 08:59:59
            s2        | +6         | 17:00:00
            s3        | 1969-08-06 | 09:00:00
            s4        |            |
        """,
    )


def test_days_of_the_week_before_1970_are_those_of_the_calendar():
    spec(
        "unit: series, steps: [{id: x, where: {scan_date.weekday: SAT}}, {id: y, where: {scan_date.weekday: {ne: [WED, SUN]}}}]",
        "s1 T T T\ns2 T F F\ns3 T F F\ns4 T F T",
        series="""
            series_id | scan_date
            s1        | 1900-01-06
            s2        | 1900-01-07
            s3        | 1969-12-31
            s4        | 1970-01-01
        """,
    )


def test_events_on_a_day_of_the_week_and_at_an_hour():
    spec(
        "unit: patient, index: 2010-02-01, population: all, "
        "steps: [{id: out, has: {event: attendance, where: {date.weekday: [SAT, SUN]}, ever: true}}, "
        "{id: night, nearest: {event: attendance, window: [0d, 9d], take: earliest, then: {time.hour: {lt: 7}}}}]",
        "p1 T T T\np2 T F F\np3 T F ?",
        patient="""
            patient_id
            p1
            p2
            p3
        """,
        event="""
            event_id | patient_id | kind       | date | time
            e1       | p1         | attendance | +5   | 06:59:59
            e2       | p2         | attendance | +4   | 07:00:00
            e3       | p3         | attendance | +1   |
        """,
        residence="""
            patient_id | from_date | to_date
            p1         | -400      |
            p2         | -400      |
            p3         | -400      |
        """,
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            ae     | demo | -300      | +300    | 0        | attendance
        """,
    )


MEASURED = {
    "patient": """
        patient_id
        rises
        falls
        slow
        one_day
        bound
        single
        unseen
    """,
    "event": """
        event_id | patient_id | kind | date | time     | value_std | comparator
        e1       | rises      | lab  | +0   | 08:00:00 | 80        |
        e2       | rises      | lab  | +2   | 08:00:00 | 120       |
        e3       | falls      | lab  | +0   | 08:00:00 | 120       |
        e4       | falls      | lab  | +2   | 08:00:01 | 80        |
        e5       | slow       | lab  | +0   |          | 80        |
        e6       | slow       | lab  | +5   |          | 120       |
        e7       | one_day    | lab  | +1   | 08:00:00 | 80        |
        e8       | one_day    | lab  | +1   | 20:00:00 | 120       |
        e9       | bound      | lab  | +0   | 08:00:00 | 80        |
        e10      | bound      | lab  | +1   | 08:00:00 | 100       | >
        e11      | single     | lab  | +1   | 08:00:00 | 80        |
        e12      | unseen     | lab  | +1   | 08:00:00 | 80        |
    """,
    "residence": """
        patient_id | from_date | to_date
        rises      | -400      |
        falls      | -400      |
        slow       | -400      |
        one_day    | -400      |
        bound      | -400      |
        single     | -400      |
        unseen     | +1        |
    """,
    "source_cover": """
        source | site | from_date | to_date | lag_days | kinds
        labs   | demo | -300      | +300    | 0        | lab
    """,
}


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ("gap: [1d, 2d], then: {change: {ge: 40}}", "T F F F ? F ?"),
        ("then: {change: {ge: 40}}", "T F T F ? F ?"),
        ("then: {ratio: {ge: 1.5}}", "T F T F ? F ?"),
        ("then: {change: {gt: 40}}", "F F F F ? F ?"),
        ("then: {change: {le: -40}}", "F T F F ? F ?"),
        ("gap: [0h, 48h], then: {change: {ge: 40}}", "T F F T ? F ?"),
        ("gap: [0h, 48h], then: {change: {lt: 0}}", "F F F F ? F ?"),
        ("gap: [0h, 49h], then: {change: {lt: 0}}", "F T F F ? F ?"),
        ("take: ends, then: {change: {ge: 40}}", "T F T F ? F ?"),
        ("take: ends, gap: [1d, 2d], then: {change: {ge: 40}}", "T F F F ? F ?"),
    ],
)
def test_a_measurement_that_rises_or_falls(asked, answers):
    people = ("rises", "falls", "slow", "one_day", "bound", "single", "unseen")
    spec(
        f"unit: patient, index: 2010-02-01, population: all, steps: [{{id: x, change: {{event: lab, window: [0d, 9d], {asked}}}}}]",
        "\n".join(f"{one} T {answer}" for one, answer in zip(people, answers.split(), strict=True)),
        **MEASURED,
    )


def test_the_first_and_the_last_measurement_are_not_any_two():
    spec(
        "unit: patient, index: 2010-02-01, population: all, steps: ["
        "{id: any, change: {event: lab, window: [0d, 9d], then: {change: {ge: 10}}}}, "
        "{id: ends, change: {event: lab, window: [0d, 9d], take: ends, then: {change: {ge: 10}}}}]",
        "p1 T T F\np2 T ? ?\np3 T T T",
        patient="""
            patient_id
            p1
            p2
            p3
        """,
        event="""
            event_id | patient_id | kind | date | value_std
            e1       | p1         | lab  | +0   | 50
            e2       | p1         | lab  | +1   | 60
            e3       | p1         | lab  | +2   | 50
            e4       | p2         | lab  | +0   | 50
            e5       | p2         | lab  | +2   |
            e6       | p3         | lab  | +0   | 50
            e7       | p3         | lab  | +1   |
            e8       | p3         | lab  | +2   | 60
        """,
        residence="""
            patient_id | from_date | to_date
            p1         | -400      |
            p2         | -400      |
            p3         | -400      |
        """,
        source_cover="""
            source | site | from_date | to_date | lag_days | kinds
            labs   | demo | -300      | +300    | 0        | lab
        """,
    )
