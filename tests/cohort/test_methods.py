"""The methods paragraph of each example, as it stands in tests/cohort/methods; this file run as a script writes them again."""

from pathlib import Path

import pytest

from pictures_spark.cohort import commands, sentence
from pictures_spark.resources import schemas_dir

EXAMPLES = sorted((schemas_dir().parent / "examples" / "cohorts").glob("*.yaml"))
GOLDEN = Path(__file__).parent / "methods"


def written(path):
    """The paragraph, a sentence or condition a line, so that a change can be read."""
    asked = commands.load(path)
    text = sentence.methods(asked.question, asked.codes, "2026-01")
    return text.replace(". ", ".\n").replace("; (", ";\n(").replace(": (1)", ":\n(1)") + "\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_methods_paragraph_is_the_one_that_was_read(path):
    assert written(path) == (GOLDEN / f"{path.stem}.txt").read_text(encoding="utf-8")


def test_there_is_no_paragraph_of_an_example_that_is_gone():
    assert {path.stem for path in GOLDEN.iterdir()} == {path.stem for path in EXAMPLES}


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for example in EXAMPLES:
        (GOLDEN / f"{example.stem}.txt").write_text(written(example), encoding="utf-8")
