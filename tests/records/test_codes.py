"""Codes and units: one form for what is written in many ways, and a refusal for what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures_spark.cohort import codelists
from pictures_spark.errors import ConfigError
from pictures_spark.records import codes
from pictures_spark.records.steps import apply, check

ACCEPTED = [
    ("icd10", "I639", "I639", "I63"),
    ("icd10", "i63.9", "I639", "I63"),
    ("icd10", " I63 9 ", "I639", "I63"),
    ("icd10", "I64", "I64", "I64"),
    ("icd10", "I64X", "I64", "I64"),
    ("icd10", "I64.X", "I64", "I64"),
    ("icd10", "I64-", "I64", "I64"),
    ("icd10", "G309D", "G309", "G30"),
    ("icd10", "G30.9D", "G309", "G30"),
    ("icd10", "G30.9†", "G309", "G30"),
    ("icd10", "G30.9+", "G309", "G30"),
    ("icd10", "F009A", "F009", "F00"),
    ("icd10", "F00.9*", "F009", "F00"),
    ("icd10", "I64XA", "I64", "I64"),
    ("icd10", "S7200", "S7200", "S72"),
    ("icd10", "M45X6", "M45X6", "M45"),
    ("icd9", "4340", "4340", "434"),
    ("icd9", "434.0", "4340", "434"),
    ("icd9", "434", "434", "434"),
    ("icd9", "V43.6", "V436", "V43"),
    ("opcs4", "W191", "W191", "W19"),
    ("opcs4", "w19.1", "W191", "W19"),
    ("opcs4", "W19", "W19", "W19"),
    ("icdo3", "8500/3", "85003", "8500"),
    ("icdo3", "M85003", "85003", "8500"),
    ("bnf", "0208020V0AAAAAA", "0208020V0AAAAAA", "0208020"),
    ("bnf", "0208020v0aaaaaa", "0208020V0AAAAAA", "0208020"),
    ("bnf", "21220000201", "21220000201", "2122000"),
    ("read2", "44J3.", "44J3", "44J"),
    ("read2", "44J3.00", "44J3", "44J"),
    ("read2", "44J3", "44J3", "44J"),
    ("read2", "G661x11", "G661x", "G66"),
    ("read2", "1371.", "1371", "137"),
    ("read2", "423..", "423", "423"),
    ("local", "EGFR", "EGFR", None),
    ("local", "Na_serum/2", "Na_serum/2", None),
]
REFUSED = [
    ("icd10", "?6!9"),
    ("icd10", "63.9"),
    ("icd10", "STROKE"),
    ("icd10", "I6399999"),
    ("icd10", "II63"),
    ("icd10", "I63\nI64"),
    ("icd10", ""),
    ("icd10", None),
    ("icd9", "43"),
    ("icd9", "434000"),
    ("opcs4", "I191"),
    ("opcs4", "W1911"),
    ("icdo3", "8500"),
    ("bnf", "02X?"),
    ("bnf", "2.8.2"),
    ("bnf", "0208020"),
    ("bnf", "0208020V0AAAAA"),
    ("read2", "44J300"),
    ("read2", "44J3.0"),
    ("read2", "44!3."),
    ("local", "0101011237"),
    ("local", "101011237"),
    ("local", "see comment"),
]


@pytest.mark.parametrize(("system", "text", "code", "root"), ACCEPTED)
def test_accepted(system, text, code, root):
    assert codes.normalise([system], text) == (system, code, root)


@pytest.mark.parametrize(("system", "text"), REFUSED)
def test_refused(system, text):
    assert codes.normalise([system], text) is None


def test_icd_9_is_found_in_a_column_of_icd_10():
    assert codes.normalise(["icd10", "icd9"], "4340") == ("icd9", "4340", "434")
    assert codes.normalise(["icd10", "icd9"], "I639") == ("icd10", "I639", "I63")


@given(st.sampled_from(["icd10", "icd9", "opcs4", "bnf", "read2", "local"]), st.text(alphabet="0123456789ABDIXx.+*-? ", max_size=16))
def test_a_code_is_its_own_one_form(system, text):
    found = codes.normalise([system], text)
    if found:
        assert codes.normalise([system], found.code) == found
        assert found.root is None or found.code.startswith(found.root)


@pytest.mark.parametrize(("system", "text", "code", "root"), [row for row in ACCEPTED if row[1] != "M45X6"])
def test_a_code_list_writes_a_code_as_the_records_do(system, text, code, root):
    assert codelists.normalise(system, code) == code
    if root:
        assert codelists.normalise(system, root) == root


@pytest.mark.parametrize(
    ("text", "unit", "std", "factor"),
    [
        ("umol/L", "umol/L", "umol/L", 1),
        ("µmol/L", "umol/L", "umol/L", 1),
        ("UMOL / l", "umol/L", "umol/L", 1),
        ("mmols/L", "mmol/L", "mmol/L", 1),
        ("g/dl", "g/dL", "g/L", 10),
        ("gl", "g/L", "g/L", 1),
        ("ml/min/1.73m^2", "mL/min/1.73m2", "mL/min/1.73m2", 1),
        ("x10^9/L", "10*9/L", "10*9/L", 1),
        ("mmol/Mol", "mmol/mol", "mmol/mol", 1),
    ],
)
def test_units(text, unit, std, factor):
    assert codes.unit_of(text) == (codes.Unit(unit, std, factor))


@pytest.mark.parametrize("text", ["", None, "furlong", "mmol", "see comment"])
def test_units_that_are_not_listed(text):
    assert codes.unit_of(text) is None


def test_an_undeclared_system_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match=r"coding system 'icd11' is not declared.*icd10"):
        codes.system("icd11")


def test_text_steps():
    assert apply([{"strip_end": ".-"}, {"pad_left": {"to": 3, "with": "0", "when": "[0-9]+"}}], " 7.-. ") == "007"
    assert apply([{"rewrite": {"pattern": "(.)-(.)", "with": "$2$1"}}], "a-b") == "ba"
    with pytest.raises(ConfigError, match="here: shout is not a text step"):
        check([{"shout": True}], "here")
