"""A question that is being written, answered again whenever its file is saved."""

import re

import pytest
from cohort_cases import rows
from cohort_delta import publish

from pictures_spark import audit
from pictures_spark.cohort import watch
from pictures_spark.errors import ConfigError, InputError, NotPermittedError
from pictures_spark.readers import ANALYST, Reader
from pictures_spark.zones import Zones

EXACT = Reader("coordinator", exact=True, purpose="test")
SERIES = """
    series_id | study_id | patient_id | scan_date | modality | body_region
    s1        | t1       | p1         | +10       | CT       | HEAD
    s2        | t1       | p1         | +10       | CT       | CHEST
    s3        | t2       | p2         | +10       | MR       | HEAD
"""
QUESTION = "{cohort: 1, id: q, unit: series, steps: [{id: s, where: {modality: CT}}]}"


@pytest.fixture
def question(config, tmp_path):
    publish(Zones(config, "deidentified").path("deidentified"), {"series": rows("series", SERIES)})
    path = tmp_path / "q.yaml"
    path.write_text(QUESTION)
    return path


def watched(config, question, capsys, edits):
    """What is printed while the file is edited, one piece a change."""

    waiting = list(edits)

    def goes_on():
        if not waiting:
            return False
        waiting.pop(0)()
        return True

    watch.run(str(question), config, EXACT, goes_on)
    return capsys.readouterr().out.strip().split("\n\n")


def last(printed):
    return re.split(r"\s{2,}", printed.splitlines()[-2].strip())


def test_every_change_is_answered_and_faults_are_waited_out(config, question, capsys):
    edits = [
        lambda: None,
        lambda: None,
        lambda: question.write_text(QUESTION.replace("CT", "MR")),
        lambda: question.write_text(QUESTION.replace("modality", "modalty")),
        question.unlink,
        lambda: question.write_text(QUESTION.replace("modality: CT", "body_region: HEAD")),
    ]
    printed = watched(config, question, capsys, edits)
    assert [last(printed[at]) for at in (0, 1, 4)] == [["s", "2", "1", "0", "1"], ["s", "1", "2", "0", "1"], ["s", "2", "1", "0", "2"]]
    assert "did you mean modality?" in printed[2]
    assert "cannot be read" in printed[3]
    assert len(printed) == 5
    assert [event["counts"]["units"] for event in audit.read(Zones(config, "auditor").path(audit.ZONE, audit.AUDIT))] == [2, 1, 2]


def test_who_sees_no_exact_counts_is_refused(config, question):
    with pytest.raises(NotPermittedError, match="cohort count"):
        watch.run(str(question), config, ANALYST, lambda: False)


def test_a_file_that_is_not_there_is_told_at_once(config, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: give the path"):
        watch.run(str(tmp_path / "none.yaml"), config, EXACT, lambda: False)


def test_nothing_is_published(config, tmp_path):
    (tmp_path / "q.yaml").write_text(QUESTION)
    with pytest.raises(InputError, match="nothing is published yet"):
        watch.run(str(tmp_path / "q.yaml"), config, EXACT, lambda: False)
