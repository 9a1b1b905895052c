"""Frozen cohorts repeated, compared and explained, from what a freeze leaves; the freezes are made by the embedded reader alone."""

import json
from datetime import datetime
from types import SimpleNamespace

import pytest
from cohort_delta import write
from on_drug import QUESTION, TABLES, hexed, published

from pictures_spark import audit
from pictures_spark.cli import main
from pictures_spark.cohort import commands, duck, tally
from pictures_spark.zones import Zones


class House:
    """A house whose cohorts are frozen without Spark: the same rows, written by hand."""

    def __init__(self, config, folder):
        self.config = config
        self.folder = folder
        self.zones = Zones(config, "deidentified")
        self.rows = {"cohort_run": [], "cohort_attrition": [], "cohort_flag": []}

    def freeze(self, text=QUESTION):
        path = self.folder / "question.yaml"
        path.write_text(text)
        asked = commands.load(path)
        plan = asked.plan()
        with duck.reader(self.zones) as connection:
            release = duck.newest_release(connection, self.zones)
            duck.pin(connection, self.zones, release, tally.tables(plan))
            found = duck.answer(connection, plan)
            flags = connection.execute("SELECT unit_id, holds, unknowns, passed FROM flags").fetchall()
            counts = tally.counts(plan, "flags", lambda sql: connection.execute(sql).fetchall())
            parts = tally.parts(plan, "flags", lambda sql: connection.execute(sql).fetchall())
        run_id = commands.cohort_run_id(asked, plan, release)
        job = SimpleNamespace(zones=self.zones, run_id="run", spark=SimpleNamespace(version="none"), config=self.config)
        manifest = commands.manifest(job, asked, commands.Frozen(run_id, release, plan, found, counts, parts))
        self.rows["cohort_run"].append(
            {
                "cohort_run_id": run_id,
                "cohort_id": asked.question.id,
                "unit": asked.question.unit,
                "release": release.name,
                "content_sha256": found.content_sha256,
                "spec": asked.spec,
                "manifest": json.dumps(manifest),
                "frozen": datetime(2026, 1, 1 + len(self.rows["cohort_run"])),
            }
        )
        steps = [{"cohort_run_id": run_id, "step_index": x.index, "step_id": x.step_id, "sentence": x.sentence} for x in found.levels]
        self.rows["cohort_attrition"] += steps
        names = ("unit_id", "holds", "unknowns", "passed")
        self.rows["cohort_flag"] += [{"cohort_run_id": run_id, **dict(zip(names, row, strict=True))} for row in flags]
        for name, rows in self.rows.items():
            write(self.zones.path("deidentified"), name, rows)
        return run_id


@pytest.fixture
def house(config, tmp_path):
    published(config)
    return House(config, tmp_path)


def ask(config, capsys, *arguments, code=0):
    """What ``pictures cohort`` prints, or its sentence."""
    said = main(["cohort", *arguments, "--as", "coordinator", "--purpose", "test", "--conf-file", str(config.path)])
    out = capsys.readouterr()
    assert said == code, out.err
    return out.out if code == 0 else out.err


def test_a_freeze_is_repeated_compared_and_explained(house, config, tmp_path, capsys):
    first = house.freeze()

    # The next release: the earlier dispensing is gone, p2 lives on and has one; s6 became a CT and s7 is new.
    event = "event_id | patient_id | source | kind | system | code | date\n e2 | p2 | pis | dispensing | bnf | 0208020 | +9"
    series = TABLES["series"].replace("| MR       |", "| CT       |")
    series += "        s7        | t4       | p2         | +11      | CT       | 70        | 5           | 5           | 5\n"
    patient = TABLES["patient"].replace("+5", "  ")
    published(config, release="r2", event=event, series=series, patient=patient)
    second = house.freeze()
    # A revision of it: without the pick, and with another step.
    revised = (
        QUESTION.split("pick")[0].replace("[-90d, -1d]", "[-80d, -1d]") + "  - {id: many, where: {image_count: {ge: 6}}, unknown: report}\n"
    )
    third = house.freeze(revised)

    listed = ask_nothing(config, capsys)
    assert [line.split()[0] for line in listed] == [third[:8], second[:8], first[:8]]

    # Replayed from the house and from a file, also when there is a newer release; a changed manifest is found out.
    assert ask(config, capsys, "replay", first).startswith("the same 1 members of 1 patients, content ")
    printed = ask(config, capsys, "manifest", first)
    file = tmp_path / "manifest.json"
    file.write_text(printed)
    assert ask(config, capsys, "replay", str(file)).startswith("the same 1 members")
    file.write_text(printed.replace('"0208020"', '"0208021"'))
    assert "the codes of drug do not have the hash that it says" in ask(config, capsys, "replay", str(file), code=13)
    other = json.loads(printed) | {"content_sha256": "0" * 64}
    file.write_text(json.dumps(other))
    assert "the replay finds 1 members and not those that were frozen: content" in ask(config, capsys, "replay", str(file), code=13)
    file.write_text("{}")
    assert "cannot be replayed" in ask(config, capsys, "replay", str(file), code=10)

    # Two releases.
    said = ask(config, capsys, "compare", first, second).splitlines()
    assert said[0] == f"from on-drug ({first[:8]}, release r1)"
    assert any("table versions: event 0 to 1" in line for line in said)
    assert "  0 stayed, 1 entered, 1 left" in said
    assert f"entered  {hexed('s3')}  no at step population in {first[:8]}" in said
    assert f"left     {hexed('s2')}  no at step on_drug in {second[:8]}" in said
    # The question and its revision.
    said = ask(config, capsys, "compare", second, third).splitlines()
    assert any(line.startswith("  step many is new: ") for line in said)
    assert any(line.startswith("  step pick is gone: ") for line in said)
    assert any(line.startswith("  step on_drug was: ") for line in said)
    assert "is of" in ask_other_unit(house, capsys, first)

    # One series, in the cohort and out of it.
    said = ask(config, capsys, "why", first, hexed("s2")).splitlines()
    assert said[0] == f"series {hexed('s2')} is in the cohort on-drug ({first[:8]}, release r1)"
    assert [line.split()[1] for line in said[1:]] == ["yes", "yes", "yes", "yes", "unknown", "yes", "yes"]
    said = ask(config, capsys, "why", first, hexed("s3")).splitlines()
    assert said[0].startswith(f"series {hexed('s3')} was lost at step population of on-drug")
    assert [line.split()[1] for line in said[1:]] == ["yes", "no", "yes", "yes", "unknown", "no", "-"]
    assert "was not asked of that series" in ask(config, capsys, "why", first, "nobody' OR 1=1 --", code=10)
    assert "no freezes are called 'nothing'" in ask(config, capsys, "why", "nothing", "x", code=10)

    # Single units and exact counts are not for everybody, and every look is an event.
    assert main(["cohort", "why", first, hexed("s2"), "--conf-file", str(config.path)]) == 12
    events = audit.read(Zones(config, "auditor").path("governance", "audit.jsonl"))
    looks = [event for event in events if event["action"] in ("replay", "manifest", "compare", "why")]
    assert {event["purpose"] for event in looks} == {"test"}
    assert [event["action"] for event in looks] == ["replay", "manifest", "replay", "compare", "compare", "why", "why"]
    assert looks[3]["cohort_run_ids"] == [first, second]

    # A version of a table is gone: it is said which.
    log = Zones(config, "counter").path("deidentified", "tables", "event", "_delta_log", f"{0:020d}.json")
    log.unlink()
    said = ask(config, capsys, "replay", first, code=11)
    assert "the cohort cannot be replayed: version 0 of table event, which release r1 is made of, cannot be read any more" in said
    assert "table series" not in said


def ask_nothing(config, capsys):
    assert main(["cohort", "list", "--conf-file", str(config.path)]) == 0
    return capsys.readouterr().out.splitlines()


def ask_other_unit(house, capsys, first):
    house.freeze("{cohort: 1, id: people, unit: patient, population: all, steps: [{id: men, where: {sex: M}}]}")
    capsys.readouterr()
    return ask(house.config, capsys, "compare", first, "people", code=10)
