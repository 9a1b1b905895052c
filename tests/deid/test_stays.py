"""Stays of episodes whose source numbers none: rebuilt as the rule says, against another telling of it."""

import random
from datetime import date, timedelta

import pytest

from pictures_spark.deid import tables_people
from pictures_spark.schema import table

FIRST = date(2015, 3, 1)


def told(episodes):
    """Episode -> its stay: given, or named after the first episode of its run. Plain Python, person by person."""
    stays, people = {}, {}
    for episode in episodes:
        people.setdefault(episode["person"], []).append(episode)
    for own in people.values():
        own.sort(key=lambda e: (e["date"], e["end"] or e["date"], e["key"]))
        runs = []
        for episode in own:
            before = [(e["end"] or e["date"], {"transfer": 2, None: 1}.get(e["status"], 0)) for run in runs for e in run]
            reach, way = max(before, default=(None, 0))
            gap = (episode["date"] - reach).days if reach else 99
            if gap < 0 or (way == 2 and gap <= 1) or (way == 1 and gap == 0):
                runs[-1].append(episode)
            else:
                runs.append([episode])
        for run in runs:
            for at, episode in enumerate(run):
                nearest = [e["stay"] for e in [*reversed(run[: at + 1]), *run[at:]] if e["stay"]]
                stays[episode["key"]] = nearest[0] if nearest else ("own", run[0]["key"])
    return stays


@pytest.mark.spark
def test_stays_are_rebuilt_as_the_rule_says(spark):
    rng = random.Random(3)
    episodes = []
    for n in range(120):
        start = FIRST + timedelta(days=rng.randrange(30))
        end = start + timedelta(days=rng.randrange(5)) if rng.random() < 0.9 else None
        status = rng.choice(["transfer", "home", None]) if end else None
        stay = rng.choice([None, None, f"s{n % 17}-{n % 15}"])
        episodes.append({"key": f"r{n:03d}", "person": n % 15, "date": start, "end": end, "status": status, "stay": stay})
    blank = dict.fromkeys(table("identifiable", "record_event").names)
    events = []
    for e in episodes:
        # Two numbers of one person: merged, so that the episodes under both belong together.
        common = {
            **blank,
            "row_key": e["key"],
            "scheme": "chi",
            "person_id": f"{e['person']}{e['key'][-1:] > '4'}",
            "source": "smr01",
            "file_sha256": "f",
        }
        common |= {"stay_key": e["stay"], "run_id": "r"}
        events.append(common | {"event_key": f"{e['key']}.admission.0", "kind": "admission", "date": e["date"], "end_date": e["end"]})
        if e["end"]:
            events.append(common | {"event_key": f"{e['key']}.discharge.0", "kind": "discharge", "date": e["end"], "status": e["status"]})
    frame = spark.createDataFrame([tuple(e[n] for n in blank) for e in events], table("identifiable", "record_event").spark_type())
    numbers = sorted({(e["person_id"], e["person_id"].removesuffix("True").removesuffix("False")) for e in events})
    links = [("records", "chi", number, f"p{person}") for number, person in numbers]
    crosswalk = spark.createDataFrame(links, "source string, scheme string, source_id string, patient_id string")
    found = {row.row_key: row.rebuilt_key for row in tables_people.rebuilt_stays({"record_event": frame, "crosswalk": crosswalk}).collect()}
    lacking = {e["key"]: stay for e in episodes if not e["stay"] for stay in [told(episodes)[e["key"]]]}
    assert found.keys() == lacking.keys()
    own = {}
    for key, stay in lacking.items():
        if isinstance(stay, str):
            assert found[key] == stay
        else:
            assert own.setdefault(stay, found[key]) == found[key]
            assert len(found[key]) == 32
    assert len(set(own.values())) == len(own) > 10
