"""Counting on published tables by the embedded reader: the release's versions, the role's zone, and nothing else."""

from dataclasses import replace

import pytest
from cohort_cases import rows
from cohort_delta import publish, write

from pictures_spark.cli import main
from pictures_spark.cohort import commands, duck
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.errors import ChecksFailedError, InputError
from pictures_spark.readers import Reader
from pictures_spark.zones import Zones

EXACT = Reader("coordinator", exact=True, purpose="test")

SERIES = """
    series_id | study_id | patient_id | scan_date | modality | body_region | contrast
    s1        | t1       | p1         | +10       | CT       | HEAD        | no
    s2        | t1       | p1         | +10       | CT       | HEAD        | unknown
    s3        | t2       | p2         | +10       | CT       | CHEST       | yes
    s4        | t3       |            | +10       | MR       | HEAD        | no
"""
QUESTION = """
cohort: 1
id: ct-head
unit: series
steps:
  - {id: ct, where: {modality: CT}}
  - {id: head, where: {body_region: HEAD}}
  - {id: plain, where: {contrast: "no"}}
"""


@pytest.fixture
def root(config):
    path = Zones(config, "deidentified").path("deidentified")
    publish(path, {"series": rows("series", SERIES)})
    return path


def ask(tmp_path, text):
    path = tmp_path / "question.yaml"
    path.write_text(text)
    return path


def test_count_prints_the_question_and_its_attrition(root, config, tmp_path, capsys):
    commands.run("count", str(ask(tmp_path, QUESTION)), config, EXACT)
    assert (
        capsys.readouterr().out
        == """\
cohort ct-head:
  start       All series of the release.
  population  All series, linked to a person or not.
  ct          Modality is CT.
  head        Body region includes HEAD.
  plain       Contrast is no.

  step              series            no       unknown      patients
  start                  4             0             0             2
  population             4             0             0             2
  ct                     3             1             0             2
  head                   2             1             0             1
  plain                  1             0             1             1
"""
    )


def test_check_needs_no_data(config, tmp_path, capsys):
    drug = "codelists: {drug: {system: bnf, codes: [2.8.2, 0206010]}}\n"
    text = QUESTION.replace("steps:", drug + "steps:\n  - {id: drug, lacks: {event: dispensing, codes: drug, window: [-1d, 0d]}}")
    commands.run("check", str(ask(tmp_path, text)), config)
    said = capsys.readouterr().out
    assert "The person does not have a dispensing coded as drug (BNF, 2 codes with all below) from 1 day before the scan date to" in said
    assert "  code list drug: BNF, 2 codes, prefix\n" in said


@pytest.mark.parametrize("action", ["check", "count", "freeze"])
def test_the_command_says_one_sentence_and_gives_the_exit_code(action, config, tmp_path, capsys):
    path = ask(tmp_path, QUESTION.replace("HEAD", "HAED"))
    assert main(["cohort", action, str(path), "--conf-file", str(config.path)]) == 10
    error = capsys.readouterr().err
    assert error == f"pictures cohort: question {path}: step head: body_region: unknown value 'HAED', did you mean HEAD?\n"


@pytest.mark.parametrize(
    "more", [["--by", "sex,sex"], ["--by", "nobody"], ["--by", "sex,year,modality"], ["--project", "../x"], ["--project", ""]]
)
def test_what_cannot_be_counted_by_or_for_is_told(more, config, tmp_path, capsys):
    assert main(["cohort", "count", str(ask(tmp_path, QUESTION)), "--conf-file", str(config.path), *more]) == 10
    said = capsys.readouterr().err
    assert ("a count is broken down by one or two of" in said) or ("a project's name is" in said)


def count(config, path):
    return commands.count(commands.load(path), Zones(config, "counter"))


def test_without_a_release_there_is_nothing_to_ask(config, tmp_path):
    with pytest.raises(InputError, match="nothing is published yet: run `pictures publish`"):
        count(config, ask(tmp_path, QUESTION))


def test_the_release_is_asked_not_what_was_written_since(root, config, tmp_path):
    before = count(config, ask(tmp_path, QUESTION))
    write(root, "series", [])
    assert count(config, ask(tmp_path, QUESTION)) == before
    publish(root, {"series": []}, release="r2")
    assert count(config, ask(tmp_path, QUESTION)).seen == 0


def test_a_version_that_is_gone_is_named(root, config, tmp_path):
    publish(root, {}, release="r9", versions={"series": 7})
    with pytest.raises(InputError, match="version 7 of table series, which release r9 is made of, cannot be read any more"):
        count(config, ask(tmp_path, QUESTION))


def test_the_reader_reads_the_tables_of_its_zone_only_and_leaves_nothing_behind(root, config, tmp_path):
    (tmp_path / "secret.csv").write_text("chi\n0311461236\n")
    before = sorted(root.parent.rglob("*"))
    with duck.reader(Zones(config, "counter")) as connection:
        for query in (f"SELECT * FROM '{tmp_path / 'secret.csv'}'", f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'", "SET threads = 1"):
            with pytest.raises(duck.duckdb.Error):
                connection.execute(query)
        assert duck.newest_release(connection, Zones(config, "counter")).name == "r1"
    assert sorted(root.parent.rglob("*")) == before


EVENTS = {
    "patient": "patient_id | death_date\n p1 | \n p2 | ",
    "residence": "patient_id | from_date | to_date\n p1 | -900 |\n p2 | +5 |",
    "source_cover": "source | site | from_date | to_date | lag_days | kinds\n pis | demo | -200 | +300 | 0 | dispensing",
    "event": "event_id | patient_id | kind | system | code | date\n e1 | p2 | dispensing | bnf | 0208020 | +9",
}
DRUG = """
cohort: 1
id: drug
unit: series
population: linked
codelists: {drug: {system: bnf, codes: [0208020]}}
steps: [{id: on_drug, has: {event: KIND, codes: drug, window: [LOW, -1d]}}]
"""


@pytest.fixture
def with_events(root):
    publish(root, {"series": rows("series", SERIES), **{name: rows(name, text) for name, text in EVENTS.items()}}, release="r2")


def test_an_event_is_found_and_its_absence_is_known_or_not(with_events, config, tmp_path):
    found = count(config, ask(tmp_path, DRUG.replace("KIND", "dispensing").replace("LOW", "-90d")))
    assert [(x.step_id, x.kept, x.failed, x.unknown) for x in found.levels] == [
        ("start", 4, 0, 0),
        ("population", 3, 1, 0),
        ("on_drug", 1, 2, 0),
    ]
    lacks = DRUG.replace("has:", "lacks:").replace("KIND", "dispensing").replace("LOW", "-300d")
    found = count(config, ask(tmp_path, lacks))
    assert [(x.kept, x.failed, x.unknown) for x in found.levels][-1] == (0, 1, 2)


def test_a_kind_that_no_source_holds_is_refused(with_events, config, tmp_path):
    with pytest.raises(QuestionError, match="step on_drug: no published record source can hold events of kind prescription"):
        count(config, ask(tmp_path, DRUG.replace("KIND", "prescription").replace("LOW", "-90d")))


def test_a_window_that_no_unit_has_inside_the_cover_is_refused(with_events, config, tmp_path):
    text = DRUG.replace("KIND", "dispensing").replace("LOW", "-400d").replace("-1d", "-300d")
    with pytest.raises(QuestionError, match="step on_drug: its window overlaps what the record sources cover for no series at all"):
        count(config, ask(tmp_path, text))


def test_engines_that_count_alike_but_find_others_do_not_agree(root, config, tmp_path):
    found = count(config, ask(tmp_path, QUESTION))
    commands._agree(found, found)
    with pytest.raises(ChecksFailedError, match="agree on the counts but not on the members"):
        commands._agree(found, replace(found, content_sha256="0" * 64))
    for field in ("kept", "failed", "unknown", "kept_patients"):
        levels = (found.levels[0], replace(found.levels[1], **{field: 99}), *found.levels[2:])
        with pytest.raises(ChecksFailedError, match="disagree at step population"):
            commands._agree(found, replace(found, levels=levels))
