"""The score: ten actions over patients planted in real and generated files, and the key for the public validation script."""

import csv
import json
import sqlite3
from dataclasses import replace

import pytest

from pictures_spark.deid.plan import load_plan
from pictures_spark.synthetic.answers import ACTIONS, failures, plant_all, run, score, write_key


@pytest.fixture(scope="module")
def planted():
    return plant_all(5, seed=7)


def test_every_check_passes(planted):
    assert failures(load_plan("default"), planted) == []
    passed, tried = score(load_plan("detailed"), planted)
    assert set(tried) == set(ACTIONS)
    assert passed == tried


def test_the_score_sees_an_engine_that_does_worse(planted):
    plan = load_plan("detailed")
    some = planted[-4:]
    worse = replace(plan, overrides={t: o for t, o in plan.overrides.items() if t != 0x00080050}, table={}, _by_class={}, _decided={})
    passed, tried = score(worse, some)
    assert passed["text_retained"] < tried["text_retained"]


def test_the_key_is_in_the_form_of_the_public_script(planted, tmp_path):
    some = planted[-4:]
    write_key(tmp_path, some, run(load_plan("detailed"), some))
    connection = sqlite3.connect(tmp_path / "answers.db")
    rows = connection.execute("SELECT SOPInstanceUID, PatientID, AnswerData FROM answer_data").fetchall()
    connection.close()
    assert len(rows) == 4
    uids = {row["id_old"]: row["id_new"] for row in csv.DictReader((tmp_path / "uids.csv").open(encoding="utf-8"))}
    patients = {row["id_old"]: row["id_new"] for row in csv.DictReader((tmp_path / "patids.csv").open(encoding="utf-8"))}
    for sop, patient, answers in rows:
        assert uids[sop].startswith("2.25.")
        assert len(patients[patient]) == 32
        entries = list(json.loads(answers).values())
        assert {entry["action"].strip("<>") for entry in entries} <= set(ACTIONS)
        assert {"<(0010,0020)>", "<(0040,0275)>[<0000>]<(0040,0007)>"} <= {entry["tag_ds"] for entry in entries}
