"""What extracts are held to: every reason breaks one contract, and months are judged against cover and lag."""

from datetime import date

from pictures_spark.records.contracts import contract_of, judged
from pictures_spark.resources import load_schema


def test_every_reason_breaks_one_contract():
    reasons = {reason for group in load_schema("record_reasons.yaml").values() for reason in group}
    listed = [reason for group in load_schema("record_contracts.yaml").values() for reason in group]
    assert len(listed) == len(set(listed))
    assert reasons | {"value_left_out", "duplicate", "superseded", "no_rows", "outside_cover"} == set(listed)
    assert contract_of()["accepted"] == "kept"


def test_months_are_judged_against_cover_and_lag():
    outcomes = {
        ("2014-12", "accepted"): 1,
        ("2015-01", "accepted"): 7,
        ("2015-02", "accepted"): 0,
        ("2015-02", "bad_code"): 2,
        ("unknown", "bad_date"): 3,
        ("unknown", "value_left_out"): 0,
    }
    days = date(2015, 1, 1), date(2015, 4, 30)
    kept = [("2014-12", "kept", "accepted", 1), ("2015-01", "kept", "accepted", 7)]
    broken = [
        ("2014-12", "freshness", "outside_cover", 1),
        ("2015-02", "freshness", "no_rows", 0),
        ("2015-02", "vocabulary", "bad_code", 2),
        ("unknown", "type", "bad_date", 3),
    ]
    # March ends within 45 days of the end of cover, and April does; with a lag of 30 days only April does.
    assert judged(outcomes, days, 45) == sorted(kept + broken)
    assert judged(outcomes, days, 30) == sorted([*kept, *broken, ("2015-03", "freshness", "no_rows", 0)])
    assert judged({}, days, 200) == []
