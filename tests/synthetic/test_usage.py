"""What `pictures synth` is asked for that does not fit together is refused in a sentence, and nothing is made."""

import pytest

from pictures_spark.cli import main
from pictures_spark.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--images"], "give --extracts N with them"),
        (["--documents", "--tables", "9"], "give --extracts N with them"),
        (["--parquet"], "give --extracts N with them"),
        (["--tables", "9", "--extracts", "9"], "give one of them"),
    ],
)
def test_bad_usage_is_one_sentence(arguments, says, capsys):
    assert main(["synth", *arguments]) == ConfigError.exit_code
    told = capsys.readouterr()
    assert says in told.err
    assert told.err.count("\n") == 1
