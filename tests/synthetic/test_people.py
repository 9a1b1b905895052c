"""People: CHI numbers by the published rule written again, names that mean nothing, dates that keep their distance."""

import re
from datetime import date, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pictures_spark.synthetic.people import check_digit, mistyped


def sound(chi):
    """Weights 10 down to 1 over all ten digits add up to a multiple of 11."""
    return len(chi) == 10 and sum(int(digit) * (10 - place) for place, digit in enumerate(chi)) % 11 == 0


@given(st.text("0123456789", min_size=9, max_size=9))
def test_the_check_digit_is_the_only_one_that_fits(nine):
    fitting = [digit for digit in "0123456789" if sound(nine + digit)]
    made = check_digit(nine)
    assert fitting == ([made] if made else [])


@given(st.integers(0, 10**9 - 1))
def test_a_mistyped_number_fits_no_rule(number):
    nine = f"{number:09d}"
    if (digit := check_digit(nine)) is None:
        return
    wrong = mistyped(nine + digit)
    doubled = "".join(str(int(d) * 2) if place % 2 == 0 else d for place, d in enumerate(wrong))
    assert wrong[:9] == nine
    assert not sound(wrong)
    assert sum(map(int, doubled)) % 10 != 0


def test_every_number_is_valid_and_says_birth_date_and_sex(made):
    people = made.rows("truth/people")
    assert len({row["chi"] for row in people}) == len(people)
    for row in people:
        assert sound(row["chi"])
        assert row["chi"][:6] == f"{date.fromisoformat(row['birth_date']):%d%m%y}"
        assert (int(row["chi"][8]) % 2 == 1) == (row["sex"] == "M")


def test_merged_numbers_lead_to_one_person(made):
    people = {row["chi"]: row for row in made.rows("truth/people")}
    merged = [row for row in people.values() if row["merged_into_upi"]]
    assert merged
    for row in merged:
        current = people[row["merged_into_upi"]]
        assert row["upi"] == current["upi"] == current["chi"] != row["chi"]
        assert (row["surname"], row["birth_date"]) == (current["surname"], current["birth_date"])
    assert len({row["upi"] for row in people.values()}) == made.config["synth"]["people"]


def test_names_are_long_unique_and_of_syllables_that_nobody_uses(made):
    people = [row for row in made.rows("truth/people") if not row["merged_into_upi"]]
    names = [row[part] for row in people for part in ("forename", "surname")]
    assert len(set(names)) == len(names)
    for name in names:
        assert len(name) >= 8
        assert re.match(r"(?i)zv|vl|kz|dzh|mv|gv|zhr|tsk|vr|bzh|zl|kv|dv|zn|vz|mzh", name)


def test_birth_dates_stay_away_from_every_other_date(made):
    births = {date.fromisoformat(row["birth_date"]) for row in made.rows("truth/people")}
    others = {datetime.strptime(value, form).date() for value, form in every_other_date(made)}
    assert births
    assert max(births) <= date(2005, 12, 31)
    assert not [birth for birth in births if birth.day == 1]
    assert min(abs(birth - other) for birth in births for other in others) > timedelta(days=180)
    assert date(1948, 2, 29) in births


def every_other_date(made):
    """Dates of events in the extracts, and of everything in the headers, with their formats."""
    columns = {
        "chi": ("DATE_TRANSFER_IN", "DATE_TRANSFER_OUT"),
        "smr01": ("ADMISSION_DATE", "DISCHARGE_DATE", "DATE_OF_MAIN_OPERATION"),
        "deaths": ("DATE_OF_DEATH",),
        "pis": ("PD Prescribed Date", "Disp Date", "Paid Date"),
        "labs": ("SampleDate",),
    }
    broken = {(row["source"], int(row["row"])) for row in made.rows("truth/faults")}
    for source, names in columns.items():
        for number, row in enumerate(made.rows(source), start=1):
            for name in names:
                if row[name] and (source, number) not in broken:
                    yield row[name][:10], "%d/%m/%Y" if "/" in row[name] else "%Y-%m-%d" if "-" in row[name] else "%Y%m%d"
    for dataset in made.datasets.values():
        for element in dataset:
            dated = element.VR in ("DA", "DT") and element.keyword != "PatientBirthDate" and not element.tag.is_private
            # Two values are no dates on purpose.
            if dated and str(element.value) not in ("UNKNOWN", "20150231"):
                yield str(element.value)[:8], "%Y%m%d"


def test_the_date_check_itself_sees_dates(made):
    assert len(set(every_other_date(made))) > 300


def test_residences_of_a_person_do_not_overlap(made):
    by_person = {}
    broken = {int(row["row"]) for row in made.rows("truth/faults") if row["source"] == "chi"}
    for number, row in enumerate(made.rows("chi"), start=1):
        if number not in broken:
            start, end = (
                datetime.strptime(v, "%d/%m/%Y").date() if v else None for v in (row["DATE_TRANSFER_IN"], row["DATE_TRANSFER_OUT"])
            )
            by_person.setdefault(row["UPI_NUMBER"], []).append((start, end or date.max))
    assert any(len(stays) > 1 for stays in by_person.values())
    for stays in by_person.values():
        assert all(start <= end for start, end in stays)
        assert all(one[1] < two[0] for one, two in pairwise(sorted(stays)))
