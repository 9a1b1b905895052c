"""The plan: what the standard says, what the policy adds, what it refuses to be."""

import copy

import pytest
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword

from pictures_spark.deid.plan import Action, compile_plan, load_plan
from pictures_spark.errors import ConfigError
from pictures_spark.resources import conf_dir, load_schema, load_yaml

PLAN = load_plan("default")


@pytest.mark.parametrize(
    ("keyword", "action"),
    [
        ("PatientID", Action.PATIENT),
        ("AccessionNumber", Action.ACCESSION),
        ("PatientBirthDate", Action.EMPTY),
        ("PatientAge", Action.REMOVE),
        ("PatientWeight", Action.REMOVE),
        ("PatientSex", Action.KEEP),
        ("StudyDate", Action.SHIFT),
        ("StudyTime", Action.KEEP),
        ("AcquisitionDateTime", Action.SHIFT),
        ("PatientBirthTime", Action.REMOVE),
        ("FrameOfReferenceUID", Action.UID),
        ("SOPClassUID", Action.UID),
        ("ReferencedImageSequence", Action.RECURSE),
        ("ReferencedStudySequence", Action.REMOVE),
        ("RequestAttributesSequence", Action.RECURSE),
        ("SliceThickness", Action.KEEP),
        ("ProtocolName", Action.CLEAN),
        ("SeriesDescription", Action.CLEAN),
        ("DeviceSerialNumber", Action.DUMMY),
        ("InstitutionName", Action.REMOVE),
        ("IconImageSequence", Action.REMOVE),
        ("EncapsulatedDocument", Action.REMOVE),
        ("PixelData", Action.KEEP),
    ],
)
def test_decision(keyword, action):
    assert PLAN.decide(tag_for_keyword(keyword)).action is action


@pytest.mark.parametrize("tag", [0x00091010, 0x60003000, 0x50003000, 0xFFFCFFFC, 0x00080000, 0x00041130, 0x00080777])
def test_what_is_not_in_the_dictionary_is_removed(tag):
    assert PLAN.decide(tag).action is Action.REMOVE


def test_nothing_that_can_hold_free_text_is_kept():
    kept = {vr for tag, (vr, *_) in DicomDictionary.items() if PLAN.decide(tag).action is Action.KEEP and tag not in PLAN.bulk}
    words = {word for vr in kept for word in vr.split(" or ")}
    assert words <= {"CS", "DS", "IS", "US", "SS", "UL", "SL", "FD", "FL", "AT", "TM", "OW"}


def test_every_row_of_the_standards_table_is_followed_or_overridden():
    """X, U and D rows against the table itself, not against the compiled plan."""
    softened = {tag_for_keyword(keyword) for section in ("overrides", "required", "bulk") for keyword in PLAN.policy[section]}
    for text, (_, basic, *options) in load_schema("deid/ps3.15.yaml")["attributes"].items():
        if text == "private" or "x" in text or int(text, 16) in softened or int(text, 16) >> 16 < 8:
            continue
        action = PLAN.decide(int(text, 16)).action
        if options and options[0].get("modified_dates") == "C":
            assert action in (Action.SHIFT, Action.KEEP, Action.REMOVE, Action.EMPTY), text
        elif options and set(options[0]) & set(PLAN.policy["options"]):
            assert action in (Action.CLEAN, Action.RECURSE, Action.KEEP, Action.REMOVE, Action.EMPTY, Action.DUMMY), text
        elif basic == "X":
            assert action is Action.REMOVE, text
        elif basic == "U":
            assert action is Action.UID, text
        else:
            assert action in (Action.REMOVE, Action.EMPTY, Action.DUMMY, Action.RECURSE), text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.pop("dummy"), "dummy: needs to be a str"),
        (lambda p: p.update(extra={}), "extra: not a section"),
        (lambda p: p["overrides"].update(PatientNmae={"action": "keep", "why": ""}), "overrides: PatientNmae is not a DICOM keyword"),
        (lambda p: p["overrides"]["PatientSex"].update(action="retain"), "overrides: 'retain' is not one of"),
        (lambda p: p["options"].append("everything"), "options: 'everything' is not one of"),
        (lambda p: p["by_vr"].update(LO="leave"), "by_vr: LO: 'leave' is not one of"),
    ],
)
def test_a_faulty_policy_is_refused(change, says):
    policy = copy.deepcopy(load_yaml(conf_dir() / "deid" / "default.yaml"))
    change(policy)
    with pytest.raises(ConfigError, match=says):
        compile_plan(policy)


def test_a_missing_policy_is_refused():
    with pytest.raises(ConfigError, match="add conf/deid/nowhere"):
        load_plan("nowhere")


def test_another_policy_has_another_fingerprint():
    policy = copy.deepcopy(load_yaml(conf_dir() / "deid" / "default.yaml"))
    policy["limits"]["code_digits"] = 4
    assert compile_plan(policy).fingerprint != PLAN.fingerprint
