"""People of an older cohort, as they are known after a merge and after its undoing."""

import pytest

from pictures_spark.cohort.members import resolved

pytestmark = pytest.mark.spark


def test_an_older_cohort_resolves_after_a_merge_and_is_itself_after_its_undoing(spark):
    frozen = spark.createDataFrame([("old", 1), ("kept", 2), ("unknown", 3)], "patient_id string, members int")
    merged = spark.createDataFrame([("old", "new"), ("new", None), ("kept", None)], "patient_id string, merged_into string")
    parted = merged.where("patient_id <> 'old'")

    def people(patient):
        return {row.patient_id: (row.current_patient_id, row.members) for row in resolved(frozen, patient).collect()}

    assert people(merged) == {"old": ("new", 1), "kept": ("kept", 2), "unknown": ("unknown", 3)}
    assert people(parted) == {"old": ("old", 1), "kept": ("kept", 2), "unknown": ("unknown", 3)}
