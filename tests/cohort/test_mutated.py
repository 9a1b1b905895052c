"""Examples that were spoilt: whatever is wrong with a question, it is refused in sentences or it is answered."""

import copy
import random

import duckdb
import yaml
from cohort_cases import dense_tables, into_duckdb

from pictures_spark.cohort import codelists, duck, sentence, yaml_face
from pictures_spark.cohort.compile import Saved, compiled
from pictures_spark.cohort.model import saved_cohorts
from pictures_spark.resources import load_schema, schemas_dir

EXAMPLES = sorted((schemas_dir().parent / "examples" / "cohorts").glob("*.yaml"))
JUNK = [
    "",
    "0",
    "-1",
    "1e400",
    "no",
    "2016-02-30",
    "-90d",
    "4h",
    "ever",
    "CT",
    "patient",
    "image",
    "x" * 100,
    "\0",
    "0101501234",
    "scan_date",
]
JUNK += ["age_at", "tag.SliceThickness", "body_region", "text_verdict", "index", "death_date", "61", [], {}, ["a"], [["a"]], {"ge": "1"}]
JUNK += [["-4h", "0h"], ["-4h", "1d"], ["0d", "0d"], ["ever", "0d"], ["ever", "ever"], ["-99999d", "99999d"], ["9h", "-1h"], None]


def words(part):
    """Every key word of the language."""
    if isinstance(part, dict):
        for name, inside in part.items():
            yield from part[name] if name == "properties" else ()
            yield from words(inside)


WORDS = sorted({*words(load_schema("cohort.yaml")), "modality", "body_region", "scan_time", "value_std", "date"})


def places(tree, at=()):
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, part in parts:
        yield (*at, name)
        yield from places(part, (*at, name))


def inside(tree, at):
    for name in at:
        tree = tree[name]
    return tree


def spoilt(chance, tree):
    """The question with one to three parts changed, lost, renamed or put elsewhere."""
    tree = copy.deepcopy(tree)
    for _ in range(chance.choice((1, 1, 2, 3))):
        found = list(places(tree))
        if not found:
            break
        at = chance.choice(found)
        parent, other = inside(tree, at[:-1]), copy.deepcopy(inside(tree, chance.choice(found)))
        match chance.randrange(5):
            case 0:
                parent[at[-1]] = copy.deepcopy(chance.choice(JUNK))
            case 1:
                del parent[at[-1]]
            case 2 if isinstance(parent, dict):
                parent[chance.choice(WORDS)] = parent.pop(at[-1])
            case 3 if isinstance(parent, dict):
                parent[chance.choice(WORDS)] = copy.deepcopy(chance.choice(JUNK))
            case _:
                parent[at[-1]] = other
    return tree


def test_a_spoilt_question_is_refused_in_sentences_or_answered():
    chance = random.Random(8)
    trees = [yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader) for path in EXAMPLES]
    answered = 0
    with duckdb.connect(config={"threads": 1}) as connection:
        into_duckdb(connection, dense_tables(5))
        for _ in range(1500):
            text = yaml.dump(spoilt(chance, chance.choice(trees)), sort_keys=False, allow_unicode=True, default_style='"')
            question, faults = yaml_face.read(text)
            if question is None or faults:
                assert faults, text
                assert all(0 < len(fault) < 1500 and "\n" not in fault for fault in faults), text
                continue
            codes, faults = codelists.resolve(question, EXAMPLES[0].parent)
            if faults:
                continue
            assert yaml_face.from_yaml(yaml_face.to_yaml(question)) == question
            assert sentence.methods(question, codes)
            duck.answer(connection, compiled(question, codes, {name: Saved("old-series", "series") for name in saved_cohorts(question)}))
            answered += 1
    assert answered >= 50
