"""What headers say of people beside PatientID, and that what linking may say is declared once."""

import json
from copy import deepcopy
from pathlib import Path

import pytest

from pictures_spark.linkage import evidence, probabilistic
from pictures_spark.resources import load_schema

RULES = evidence.rules()
PATIENT_ID, OTHER_IDS, OTHERS = "00100020", "00101000", "00101002"
REQUEST, REFERENCED = "00400275", "00081120"


def found(model):
    return evidence.others_in(json.dumps(model), *evidence._tags(RULES))


def lo(*values):
    return {"vr": "LO", "Value": list(values)}


def sequence(*items):
    return {"vr": "SQ", "Value": list(items)}


@pytest.mark.parametrize(
    ("model", "identifiers"),
    [
        ({}, []),
        ({PATIENT_ID: lo("A")}, []),
        ({OTHER_IDS: lo("A", "B", None, " ")}, ["A", "B"]),
        ({OTHERS: sequence({PATIENT_ID: lo("A")}, {PATIENT_ID: lo("B")})}, ["A", "B"]),
        ({REQUEST: sequence({"00321064": sequence({PATIENT_ID: lo("A")})}), REFERENCED: sequence({OTHER_IDS: lo("B")})}, ["A", "B"]),
        # A sequence that is not listed, and shapes that no writer should make.
        ({"00081140": sequence({PATIENT_ID: lo("A")})}, []),
        ({OTHERS: {"vr": "SQ"}, OTHER_IDS: {"vr": "LO", "Value": "A"}}, []),
        ({OTHERS: sequence("A", None)}, []),
    ],
)
def test_identifiers_elsewhere_in_a_header(model, identifiers):
    assert sorted(found(model)[0]) == identifiers


def test_a_header_that_is_no_json_has_none():
    assert evidence.others_in("{", (), ()) == ([], None)


def test_every_reason_has_its_meaning_and_its_line_in_the_docs():
    reasons = load_schema("vocabularies.yaml")["unlinked_reason"]
    assert sorted(RULES["reasons"]) == sorted(reasons)
    page = (Path(__file__).parents[2] / "docs" / "linkage.md").read_text(encoding="utf-8")
    assert [reason for reason in reasons if f"`{reason}`" not in page] == []
    assert {rule["reason"] for rule in RULES["nobody"]} <= set(reasons)


def test_the_stored_model_has_every_weight():
    for comparison in probabilistic.model()["comparisons"]:
        levels = [level for level in comparison["comparison_levels"] if not level.get("is_null_level")]
        for which in ("m_probability", "u_probability"):
            assert all(0 < level[which] < 1 for level in levels)
            assert sum(level[which] for level in levels) == pytest.approx(1, abs=0.02)


def test_scores_decide_between_twins_typing_errors_and_strangers(tmp_path):
    duckdb = pytest.importorskip("duckdb")
    people = [
        ("chi|1", "1", "U1", "BRAMBLE", "ANNA", "1980-03-04", "F", "DD19ZZ"),
        ("chi|2", "2", "U2", "BRAMBLE", "BERTHA", "1980-03-04", "F", "DD19ZZ"),
        ("chi|3", "3", "U3", "QUOLLING", "CARL", "1950-10-12", "M", None),
        ("chi|4", "4", "U4", "VEXTER", "DORA", "1960-01-02", "F", None),
    ]
    # Names are as common as they are in the two tables, so there must be others.
    letters = "ABCDEFGHIJ"
    for n in range(3000):
        name = "".join(letters[int(digit)] for digit in f"{n:04d}")
        people.append((f"chi|x{n}", f"x{n}", f"X{n}", f"OTHER{name}", f"MORE{name}", f"{1930 + n % 60}-0{n % 9 + 1}-15", "MF"[n % 2], None))
    headers = [
        ("same", "QUOLLING", "CARL", "1950-10-12", "M", None),
        ("turned", "CARL", "QUOLLING", "1950-10-12", "M", None),
        ("day_month", "QUOLLING", "CARL", "1950-12-10", "M", None),
        ("typo", "QUOLLNG", "CARL", "1950-10-12", "M", None),
        ("one_twin", "BRAMBLE", "BERTHA", "1980-03-04", "F", None),
        ("either_twin", "BRAMBLE", None, "1980-03-04", "F", None),
        ("stranger", "NOBODY", "NEVER", "1950-10-12", "F", None),
        ("namesake", "QUOLLING", "CARL", "1971-05-20", "M", None),
    ]

    def columns(row):
        surname, forename, birth, sex, postcode = row
        full = f"{surname} {forename}" if surname and forename else None
        turned = f"{forename} {surname}" if surname and forename else None
        return (surname, forename, full, turned, birth[5:], None, None, sex, postcode, int(birth[:4]), birth)

    texts = ("surname", "forename", "full_name", "turned_name", "birth_day", "number_start", "number_end", "sex", "postcode")
    made = ", ".join([f"{name} VARCHAR" for name in texts] + ["birth_year INT", "birth_date DATE"])
    with duckdb.connect() as db:
        for name, extra, rows in (
            ("headers", "", [(h[0], *columns(h[1:])) for h in headers]),
            ("register", ", scheme VARCHAR, person_id VARCHAR, upi VARCHAR", [(p[0], *columns(p[3:]), "chi", p[1], p[2]) for p in people]),
        ):
            (tmp_path / name).mkdir()
            db.execute(f"CREATE TABLE {name} (unique_id VARCHAR, {made}{extra})")
            db.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)
            db.execute(f"COPY {name} TO '{tmp_path / name}/1.parquet' (FORMAT parquet)")
    # As strict as among ten thousand people.
    rules = deepcopy(RULES)
    rules["probabilistic"] |= {"share_in_register": 0.3, "link_from": 0.99}
    probabilistic.score(tmp_path, rules)
    rows = duckdb.sql(f"SELECT evidence_id, upi, verdict FROM '{tmp_path / probabilistic.SCORED}' WHERE place = 1").fetchall()
    best = {evidence_id: (upi, verdict) for evidence_id, upi, verdict in rows}
    assert best["same"] == ("U3", "linked")
    assert best["turned"] == ("U3", "linked")
    assert best["one_twin"] == ("U2", "linked")
    assert {best[name][0] for name in ("day_month", "typo")} == {"U3"}
    assert best.get("either_twin", (None, "ambiguous"))[1] == "ambiguous"
    assert "stranger" not in best
    assert best.get("namesake", (None, None))[1] != "linked"
    # Where it is switched off, nobody is linked by score.
    (tmp_path / probabilistic.SCORED).unlink()
    rules["probabilistic"]["link_from"] = None
    probabilistic.score(tmp_path, rules)
    told = duckdb.sql(f"SELECT DISTINCT verdict FROM '{tmp_path / probabilistic.SCORED}'").fetchall()
    assert told
    assert ("linked",) not in told
