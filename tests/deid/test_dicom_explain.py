"""A policy as people read it, and scripts of CTP brought over without becoming laxer."""

import copy

import pytest
from pydicom.datadict import tag_for_keyword

from pictures_spark.cli import main
from pictures_spark.deid.explain import explain, from_ctp, page, rows
from pictures_spark.deid.plan import _extended, compile_plan, load_plan
from pictures_spark.errors import ConfigError

PLAN = load_plan("default")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("PatientName", "(0010,0010) PatientName: patient - "),
        ("0010,0030", "(0010,0030) PatientBirthDate: empty - "),
        ("(0008,103E)", "(0008,103E) SeriesDescription: clean - option descriptors [PS3.15 Table E.1-1, X, descriptors C]"),
        ("0019,xx0C,SIEMENS MR HEADER", "keep - on the list of safe private attributes"),
        ("0019,xx0C,ACME", "remove - private"),
        ("00091010", "(0009,1010) private: remove"),
        ("SharedFunctionalGroupsSequence.FrameComments", "FrameComments: clean"),
        ("OtherPatientIDsSequence.PatientID", "what is inside goes with it: remove"),
    ],
)
def test_explain(name, says):
    assert says in explain(PLAN, name)


def test_explain_refuses_what_is_no_attribute():
    with pytest.raises(ConfigError, match="neither a DICOM keyword nor a tag"):
        explain(PLAN, "PatientNmae")


def test_the_table_has_every_attribute_and_the_page_every_one_that_stays():
    everything = list(rows(PLAN))
    assert len(everything) > 5000
    assert {row.action for row in everything} >= {"keep", "remove", "clean", "shift", "uid", "recurse", "patient", "accession"}
    text = page(PLAN)
    assert "| (0008,103E) | SeriesDescription |" in text
    assert "| (0008,0081) | InstitutionAddress | ST | remove |" in text
    assert "| CS | keep |" in text


SCRIPT = """<script>
<p t="DATEINC">-3654</p>
<e en="T" t="00080020" n="StudyDate">@incrementdate(this,@DATEINC)</e>
<e en="T" t="0008103E" n="SeriesDescription">@keep()</e>
<e en="T" t="00081070" n="OperatorsName">@keep()</e>
<e en="T" t="00180015" n="BodyPartExamined">@remove()</e>
<e en="T" t="00100020" n="PatientID">@hashptid(@SITEID,this)</e>
<e en="T" t="00181000" n="DeviceSerialNumber">@keep()</e>
<e en="T" t="0020000D" n="StudyInstanceUID">@keep()</e>
<e en="T" t="00101010" n="PatientAge">@round(this,5)</e>
<e en="T" t="0019100C" n="B">@keep()</e>
<e en="F" t="00100010" n="PatientName">@keep()</e>
<k en="T" t="0018">Keep group 18</k>
<r en="T" t="privategroups">Remove private groups</r>
</script>"""


def test_a_ctp_script_is_carried_as_far_as_it_is_safe():
    imported = from_ctp(SCRIPT)
    overrides = {keyword: entry["action"] for keyword, entry in imported.policy["overrides"].items()}
    assert overrides == {"BodyPartExamined": "remove", "DeviceSerialNumber": "clean"}
    left = "\n".join(imported.left)
    for word in ("DATEINC", "OperatorsName", "StudyInstanceUID", "PatientAge", "private", "0018: whole groups", "carried as clean"):
        assert word in left
    assert "3654" not in left
    plan = compile_plan(_extended(copy.deepcopy(imported.policy)))
    assert plan.decide(tag_for_keyword("BodyPartExamined")).action == "remove"
    assert plan.decide(tag_for_keyword("OperatorsName")).action == "remove"


def test_lines_are_read_too_and_anything_else_is_refused():
    imported = from_ctp("set.[0018,0015]BodyPartExamined=@remove()\nremove.privategroups=\n")
    assert list(imported.policy["overrides"]) == ["BodyPartExamined"]
    assert "remove.privategroups" in imported.left[0]
    with pytest.raises(ConfigError, match="no script"):
        from_ctp("hello")


def test_the_command(capsys, tmp_path):
    assert main(["deid", "explain", "PatientID"]) == 0
    assert "patient - the project's pseudonym" in capsys.readouterr().out
    assert main(["deid", "plan"]) == 0
    assert "SeriesDescription\tLO\tclean" in capsys.readouterr().out
    script = tmp_path / "script.xml"
    script.write_text(SCRIPT, encoding="utf-8")
    assert main(["deid", "import-ctp", str(script)]) == 0
    assert "extends: default" in capsys.readouterr().out
    assert main(["deid", "explain", "Nothing"]) == 10
    assert main(["deid", "explain", "PatientID", "--policy", "nowhere"]) == 10
