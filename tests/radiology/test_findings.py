"""Findings off texts: what each rule means, that no text breaks it, and how often it is right on texts it was not made from."""

import csv
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures_spark.errors import ConfigError
from pictures_spark.radiology.findings import Finding, findings, nlp_version
from pictures_spark.radiology.quality import Score, labels, scores, wilson
from pictures_spark.radiology.rules import phrases_of, rules, rules_from, shortened
from pictures_spark.radiology.words import tokens
from pictures_spark.resources import load_schema
from pictures_spark.schema import vocabulary

HELD_OUT = Path(__file__).parent / "held_out.csv"


def held_out():
    with HELD_OUT.open(encoding="utf-8", newline="") as handle:
        return [(row["text"], labels(row["labels"])) for row in csv.DictReader(handle)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # negation: before, after, lists, and where it ends
        ("No mass.", "mass-"),
        ("No mass, nodule or effusion.", "mass-; nodule-; effusion-"),
        ("A mass is not seen.", "mass-"),
        ("Mass and nodule not seen.", "mass-; nodule-"),
        ("Mass, nodule not seen.", "mass+; nodule-"),
        ("No mass but a nodule.", "mass-; nodule+"),
        ("No mass; nodule.", "mass-; nodule+"),
        ("No mass, small nodule.", "mass-; nodule+"),
        ("No mass is seen and the nodule is old.", "mass-; nodule+"),
        ("No mass. Nodule.", "mass-; nodule+"),
        ("Mass: no", "mass-"),
        ("Non-haemorrhagic.", "haemorrhage-"),
        ("Not only a mass.", "mass+"),
        ("No change in the mass.", "mass+"),
        ("Mass has resolved.", "mass-"),
        ("Mass has almost resolved.", "mass+"),
        # certainty
        ("?mass", "mass+?"),
        ("Mass?", "mass+?"),
        ("Mass cannot be completely excluded.", "mass+?"),
        ("Cannot exclude a mass.", "mass+?"),
        ("Can't exclude a mass.", "mass+?"),
        ("Mass excluded.", "mass-"),
        ("No definite mass.", "mass-?"),
        ("No suspected mass.", "mass-"),
        ("No mass, ?nodule.", "mass-; nodule+?"),
        ("Mass is unlikely.", "mass-?"),
        ("In keeping with a mass.", "mass+"),
        # subject
        ("Family history of mass.", "mass+/family"),
        ("No family history of mass.", "mass-/family"),
        ("PE in his mother.", "pulmonary_embolism+/family"),
        ("Fetal hydrocephalus.", "hydrocephalus+/other"),
        # what is not of these images
        ("History of mass.", ""),
        ("At risk of fracture.", ""),
        ("Clinical history: mass. No details.", ""),
        ("History: mass\nNodule.", "nodule+"),
        ("HISTORY\nmass\nhead injury\n\nNodule.", "nodule+"),
        ("Indication - ?mass\nFindings - no mass", "mass-"),
        ("Comparison: CT with a mass. Findings: a nodule.", "nodule+"),
        ("CT chest: a nodule.", "nodule+"),
        ("Family history: mass.\nNodule.", "mass+/family; nodule+"),
        # addenda, repeated words and which of them counts
        ("Mass. Addendum: no mass.", "mass-"),
        ("No mass.\nADDENDUM 01/02/2015 10:15 by Dr A: Mass.", "mass+"),
        ("Mass.\nAddendum: nodule.", "mass+; nodule+"),
        ("No mass. Addendum: mass. Further report: no mass.", "mass-"),
        ("Possible mass. Mass.", "mass+"),
        ("No mass on the left. Mass on the right.", "mass+"),
        # words
        ("hemorrhage", "haemorrhage+"),
        ("SMALL-VESSEL ISCHEMIC CHANGE", "small_vessel_disease+"),
        ("haemorrhagge, pnuemothorax", "haemorrhage+; pneumothorax+"),
        ("PEs", "pulmonary_embolism+"),
        ("pe", ""),
        ("#NOF", "fracture+"),
        ("Hydropneumothorax.", "effusion+; pneumothorax+"),
        ("Mass effect. Muscle mass. Fracture clinic. Pseudo-fracture. Stroke team.", ""),
        # lines
        ("There is no\nmass.", "mass-"),
        ("No nodule\nMass", "nodule-; mass+"),
        ("1. No nodule\n2. Mass", "nodule-; mass+"),
        ("No nodule\\.br\\Mass", "nodule-; mass+"),
        ("", ""),
        ("No.", ""),
    ],
)
def test_what_a_text_says(text, expected):
    assert frozenset(findings(text)) == labels(expected)
    assert findings(text) == sorted(set(findings(text)))


def test_a_missing_text_says_nothing():
    assert findings(None) == []


def test_held_out_sentences_are_read_well():
    pairs = [(findings(text), true) for text, true in held_out()]
    assert len(pairs) >= 150
    overall = scores(pairs)[0]
    # The first reading, before any rule was changed, had 0.980 of both.
    assert overall.precision >= 0.97
    assert overall.recall >= 0.97
    assert {one.finding for _, true in pairs for one in true} == set(vocabulary("finding"))


_WORDS = st.sampled_from(
    [
        *"?.,;:#/-()\n\\",
        "no",
        "not",
        "seen",
        "mass",
        "haemorrhage",
        "possible",
        "addendum",
        "history",
        "family",
        "findings",
        "PE",
        "excluded",
        "é",
        "\x00",
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(_WORDS, max_size=60).map(" ".join), st.lists(_WORDS, max_size=60).map("".join)))
def test_no_text_raises_and_all_that_comes_out_is_of_closed_lists(text):
    found = findings(text)
    for one in found:
        assert one.finding in vocabulary("finding")
        assert one.polarity in vocabulary("polarity")
        assert one.certainty in vocabulary("certainty")
        assert one.subject in vocabulary("finding_subject")
    assert len({(one.finding, one.subject) for one in found}) == len(found)


@pytest.mark.parametrize(
    "unit",
    [
        "no ",
        "mass ",
        "?",
        "a",
        "no mass, ",
        "mass and ",
        "family history of ",
        "history: ",
        "addendum: ",
        "\n",
        "1. ",
        "cannot be ",
        "mass is not ",
        ". ",
    ],
)
def test_work_grows_with_the_length_of_a_text_and_nothing_else(unit):
    def calls(characters):
        """Functions called, of Python and of C: the same on every machine, whatever else it does."""
        made = 0

        def count(_frame, event, _argument):
            nonlocal made
            made += event in ("call", "c_call")

        text = unit * (characters // len(unit))
        sys.setprofile(count)
        try:
            findings(text)
        finally:
            sys.setprofile(None)
        return made

    calls(100)  # what is read and remembered once
    assert calls(16_000) < 2.5 * calls(8_000) + 1000


def test_rules_are_told_apart_by_number_and_hash():
    assert nlp_version() == rules().version
    number, _, digest = nlp_version().partition("-")
    assert number == f"{load_schema('reports/findings.yaml')['version']}.{load_schema('reports/sections.yaml')['version']}"
    assert len(digest) == 12


def test_faulty_rules_are_refused_all_faults_at_once():
    declared = load_schema("reports/findings.yaml")
    faulty = declared | {
        "targets": {**declared["targets"], "hernia": {"words": ["hernia"]}},
        "modifiers": [{"meaning": "doubted", "direction": "up", "reach": 1, "phrases": ["{nobody} says"]}],
    }
    sections = load_schema("reports/sections.yaml") | {"headings": {"nowhere": ["x"]}}
    with pytest.raises(ConfigError) as refused:
        rules_from(faulty, sections)
    for word in ("vocabulary finding", "doubted", "'up'", "nobody", "nowhere"):
        assert word in str(refused.value)


def test_no_phrase_means_two_things():
    """A target must not be a modifier too: which of them counts would depend on the order of the file."""
    declared = load_schema("reports/findings.yaml")
    lists = declared["lists"]
    targets = {p for t in declared["targets"].values() for text in t["words"] for p in phrases_of(text, lists)}
    others = {p for m in declared["modifiers"] for text in m["phrases"] for p in phrases_of(text, lists)} | set(declared["nothing"])
    assert targets & others == set()


def test_words_and_marks():
    words = "( ? sah ) 1.5 cm , eg non acute ; t 2 ."
    assert [token.word for token in tokens("(?SAH) 1.5 cm, e.g. non-acute; T2.")] == words.split()
    assert shortened("abb") == {"abb", "bb", "ab"}


def test_scores_and_intervals():
    a, b = Finding("mass", "affirmed", "certain", "patient"), Finding("mass", "negated", "certain", "patient")
    told = {score.name: score for score in scores([([a], [a]), ([a], [b]), ([], [b])])}
    assert told["all"] == Score("all", 1, 1, 2)
    assert told["polarity affirmed"] == Score("polarity affirmed", 1, 1, 0)
    assert told["certainty certain"] == Score("certainty certain", 2, 0, 1)
    assert (told["all"].precision, told["all"].recall) == (1 / 2, 1 / 3)
    low, high = wilson(0, 10)
    assert low == 0.0
    assert 0.27 < high < 0.28
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="not a label"):
        labels("mass")
