"""Links in time, by DuckDB with the same SQL as the job: nothing is lost, a merge undone is no merge, again changes nothing."""

from datetime import datetime, timedelta

import duckdb
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures_spark.linkage import history

DAY = datetime(2026, 1, 1)
NUMBERS, MASTERS = ["n1", "n2", "n3", "n4"], ["u1", "u2", "u3"]
# Which number is whose: a register as it may be loaded; a number may be missing.
REGISTERS = st.dictionaries(st.sampled_from(NUMBERS), st.sampled_from(MASTERS))


class House:
    """A crosswalk and merges in DuckDB, kept as the job keeps them."""

    def __init__(self):
        self.db = duckdb.connect()
        self.db.execute("CREATE TABLE links (id VARCHAR, upi VARCHAR, valid_from TIMESTAMP, valid_to TIMESTAMP, run_id VARCHAR)")
        self.db.execute("CREATE TABLE merged (upi VARCHAR, into_upi VARCHAR, valid_from TIMESTAMP, valid_to TIMESTAMP, run_id VARCHAR)")
        self.runs = 0

    def load(self, register):
        """One run of the job on a register; how many rows it wrote."""
        self.runs += 1
        self.now = DAY + timedelta(days=self.runs)
        self._table("register", "scheme VARCHAR, person_id VARCHAR, upi VARCHAR", [("s", n, u) for n, u in register.items()])
        self._table("wanted", "id VARCHAR, upi VARCHAR", [(n, register.get(n)) for n in NUMBERS])
        written = self._write("links", ["id"], ["upi"], "wanted")
        links = "(SELECT upi, 's' AS scheme, id AS person_id FROM links)"
        self.db.execute(f"CREATE OR REPLACE TABLE wanted AS {history.MERGED.format(links=links, register='register')}")
        return written + self._write("merged", ["upi"], ["into_upi"], "wanted")

    def _table(self, name, columns, rows):
        self.db.execute(f"CREATE OR REPLACE TABLE {name} ({columns})")
        if rows:
            self.db.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)

    def _write(self, name, keys, values, wanted):
        clock = f"(SELECT TIMESTAMP '{self.now}' AS instant, 'r{self.runs}' AS run_id)"
        sql = history.changes(keys, values).format(held=name, wanted=wanted, now=clock)
        rows = self.db.execute(sql).fetchall()
        for row in rows:
            # A merge by key and valid_from: an ended row takes the place of the one that lasted.
            if row[-2] is not None:
                self.db.execute(f"DELETE FROM {name} WHERE {keys[0]} = ? AND valid_from = ?", [row[0], row[-3]])
            self.db.execute(f"INSERT INTO {name} VALUES (?, ?, ?, ?, ?)", row)
        return len(rows)

    def at(self, name, when):
        """What held at a time."""
        where = "valid_from <= $1 AND (valid_to IS NULL OR valid_to > $1)"
        return sorted(self.db.execute(f"SELECT * EXCLUDE (valid_from, valid_to, run_id) FROM {name} WHERE {where}", [when]).fetchall())


@settings(max_examples=15)
@given(st.lists(REGISTERS, min_size=1, max_size=5))
def test_every_earlier_state_can_be_told(registers):
    house = House()
    states = []
    for register in registers:
        house.load(register)
        states.append((house.now, sorted((n, register.get(n)) for n in NUMBERS)))
        assert house.load(register) == 0
    for when, state in states:
        assert house.at("links", when) == state


@settings(max_examples=40)
@given(REGISTERS, st.sampled_from(MASTERS), st.sampled_from(MASTERS))
def test_merging_and_then_unmerging_is_identity(register, gone, into):
    house = House()
    house.load(register)
    links, merged = house.at("links", house.now), house.at("merged", house.now)
    house.load({number: into if upi == gone else upi for number, upi in register.items()})
    # The older identifier of whoever was merged leads to the one that is left.
    if gone != into and gone in register.values():
        assert (gone, into) in house.at("merged", house.now)
    house.load(register)
    assert house.at("links", house.now) == links
    # A master identifier that only the merge had made is gone with it, and a cohort of that time leads back.
    made_by_the_merge = into not in register.values()
    assert [row for row in house.at("merged", house.now) if not (made_by_the_merge and row[0] == into)] == merged


def test_merges_of_merges_lead_to_the_last_and_a_split_to_nobody():
    house = House()
    house.load({"n1": "u1", "n2": "u2", "n3": "u3"})
    house.load({"n1": "u2", "n2": "u2", "n3": "u3"})
    assert house.at("merged", house.now) == [("u1", "u2")]
    house.load({"n1": "u3", "n2": "u3", "n3": "u3"})
    assert house.at("merged", house.now) == [("u1", "u3"), ("u2", "u3")]
    # The two numbers of u2 go to two people: whom a cohort of u2 meant cannot be told. u1 was n1 alone.
    house.load({"n1": "u1", "n2": "u3", "n3": "u3"})
    assert house.at("merged", house.now) == []
