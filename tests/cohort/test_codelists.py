"""Code lists: every entry has the shape of its system, or the list is refused."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures_spark.cohort.codelists import library, normalise, resolve, systems
from pictures_spark.cohort.model import CodeList, Question
from pictures_spark.records import codes
from pictures_spark.resources import schemas_dir
from pictures_spark.schema import vocabulary


@pytest.mark.parametrize(
    ("system", "entry", "code"),
    [
        ("icd10", "I63", "I63"),
        ("icd10", "i63.9", "I639"),
        ("icd10", " I64X ", "I64"),
        ("icd10", "I6", "I6"),
        ("icd10", "I", None),
        ("icd10", "I61-I64", None),
        ("icd10", "163", None),
        ("icd10", "0208020", None),
        ("icd10", "stroke", None),
        ("icd9", "434.9", "4349"),
        ("icd9", "V43.6", "V436"),
        ("icd9", "I63", None),
        ("opcs4", "W37.1", "W371"),
        ("opcs4", "w37", "W37"),
        ("opcs4", "W3711", None),
        ("bnf", "0208020", "0208020"),
        ("bnf", "2.8.2", "020802"),
        ("bnf", "2.8.2.0", "0208020"),
        ("bnf", "10.1", "1001"),
        ("bnf", "0208020V0AAAAAA", "0208020V0AAAAAA"),
        ("bnf", "0208020V0AAAAAAA", None),
        ("bnf", "208020", "208020"),
        ("bnf", "I63", None),
        ("bnf", "2.8.2.11", None),
        ("read2", "1371.", "1371"),
        ("read2", "G66..", "G66"),
        ("read2", "G66123", None),
        ("local", "HB-A1c", "HB-A1c"),
        ("local", "two words", None),
    ],
)
def test_normalise(system, entry, code):
    assert normalise(system, entry) == code


@pytest.mark.parametrize(
    ("system", "recorded"),
    [
        ("icd10", "I63.9D"),
        ("icd10", "I64X"),
        ("icd10", "T10X0"),
        ("icd9", "434.9"),
        ("opcs4", "W371"),
        ("bnf", "0208020V0AAAAAA"),
        ("read2", "G66..00"),
    ],
)
def test_an_entry_has_the_form_that_records_have(system, recorded):
    code = codes.normalise([system], recorded).code
    assert normalise(system, code) == code


def test_every_coding_system_of_the_vocabulary_has_its_shape():
    assert set(systems()) == set(vocabulary("code_system"))
    assert all(set(rules["kinds"]) <= set(vocabulary("event_kind")) for rules in systems().values())


def asked(tmp_path, content=None, name="list.csv", **given):
    if content is not None:
        (tmp_path / "list.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    codelist = CodeList("x", **({"system": "icd10", "file": name} | given))
    return resolve(Question("q", "series", "scan_date", "all", (codelist,), ()), tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "code,term\nI63,Stroke\nI61,Bleeding\n",
        "\ufeffcode,term,category\r\nI63,Stroke,a\r\nI61,x,b\r\n",
        'term,code\n"a, b",I61\nx, I63 \n\n',
    ],
)
def test_a_file_gives_its_codes(tmp_path, content):
    found, faults = asked(tmp_path, content)
    assert faults == []
    assert found["x"].codes == ("I61", "I63")


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        (None, "none.csv", "file none.csv is neither beside the question nor in schemas/codelists"),
        (None, "../list.csv", "must be a name beside the question"),
        (None, "/etc/passwd", "must be a name beside the question"),
        ("icd,term\nI63,x\n", "list.csv", "must start with the header code,term"),
        ("code,term,code\nI63,x,I61\n", "list.csv", "must start with the header code,term"),
        ("I63,x\n", "list.csv", "must start with the header code,term"),
        ("", "list.csv", "must start with the header code,term"),
        ("code,term\nI63\n", "list.csv", "1 rows with more or fewer cells than its header, the first is row 2"),
        ("code,term\n,stroke\n", "list.csv", "1 rows without a code, the first is row 2"),
        ("code,term\n", "list.csv", "code list x is empty: it would find nobody"),
        (b"code,term\nI63,\xff\n", "list.csv", "is not UTF-8 text"),
        ('code,term\n"I63,x\n', "list.csv", "is not valid CSV"),
        ("code,term\nI63,x\nstroke,y\n", "list.csv", "'stroke' does not look like ICD-10, which is a letter and one to four digits"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, content, name, sentence):
    found, (fault,) = asked(tmp_path, content, name)
    assert found == {}
    assert sentence in fault


def test_an_unknown_system_is_refused(tmp_path):
    _, (fault,) = asked(tmp_path, system="icd11", file=None, codes=("I63",))
    assert fault == "code list x: unknown coding system 'icd11', did you mean icd10?"
    _, (fault,) = asked(tmp_path, system="ICD-10", file=None, codes=("I63",))
    assert fault == "code list x: unknown coding system 'ICD-10', did you mean icd10?"


def test_the_library_is_found_and_every_list_of_it_can_be_used(tmp_path):
    files = {path.stem: path for path in (schemas_dir() / "codelists").glob("*.csv")}
    assert library().keys() == files.keys()
    for name, entry in library().items():
        # Another content needs another version: write both into library.yaml.
        assert entry["sha256"] == hashlib.sha256(files[name].read_bytes()).hexdigest(), name
        found, faults = asked(tmp_path, name=f"{name}.csv", system=entry["system"])
        assert faults == []
        assert found["x"].codes
        assert found["x"].version == entry["version"]
        _, (fault,) = asked(tmp_path, name=f"{name}.csv", system="read2")
        assert "is a list of" in fault
        assert fault.endswith("not of Read v2")


@given(st.lists(st.from_regex(r"[A-Z][0-9]{1,4}", fullmatch=True), min_size=1, max_size=8))
def test_a_prefix_that_another_covers_is_left_out_and_nothing_else_changes(entries):
    (found,) = resolve(Question("q", "series", "scan_date", "all", (CodeList("x", "icd10", tuple(entries)),), ()), schemas_dir())[
        0
    ].values()
    assert all(any(entry.startswith(code) for code in found.codes) for entry in entries)
    assert set(found.codes) <= set(entries)
    assert not any(later.startswith(earlier) for earlier, later in pairwise(found.codes))


def test_the_hash_is_of_what_is_found(tmp_path):
    def sha(*codes, expand="prefix", name="x"):
        return resolve(Question("q", "series", None, "all", (CodeList(name, "icd10", codes, None, expand),), ()), tmp_path)[0][name].sha256

    assert sha("I63", "I61") == sha("I61", "i63", "I63.9", name="other")
    assert sha("I63") != sha("I63", expand="exact")
    assert sha("I63") != sha("I64")
