"""What counts look like to whom: through the gate or exact, with a purpose and an event, from published tables by the embedded reader."""

import hashlib
import json
import re
import shlex
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from cohort_delta import publish, write

from pictures_spark import audit, cli, readers
from pictures_spark.cli import main
from pictures_spark.cohort import commands, shown, tally
from pictures_spark.cohort.compile import Plan, PlannedStep
from pictures_spark.cohort.faults import QuestionError
from pictures_spark.cohort.gate import Gate, History, policy
from pictures_spark.errors import ConfigError, NotPermittedError
from pictures_spark.readers import ANALYST, Reader
from pictures_spark.zones import Zones

QUESTION = """
cohort: 1
id: ct
unit: series
population: linked
steps:
  - {id: ct, where: {modality: CT}}
  - {id: adult, where: {age_at: {ge: 20}}}
  - {id: not_very_old, where: {age_at: {lt: 84}}}
  - {id: plain, where: {contrast: "no"}}
"""
COORDINATOR = Reader("coordinator", exact=True, purpose="test")
NUMBER = re.compile(r"(?<![0-9:.-])\d[\d,]*(?![0-9:.-])")


def hexed(name):
    return hashlib.md5(name.encode()).hexdigest()


def person(i):
    """300 people, each with one study: ages 5 to 84, two of three by CT, contrast unknown for a third, one with 60 series."""
    scan = {
        "patient_id": hexed(f"p{i}"),
        "study_id": hexed(f"t{i}"),
        "scan_date": date(2014 + i % 2, 5, 1),
        "age_years": 5 + (i * 7) % 80,
        "modality": "MR" if i % 3 == 0 else "CT",
        "contrast": ("no", "no", "unknown")[i % 7 % 3],
        "manufacturer_norm": "SIEMENS",
        "image_count": 10,
    }
    return [scan | {"series_id": hexed(f"s{i}.{n}")} for n in range(60 if i == 4 else 1 + i % 2)]


@pytest.fixture
def tables():
    series = [row for i in range(300) for row in person(i)]
    # A study of nobody knows whom, with 40 series: one more person, as far as the gate can tell.
    series += [{"series_id": hexed(f"u{n}"), "study_id": hexed("tu"), "modality": "CT", "image_count": 1} for n in range(40)]
    # One person has what nobody else has.
    series[-1] |= {"modality": "XA"}
    patients = [{"patient_id": hexed(f"p{i}"), "sex": "FM"[i % 2] if i != 17 else "OTHER"} for i in range(300)]
    return {"series": series, "patient": patients}


@pytest.fixture
def root(config, tables):
    path = Zones(config, "deidentified").path("deidentified")
    publish(path, tables)
    return path


def asked(tmp_path, text=QUESTION):
    path = tmp_path / "question.yaml"
    path.write_text(text)
    return commands.load(path)


def told(config, tmp_path, reader=ANALYST, by=(), text=QUESTION):
    return commands.told(asked(tmp_path, text), Zones(config, "counter"), reader, by)


def columns(lines):
    """The table's numbers by step."""
    rows = [line.split() for line in lines[1:] if line and not line.startswith("  Numbers")]
    return {row[0]: row[1:] for row in rows}


def test_an_analyst_sees_rounded_numbers_near_the_exact_ones(root, config, tmp_path):
    exact, said = columns(told(config, tmp_path, COORDINATOR)), columns(told(config, tmp_path))
    assert list(exact) == list(said) == ["start", "population", "ct", "adult", "not_very_old", "plain"]
    assert exact["population"] == ["509", "40", "0", "300"]
    for step, (*_, patients) in exact.items():
        shown_patients = int(said[step][-1].replace(",", ""))
        assert shown_patients % policy().rounding == 0
        assert abs(shown_patients - int(patients)) <= policy().at_most + policy().rounding + policy().minimum
    assert not {"509", exact["ct"][0]} & {number for row in said.values() for number in row}
    # One study of nobody is one person at most: it cannot be told that 40 series were lost with it.
    assert said["population"][:2] == [said["start"][0], policy().hidden]


def test_a_step_that_takes_few_people_shows_as_few_and_changes_nothing(root, config, tmp_path):
    exact, said = columns(told(config, tmp_path, COORDINATOR)), columns(told(config, tmp_path))
    assert 0 < int(exact["adult"][3]) - int(exact["not_very_old"][3]) < policy().minimum
    assert said["not_very_old"][0] == said["adult"][0]
    assert said["not_very_old"][1:3] == ["<10", "<10"]
    assert said["not_very_old"][3] == said["adult"][3]


def test_two_projects_and_any_order_of_steps_see_the_same(root, config, tmp_path):
    said = columns(told(config, tmp_path, Reader("analyst", exact=False, project="one")))
    head, *steps = QUESTION.split("  - ")
    turned = "  - ".join([head, *(step if step.endswith("\n") else f"{step}\n" for step in reversed(steps))])
    again = columns(told(config, tmp_path, Reader("analyst", exact=False, project="two"), text=turned))
    assert again["ct"][0] == said["plain"][0]
    assert again["ct"][3] == said["plain"][3]
    assert columns(told(config, tmp_path)) == said


def test_the_next_release_with_a_few_more_people_says_the_same(root, config, tmp_path, tables):
    said = columns(told(config, tmp_path))
    more = [row for i in range(1000, 1004) for row in person(i)]
    publish(root, tables | {"series": tables["series"] + more}, release="r2")
    assert [row[3] for row in columns(told(config, tmp_path)).values()] == [row[3] for row in said.values()]


MATCHED = """
cohort: 1
id: matched
unit: series
population: linked
steps:
  - {id: ct, where: {modality: CT}}
pick: {one_per: patient, order: [scan_date]}
match: {cases: cases, level: patient, ratio: 60, seed: a}
sample: {size: 50, seed: b}
count: [{by: [modality]}]
"""


def freeze_of(name, spec, members, saved=None):
    """A frozen cohort of series, as it lies in the de-identified zone."""
    run = {"cohort_run_id": name, "cohort_id": name, "spec": spec, "unit": "series", "release": "r1", "frozen": datetime(2020, 1, 1)}
    of = {one: {"run_id": one, "unit": "series"} for one in saved or ()}
    run |= {"content_sha256": "0", "manifest": json.dumps({"saved": of})}
    return run, [{"cohort_run_id": name, "unit_id": hexed(f"s{i}.0"), "passed": 1} for i in members]


def publish_freezes(root, tables, *freezes):
    publish(root, tables)
    write(root, "cohort_run", [run for run, _ in freezes])
    write(root, "cohort_member", [member for _, members in freezes for member in members])


def test_one_case_does_not_bring_its_controls_to_be_counted(root, config, tmp_path, tables):
    """Who knows all others would tell a match with the target, who alone is a case, from one without by sixty people."""
    said = {}
    for cases in ([1], []):
        publish_freezes(root, tables, freeze_of("cases", QUESTION, cases))
        said[len(cases)] = told(config, tmp_path, text=MATCHED)
        exact = columns(told(config, tmp_path, COORDINATOR, text=MATCHED))
        assert exact["match"][0] == str(61 * len(cases))
    assert said[0] == said[1]
    assert columns(said[1])["match"][0] == "<10"
    assert "A line match counts cases alone" in said[1][-2]


def test_many_cases_are_counted_as_they_are(root, config, tmp_path, tables):
    publish_freezes(root, tables, freeze_of("cases", QUESTION, range(1, 200)))
    kept = int(columns(told(config, tmp_path, text=MATCHED))["match"][-1])
    assert abs(kept - 133) <= policy().at_most + policy().rounding


@pytest.mark.parametrize("asks", ["matched", "among-matched"])
def test_members_of_a_cohort_that_holds_controls_are_for_exact_readers(root, config, tmp_path, tables, asks):
    text = f"{{cohort: 1, id: q, unit: series, steps: [{{id: s, in: {{cohort: {asks}, level: patient}}}}]}}"
    among = "{cohort: 1, id: among-matched, unit: series, steps: [{id: s, in: {cohort: matched, level: patient}}]}"
    freezes = [freeze_of("cases", QUESTION, [1]), freeze_of("matched", MATCHED, range(1, 90), ["cases"])]
    publish_freezes(root, tables, *freezes, freeze_of("among-matched", among, range(1, 90), ["matched"]))
    with pytest.raises(QuestionError, match=f"cohort {asks} holds controls"):
        told(config, tmp_path, text=text)
    assert int(columns(told(config, tmp_path, COORDINATOR, text=text))["s"][-1]) == 89


def test_that_nobody_has_such_an_event_is_told_to_exact_readers_alone(root, config, tmp_path, tables):
    """A refusal that hangs on whether anybody has a rare event would tell of the one who has."""
    text = """{cohort: 1, id: q, unit: patient, index: {first: {event: diagnosis, where: {age_years: 37}}}, population: all,
      steps: [{id: s, has: {event: diagnosis, window: [0d, 9d]}}]}"""
    cover = {"source": "smr01", "site": "x", "from_date": date(2010, 1, 1), "to_date": date(2020, 1, 1), "kinds": ["diagnosis"]}
    event = {"event_id": "e", "patient_id": hexed("p1"), "source": "smr01", "kind": "diagnosis", "date": date(2015, 1, 1)}
    said = []
    for age in (37, 38):
        publish(root, tables | {"source_cover": [cover], "event": [event | {"age_years": age}]})
        said.append(told(config, tmp_path, text=text))
    assert said[0] == said[1]
    with pytest.raises(QuestionError, match="for no patient at all"):
        told(config, tmp_path, COORDINATOR, text=text)


def test_a_breakdown_has_lines_for_what_is_common_and_hides_what_is_alone(root, config, tmp_path):
    lines = told(config, tmp_path, by=("sex", "year"))
    assert "  people by sex by year" in lines
    table = {
        line.split()[0]: line.split()[1:] for line in lines[lines.index("  people by sex by year") + 1 :] if line and "moved" not in line
    }
    assert list(table) == ["sex", "F", "M", "total"]  # one person is OTHER
    assert table["sex"][:2] == ["2014", "2015"]
    for row in table.values():
        assert row.count("<10") != 1 or len(row) == 1
    exact = told(config, tmp_path, COORDINATOR, by=("sex", "year"))
    assert any(line.split()[0] == "OTHER" for line in exact if line.strip())
    # Whether any member has it changes no line.
    assert not any("XA" in line for line in told(config, tmp_path, by=("modality",)))


@pytest.mark.parametrize("unit", ["patient", "study", "series", "image"])
def test_every_unit_and_breakdown_can_be_counted(root, config, tmp_path, unit, tables):
    images = [
        {k: row.get(k) for k in ("series_id", "study_id", "patient_id", "modality", "scan_date", "age_years")} for row in tables["series"]
    ]
    for i, row in enumerate(images):
        row |= {"image_id": hexed(f"i{i}"), "locator_id": hexed(f"l{i}")}
    studies = [dict(row) for row in {row["study_id"]: row for row in tables["series"]}.values()]
    homes = [{"patient_id": hexed(f"p{i}"), "from_date": date(2000, 1, 1), "health_board": "S08000024"} for i in range(300)]
    publish(root, tables | {"image": images, "study": studies, "residence": homes}, release="r2")
    step = "{id: men, where: {sex: M}}" if unit == "patient" else "{id: adult, where: {age_at: {ge: 20}}}"
    index = "2015-01-01" if unit == "patient" else "scan_date"
    text = f"{{cohort: 1, id: x, unit: {unit}, index: {index}, population: linked, steps: [{step}]}}"
    names = tally.breakdowns(unit)
    for by in zip(names[::2], [*names[1::2], "sex"], strict=False):
        lines = told(config, tmp_path, COORDINATOR, by=by, text=text)
        assert int(next(line for line in lines if line.startswith("  total")).split()[-1]) >= 140
    assert any("S08000024" in line for line in told(config, tmp_path, by=("health_board",), text=text))


def test_nothing_is_printed_that_is_not_in_the_audit_chain(root, config, tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise NotPermittedError("no audit")

    monkeypatch.setattr(audit, "record", fails)
    path = asked(tmp_path).source
    for reader in (ANALYST, COORDINATOR):
        with pytest.raises(NotPermittedError, match="no audit"):
            commands.run("count", path, config, reader)
    assert capsys.readouterr().out == ""
    monkeypatch.undo()
    commands.run("count", path, config, COORDINATOR)
    commands.run("count", path, config, Reader("analyst", exact=False, project="p1"))
    exact, gated = audit.read(config.home / "governance" / "audit.jsonl")
    assert (exact["shown"], exact["purpose"], exact["reader"], exact["counts"]["patients"]) == ("exact", "test", "coordinator", 113)
    assert (gated["shown"], gated["project"], gated["reader"]) == (policy().name, "p1", "analyst")
    assert gated["counts"]["patients"] != 113
    assert gated["question"] == exact["question"] == asked(tmp_path).spec_sha256


def test_exact_counts_need_a_role_an_account_and_a_purpose(config):
    assert readers.reader(config) == ANALYST
    assert readers.reader(config, "coordinator", "why", "p1") == Reader("coordinator", exact=True, purpose="why", project="p1")
    with pytest.raises(ConfigError, match="says what for: add --purpose"):
        readers.reader(config, "data_manager")
    with pytest.raises(ConfigError, match="no role 'analyst' sees exact counts: leave --as out, or give coordinator or data_manager"):
        readers.reader(config, "analyst", "why")
    config.values["readers"] = {"data_manager": [audit.account()], "coordinator": ["somebody-else"]}
    assert readers.reader(config, "data_manager", "why").exact
    for granted in (config.values["readers"], {}):
        config.values["readers"] = granted
        with pytest.raises(NotPermittedError, match="this account is not a coordinator in the settings"):
            readers.reader(config, "coordinator", "why")
    del config.values["readers"]
    with pytest.raises(NotPermittedError):
        readers.reader(config, "coordinator", "why")


def test_whoever_sees_no_exact_counts_names_only_declared_projects(config):
    refused = "project p1 is not one that this account may name in the settings \\(readers.projects\\): leave --project out"
    for projects in ({}, {"p2": ["*"]}, {"p1": []}, {"p1": ["somebody-else"]}):
        config.values["readers"] = {"coordinator": ["*"], "projects": projects}
        with pytest.raises(NotPermittedError, match=refused):
            readers.reader(config, project="p1")
        # Who sees exact counts has none of the gate's numbers.
        assert readers.reader(config, "coordinator", "why", "p1").project == "p1"
        assert readers.reader(config).project is None
    for accounts in (["*"], [audit.account(), "somebody-else"]):
        config.values["readers"] = {"projects": {"p1": accounts}}
        assert readers.reader(config, project="p1") == Reader("analyst", exact=False, project="p1")
    del config.values["readers"]
    with pytest.raises(NotPermittedError, match=refused):
        readers.reader(config, project="p1")


def test_a_breakdown_that_there_is_not_is_refused(root, config, tmp_path, capsys):
    arguments = ["cohort", "count", asked(tmp_path).source, "--conf-file", str(config.path), "--by"]
    for by in ("height", "sex,year,modality"):
        assert main([*arguments, by]) == 10
        assert "is broken down by one or two of modality, year" in capsys.readouterr().err
    assert main([*arguments, "sex,year"]) == 0


def people(sizes):
    """One person a unit; ``sizes`` has how many got as far as each step."""
    passed = np.concatenate([np.full(n, i) for i, n in enumerate(sizes)])
    names = np.arange(len(passed), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    none = np.zeros(len(passed), np.int64)
    return shown.People(names, np.ones(len(passed), bool), passed, none, np.ones(len(passed), np.int64))


@pytest.mark.parametrize("key", range(20))
def test_the_attrition_never_grows_and_its_differences_are_those_of_its_numbers(key):
    rng = np.random.default_rng(key)
    sizes = rng.integers(0, 60, size=8)
    plan = Plan("patient", tuple(PlannedStep(f"s{i}", "", "exclude") for i in range(8)), None, None, ())
    rows = shown.rows(Gate(bytes([key]) * 32, History()), plan, people(sizes))
    for before, after in pairwise(rows):
        if before.kept is None:
            assert after.kept is None
        elif after.kept is not None:
            assert after.kept <= before.kept
            removed = before.kept - after.kept
            assert after.failed == (removed if removed >= policy().minimum else None)
    text = "\n".join(shown.lines("patient", rows))
    assert all(int(number.replace(",", "")) % 5 == 0 for row in text.splitlines()[1:9] for number in NUMBER.findall(row.split("  ", 2)[2]))


DOCS = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/coordinator.md", "docs/governance.md", "README.md"])
def test_every_command_of_the_docs_is_one(page):
    lines = [line.split("#")[0].split(" > ")[0].strip() for line in (DOCS / page).read_text().splitlines() if line.startswith("pictures ")]
    lines += re.findall(r"`(?:\.venv/bin/)?(pictures (?:cohort|audit) [^`]* --[^`]*)`", (DOCS / page).read_text())
    assert lines
    for line in lines:
        arguments = [re.sub(r"^<.*>$", "x", word) for word in shlex.split(line)[1:]]
        cli._parser().parse_args(arguments)


def test_the_audit_of_counts_is_canonical_json(root, config, tmp_path):
    told(config, tmp_path)
    for line in (config.home / "governance" / "audit.jsonl").read_text().splitlines():
        assert json.dumps(json.loads(line), sort_keys=True, separators=(",", ":")) == line


@pytest.mark.parametrize("by", ["contrast", "[contrast, scan_date.year]", "[contrast, scan_date.year, modality]"])
def test_what_the_question_counts_goes_through_the_gate_too(root, config, tmp_path, by):
    text = QUESTION.split("  - {id: adult")[0] + f"count: [{{by: {by}}}]\n"
    exact, said = told(config, tmp_path, COORDINATOR, text=text), told(config, tmp_path, text=text)
    assert any("no" in line.split()[:1] for line in exact)
    title = next(line for line in said if line.startswith("  people by contrast"))
    table = [line.split() for line in said[said.index(title) + 2 :] if line and "moved" not in line]
    assert len(table) > 2
    for *_, number in table:
        assert number == "<10" or int(number.replace(",", "")) % 5 == 0
