"""Declarations of record sources: whole, and refused with every fault at once where they are not."""

import copy

import pytest

from pictures_spark.errors import ConfigError
from pictures_spark.records.dates import layout
from pictures_spark.records.source import raw_table, schema_version, snake_case, source, source_from, source_names
from pictures_spark.resources import load_schema
from pictures_spark.schema import _build, table, vocabulary

GOOD = {
    "source": "tests",
    "meaning": "Made up.",
    "row_key": ["person", "Day"],
    "person": {"columns": ["Who"], "scheme": "chi"},
    "columns": [
        {"name": "Who", "type": "text", "meaning": "Who."},
        {"name": "Day", "type": "date", "formats": ["%d.%m.%Y"], "needs": "value", "meaning": "When."},
        {"name": "Code_{n}", "repeat": [1, 3], "type": "code", "systems": ["icd10"], "meaning": "What."},
    ],
    "emits": [{"kind": "attendance", "date": ["Day"], "codes": ["Code_{1-3}"]}],
}


@pytest.mark.parametrize("name", source_names())
def test_every_shipped_source_is_whole(name):
    found = source(name)
    assert set(found.kinds) <= set(vocabulary("event_kind"))
    assert found.name == name
    declared = table("identifiable", f"record_{name}")
    assert declared.names == [*(column.field for column in found.columns), *declared.names[len(found.columns) :]]
    assert all(column.type == "string" for column in declared.columns[: len(found.columns)])
    assert raw_table(name)["key"] == ["file_sha256", "row_number"]


def test_the_extracts_settings_name_only_declared_sources():
    from pictures_spark.config import load_config

    assert set(load_config()["records"]["sources"]) <= set(source_names())


def test_another_source_needs_no_python():
    found = source_from(GOOD)
    assert [column.name for column in found.columns] == ["Who", "Day", "Code_1", "Code_2", "Code_3"]
    assert found.events[0].codes == ("Code_1", "Code_2", "Code_3")
    assert found.kinds == ["attendance"]


def test_entries_of_one_kind_are_numbered_on():
    raw = changed(["emits"], [{"kind": "procedure", "repeat": [1, 3], "date": ["Day"], "codes": ["Code_{n}"], "when": {"Who": ["a"]}}])
    events = source_from(raw).events
    assert [(event.codes, event.first_position, event.when) for event in events] == [
        ((f"Code_{n}",), n - 1, (("Who", ("a",)),)) for n in (1, 2, 3)
    ]


def changed(path, value):
    raw = copy.deepcopy(GOOD)
    at = raw
    for step in path[:-1]:
        at = at[step]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["colour"], "red", "unknown field colour"),
        (["row_key"], None, "needs row_key"),
        (["row_key"], ["Nobody"], "row_key: column Nobody is not declared"),
        (["stay_key"], ["Stay"], "stay_key: column Stay is not declared"),
        (["person", "columns"], ["CHI"], "person: column CHI is not declared"),
        (["columns", 0, "colour"], "red", "column Who: unknown field colour"),
        (["columns", 0, "meaning"], None, "column Who: needs name, type, meaning"),
        (["columns", 0, "type"], "texts", "type 'texts' is not one of text"),
        (["columns", 0, "name"], "Day", "column Day is declared twice"),
        (["columns", 0, "name"], "day ", "day would name two columns"),
        (["columns", 0, "name"], "run_id", "column name run_id is taken"),
        (["columns", 0, "needs"], "all", "needs must be value or column"),
        (["columns", 0, "on_error"], "skip", "on_error must be"),
        (["columns", 1, "on_error"], "null", "a needed value cannot have on_error"),
        (["columns", 1, "formats"], ["%d/%b/%Y"], "%b is not one of"),
        (["columns", 1, "formats"], ["%d/%m"], "needs %Y, %m and %d"),
        (["columns", 1, "formats"], None, "type date needs formats"),
        (["columns", 1, "not_before"], "Birth", "not_before: column Birth is not declared"),
        (["columns", 2, "systems"], ["icd11"], "coding system 'icd11' is not declared"),
        (["emits", 0, "kind"], "party", "kind 'party' is not in the vocabulary"),
        (["emits", 0, "date"], ["Who"], "date: column Who is not of type date"),
        (["emits", 0, "codes"], ["Code_{1-4}"], "codes: column Code_4 is not declared"),
        (["emits", 0, "colour"], "red", "emits or person is not well formed"),
        (["emits"], [{"kind": "attendance", "date": ["Day"]}] * 2, "kind attendance is emitted twice"),
        (["emits", 0, "when"], {"Nobody": ["1"]}, "attendance when: column Nobody is not declared"),
        (["emits", 0, "time"], "Who", "time: column Who is not of type time"),
        (["emits"], [], "nothing is emitted"),
        (["source"], "event", "the name event cannot be used"),
    ],
)
def test_faulty_declarations_are_refused(path, value, message):
    with pytest.raises(ConfigError, match=message):
        source_from(changed(path, value))


def test_all_faults_are_told_at_once():
    raw = changed(["row_key"], ["Nobody"])
    raw["emits"][0]["kind"] = "party"
    with pytest.raises(ConfigError, match=r"party.*Nobody"):
        source_from(raw)


def test_an_undeclared_source_says_what_there_is():
    with pytest.raises(ConfigError, match=r"add schemas/records/smr99\.yaml; there are ae2, chi, deaths"):
        source("smr99")


def test_names_and_layouts():
    assert snake_case("PD Prescribed Date") == "pd_prescribed_date"
    assert snake_case("SampleDate") == "sample_date"
    assert snake_case("OTHER_CONDITION_1") == "other_condition_1"
    assert layout("%Y%m%d").places == {"%Y": 1, "%m": 5, "%d": 7}


def test_the_version_of_a_source_depends_on_its_declaration():
    assert schema_version("pis") != schema_version("labs")
    assert len(schema_version("pis")) == 64


def test_quarantine_reasons_are_worded_without_values():
    reasons = load_schema("record_reasons.yaml")
    assert all("{" not in text.replace("{column}", "") for group in reasons.values() for text in group.values())


def test_raw_tables_are_as_well_declared_as_others():
    for name in source_names():
        _build("identifiable", f"record_{name}", raw_table(name))
