"""Counts at four levels and breakdowns, against the same counts by hand, from random flags of random scans."""

from collections import defaultdict

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures_spark.cohort import tally
from pictures_spark.cohort.compile import OWN, PREFIX, Plan, PlannedStep

STEPS = 4
# Every study has two series of two images; studies 4 and 5 are of nobody, person 2 has no study.
STUDIES = {f"t{n}": (None if n > 3 else f"p{n // 2}") for n in range(6)}
SERIES = {f"s{n}": f"t{n // 2}" for n in range(12)}
IMAGES = {f"i{n}": f"s{n // 2}" for n in range(24)}
UNITS = {"patient": ["p0", "p1", "p2"], "study": list(STUDIES), "series": list(SERIES), "image": list(IMAGES)}


def owner(unit, unit_id, level):
    """The object of a level that a unit belongs to, by hand."""
    if unit == level:
        return unit_id
    if unit == "image":
        return owner("series", IMAGES[unit_id], level)
    if unit == "series":
        return owner("study", SERIES[unit_id], level)
    return STUDIES[unit_id]


def parts_of(unit, unit_id, level):
    """How many objects of a lower level a unit has, by hand."""
    return sum(owner(level, lower, unit) == unit_id for lower in UNITS[level])


def by_hand(unit, policies, flags, level):
    """Kept, failed and unknown at every step."""
    objects = defaultdict(list)
    below = tally.LEVELS.index(level) > tally.LEVELS.index(unit)
    for unit_id, answers in flags.items():
        name = unit_id if below else owner(unit, unit_id, level)
        if name is not None:
            objects[name].append(answers)
    weight = {name: parts_of(unit, name, level) if below else 1 for name in objects}
    found = []
    for step in range(STEPS):
        kept = failed = unknown = 0
        for name, units in objects.items():
            reached = [answers for answers in units if survives(answers, policies, step - 1)]
            here = [answers[step] for answers in reached]
            stays = any(survives(answers, policies, step) for answers in reached)
            unsure = True not in here and None in here
            kept += weight[name] * stays
            unknown += weight[name] * unsure
            lost = bool(reached) and not stays
            failed += weight[name] * (lost and not (unsure and policies[step] == "exclude"))
        found.append((kept, failed, unknown))
    return found


def survives(answers, policies, last):
    return all(answer is True or (answer is None and policies[i] != "exclude") for i, answer in enumerate(answers[: last + 1]))


@pytest.fixture(scope="module")
def connection():
    made = duckdb.connect(":memory:")
    made.execute(
        f"CREATE TABLE {PREFIX}study AS SELECT unnest($1) AS study_id, unnest($2) AS patient_id", [list(STUDIES), list(STUDIES.values())]
    )
    series = [(s, t, STUDIES[t], sum(of == s for of in IMAGES.values())) for s, t in SERIES.items()]
    made.execute(f"CREATE TABLE {PREFIX}series (series_id VARCHAR, study_id VARCHAR, patient_id VARCHAR, image_count BIGINT)")
    made.executemany(f"INSERT INTO {PREFIX}series VALUES ($1, $2, $3, $4)", series)
    made.execute(f"CREATE TABLE {PREFIX}image (image_id VARCHAR, series_id VARCHAR, study_id VARCHAR)")
    # A second content of one image changes nothing.
    made.executemany(f"INSERT INTO {PREFIX}image VALUES ($1, $2, $3)", [(i, s, SERIES[s]) for i, s in [*IMAGES.items(), ("i3", "s1")]])
    yield made
    made.close()


@given(data=st.data(), unit=st.sampled_from(tally.LEVELS))
def test_counts_at_every_level_are_those_by_hand(data, unit, connection):
    policies = ["exclude", *data.draw(st.lists(st.sampled_from(["exclude", "include", "report"]), min_size=STEPS - 1, max_size=STEPS - 1))]
    answer = st.sampled_from([True, True, False, None])
    flags = {unit_id: [True, *(data.draw(answer) for _ in range(STEPS - 1))] for unit_id in UNITS[unit]}
    rows = []
    for unit_id, answers in flags.items():
        holds = sum(1 << i for i, said in enumerate(answers) if said is True)
        unknowns = sum(1 << i for i, said in enumerate(answers) if said is None)
        passed = max(i for i in range(STEPS) if survives(answers, policies, i))
        own = [parts_of(unit, unit_id, "image") if name == "image_count" else owner(unit, unit_id, name[:-3]) for name in OWN[unit]]
        rows.append((unit_id, owner(unit, unit_id, "patient"), holds, unknowns, passed, *own))
    columns = "unit_id VARCHAR, patient_id VARCHAR, holds BIGINT, unknowns BIGINT, passed BIGINT"
    columns += "".join(f", {name} {'BIGINT' if name == 'image_count' else 'VARCHAR'}" for name in OWN[unit])
    connection.execute(f"CREATE OR REPLACE TABLE flags ({columns})")
    connection.executemany(f"INSERT INTO flags VALUES ({', '.join(f'${n}' for n in range(1, 6 + len(OWN[unit])))})", rows)
    plan = Plan(unit, tuple(PlannedStep(f"step{i}", "", policy) for i, policy in enumerate(policies)), None, None, ())
    found = tally.counts(plan, "flags", lambda sql: connection.execute(sql).fetchall())
    for level in tally.LEVELS:
        counted = [(count.kept, count.failed, count.unknown) for count in found if count.level == level]
        assert counted == by_hand(unit, policies, flags, level), level
