"""Every fault that an extract may have, for every declared source: made from the declaration, so that another source needs no test.

Files are read and judged as a worker of the job does it, without Spark; test_load has whole jobs.
"""

import csv
import gzip
import io
import json
import re
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures_spark.records import csvfile, judging, load, worker
from pictures_spark.records.source import PERSON, Source, source, source_names

CHI = ["0101011237", "0202023458"]
WHEN = datetime(2015, 3, 2, 10, 15)
# A code of each system, and texts of which one has whatever pattern a column asks for.
CODES = {"icd10": "I639", "icd9": "4340", "opcs4": "W371", "icdo3": "85003", "bnf": "0208020V0AAAAAA", "read2": "44J3.", "local": "EGFR"}
TEXTS = ["A1", "1", "12", "2016", "S08000024"]
SOURCES = [source(name) for name in source_names()]
each_source = pytest.mark.parametrize("found", SOURCES, ids=source_names())


def sound(nine):
    digit = (11 - sum(int(d) * w for d, w in zip(nine, range(10, 1, -1), strict=True)) % 11) % 11
    return f"{nine}{digit}" if digit < 10 else None


PEOPLE = [number for n in range(60) if (number := sound(f"0{n % 9 + 1}0{n % 9 + 1}{n % 80 + 10}{n:03d}"))]


def value(found: Source, column, person):
    """A text that is right in a column."""
    conditions = dict(pair for event in found.events for pair in reversed(event.when))
    if column.name in conditions:
        return conditions[column.name][0]
    match column.type:
        case "date" | "datetime" | "time":
            return WHEN.strftime(column.formats[0])
        case "number" | "integer":
            return str(int(column.range[1] if column.range else 7))
        case "map":
            return next(listed for listed, means in column.values.items() if means).replace("*", "0")
        case "code":
            return CODES[column.systems[0]]
        case "codes":
            return CODES[column.systems[0]].ljust(column.width) * column.count
        case "identity":
            return person
        case "measure":
            return ">60"
        case "comparator":
            return ""
        case "unit":
            return "mmol/L"
    if column.name in found.person_columns:
        return person
    # What tells rows apart differs from person to person.
    if column.name in found.row_key and column.type == "text" and not column.pattern:
        return f"K{person}"
    return next(text for text in TEXTS if re.fullmatch(column.pattern or ".*", text))


def row(found: Source, number=0, **cells):
    """A row without fault, of another person for another number."""
    return {column.name: value(found, column, PEOPLE[number]) for column in found.columns} | cells


def csv_bytes(found, rows, header=None, encoding="utf-8"):
    out = io.StringIO(newline="")
    header = header or [column.name for column in found.columns]
    writer = csv.writer(out)
    writer.writerow(header)
    writer.writerows([one.get(name, "") for name in header] for one in rows)
    return out.getvalue().encode(encoding)


def judged(found: Source, path, content, block_bytes=None):
    """(fault of the file, judged rows in order, events) of an extract."""
    path.write_bytes(content)
    facts = worker.survey(str(path)) if block_bytes is None else csvfile.survey(str(path), block_bytes)
    fault, _ = load._header_fault(found, facts)
    if fault:
        return fault, [], []
    blocks = pa.RecordBatch.from_pydict({"block": worker.blocks_of(found, str(path), facts)})
    made = [pa.Table.from_batches([batch]) for batch in worker.reading(found)(iter([blocks]))]
    table = pa.concat_tables(made).sort_by("row_number") if made else None
    if table is None:
        return None, [], []
    good = table.filter(pa.compute.is_null(table["fault"]))
    events = [event for batch in good.to_batches() for event in judging.events(found, pa.Table.from_batches([batch])).to_pylist()]
    return None, table.to_pylist(), sorted(events, key=lambda event: event["event_key"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "extract"


@each_source
def test_rows_without_fault_are_loaded_in_every_form_of_file(found, path):
    rows = [row(found, n) for n in range(3)]
    plain = csv_bytes(found, rows)
    fault, told, events = judged(found, path, plain)
    assert fault is None
    assert [(one["fault"], one["nulled"], one["month"]) for one in told] == [(None, 0, "2015-03")] * 3
    assert {one["person_id"] for one in told} == set(PEOPLE[:3])
    kinds = {event.kind for event in found.events if all(rows[0][name] in texts for name, texts in event.when)}
    assert {event["kind"] for event in events} == kinds
    assert len({event["event_key"] for event in events}) == len(events)

    def content(answer):
        return [{k: v for k, v in one.items() if k != "file_sha256"} for part in answer[1:] for one in part]

    out = pa.BufferOutputStream()
    texts = pa.Table.from_pylist(rows)
    pq.write_table(texts, out, row_group_size=2)
    writer = csv.writer(semicolons := io.StringIO(newline=""), delimiter=";", quoting=csv.QUOTE_ALL)
    writer.writerows(csv.reader(io.StringIO(plain.decode(), newline="")))
    alike = [*(plain.replace(b",", other) for other in (b";", b"\t", b"|")), semicolons.getvalue().encode()]
    alike += [gzip.compress(plain) + b"\0" * 512, plain.replace(b"\r\n", b"\r")]
    alike += [gzip.compress(plain), b"\xef\xbb\xbf" + plain, plain.replace(b"\r\n", b"\n"), out.getvalue().to_pybytes()]
    for other in alike:
        assert content(judged(found, path, other)) == content((fault, told, events))


@each_source
def test_bad_dates(found, path):
    for column in found.columns:
        if column.type not in ("date", "datetime"):
            continue
        bad = [WHEN.strftime(form).replace("03", "02").replace("02", "30", 1) for form in column.formats[:1]]
        bad = ["2015-02-30", "20150230", "30/02/2015", "2015-02-30 10:00:00", "yesterday", "0", *bad]
        rows = [row(found, 0), *[row(found, 1, **{column.name: text}) for text in bad]]
        _, told, _ = judged(found, path, csv_bytes(found, rows))
        assert told[0]["fault"] is None
        expected = (None, None, 1) if column.on_error else ("bad_date", column.name, 0)
        assert {(one["fault"], one["fault_column"], one["nulled"]) for one in told[1:]} == {expected}, column.name


@each_source
def test_wrong_bytes_cost_their_row_only(found, path):
    texts = [c.name for c in found.columns if c.type == "text" and not c.pattern and c.name not in found.person_columns]
    others = [c.name for c in found.columns if c.type == "unit"] + [*found.person_columns[1:]]
    name = [*texts, *others][0]
    rows = [
        row(found, 0),
        row(found, 1, **{name: "caf\xe9"}),
        row(found, 2, **{name: "A\0B"}),
        row(found, 3, **{name: "x" * 100_000}),
        row(found, 4),
    ]
    content = csv_bytes(found, rows, encoding="cp1252") + b"too,few\r\n"
    _, told, events = judged(found, path, content)
    assert [one["fault"] for one in told] == [None, "bad_encoding", "nul_byte", None, None, "wrong_field_count"]
    assert told[3][found.column(name).field] == "x" * 100_000
    assert {event["person_id"] for event in events} == ({PEOPLE[n] for n in (0, 3, 4)} if found.events else set())


@each_source
def test_columns_that_are_missing_too_many_or_in_another_order(found, path):
    names = [column.name for column in found.columns]
    for column in found.columns:
        rest = [name for name in names if name != column.name]
        fault, told, _ = judged(found, path, csv_bytes(found, [row(found)], rest))
        if column.needs:
            assert fault == "missing_column", column.name
        else:
            assert fault is None
            assert [one["fault"] for one in told] == [None], column.name
    plain = judged(found, path, csv_bytes(found, [row(found)]))[1]
    mixed = judged(found, path, csv_bytes(found, [row(found)], ["surprise", *reversed(names), "another"]))[1]
    assert [{**one, "file_sha256": ""} for one in mixed] == [{**one, "file_sha256": ""} for one in plain]
    assert judged(found, path, csv_bytes(found, [row(found)], [*names, names[0]]))[0] == "duplicate_column"


@each_source
def test_rows_with_one_key_are_told_whatever_way_the_person_is_written(found, path):
    number = next(chi for chi in PEOPLE if chi.startswith("0"))
    zero = PEOPLE.index(number)
    lost = dict.fromkeys(found.person_columns, number[1:])
    spaced = dict.fromkeys(found.person_columns, f" {number[:6]} {number[6:]}")
    rows = [row(found, zero), row(found, zero, **lost), row(found, zero, **spaced), row(found, zero + 1)]
    if PERSON not in found.row_key:
        rows[3][found.row_key[0]] = "B2"
    _, told, _ = judged(found, path, csv_bytes(found, rows))
    assert {one["fault"] for one in told} == {None}
    assert {one["person_id"] for one in told[:3]} == {number}
    assert len({one["row_key"] for one in told[:3]}) == 1
    assert told[3]["row_key"] != told[0]["row_key"]


@each_source
def test_people_who_are_not_named(found, path):
    for text, reason in (("", "missing_person_id"), ("0101011238", "bad_person_id"), ("nobody", "bad_person_id")):
        rows = [row(found, 0), row(found, 1, **dict.fromkeys(found.person_columns, text))]
        _, told, _ = judged(found, path, csv_bytes(found, rows))
        assert [one["fault"] for one in told] == [None, reason]


@each_source
def test_files_that_cannot_be_read(found, path):
    plain = csv_bytes(found, [row(found, n) for n in range(3)])
    packed = gzip.compress(plain)
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row(found)]), out)
    for content, fault in (
        (b"", "empty_file"),
        (packed[:-6], "truncated_file"),
        (packed[: len(packed) // 2], "truncated_file"),
        (out.getvalue().to_pybytes()[:-20], "truncated_file"),
        (b"nonsense\n1\n", "missing_column"),
        (plain.decode().encode("utf-16"), "other_encoding"),
        (b"\xfe\xff" + plain.decode().encode("utf-16-be"), "other_encoding"),
        (b"PK\x03\x04" + plain, "other_format"),
        (gzip.compress(packed), "other_format"),
        (b"\0" * 1000, "other_format"),
        (b"x" * 200_000, "missing_column"),
    ):
        assert judged(found, path, content)[0] == fault
    assert judged(found, path, csv_bytes(found, [])) == (None, [], [])
    _, told, events = judged(found, path, plain[:-1] + b'\r\n"never closed')
    assert [one["fault"] for one in told] == [None, None, None, "unterminated_quote"]
    assert {event["person_id"] for event in events} == (set(PEOPLE[:3]) if found.events else set())


def test_a_delivery_has_the_main_condition_where_there_is_one(path):
    found = source("smr02")
    rows = [row(found, n, MAIN_CONDITION=code) for n, code in enumerate(("O80.0", "", "O82"))]
    _, _, events = judged(found, path, csv_bytes(found, rows))
    told = {event["person_id"]: (event["system"], event["code"]) for event in events if event["kind"] == "delivery"}
    assert told == {PEOPLE[0]: ("icd10", "O800"), PEOPLE[1]: (None, None), PEOPLE[2]: ("icd10", "O82")}


@each_source
def test_data_files_hold_the_rows_and_events_but_for_those_that_are_left_out(found, path, tmp_path):
    content = csv_bytes(found, [row(found, n) for n in range(3)]) + b"too,few\r\n"
    _, told, events = judged(found, path, content)
    blocks = pa.RecordBatch.from_pydict({"block": worker.blocks_of(found, str(path), worker.survey(str(path)))})
    (made,) = worker.writing({found.name: found}, {found.name: str(tmp_path / "raw")}, "run")(iter([blocks]))
    file = json.loads(made.column("file").to_pylist()[0])
    raw = pq.read_table(tmp_path / "raw" / file["name"])
    assert [{**one, "run_id": "run"} for one in told] == raw.sort_by("row_number").to_pylist()
    if not found.events:
        return
    for left_out, kept in (([], 3), ([2], 2), ([1, 2, 3], 0)):
        plan = {
            "source": [found.name],
            "path": [str(tmp_path / "raw" / file["name"])],
            "left_out": pa.array([left_out], pa.list_(pa.int64())),
        }
        (made,) = worker.writing_events({found.name: found}, str(tmp_path / "events"), "run")(iter([pa.RecordBatch.from_pydict(plan)]))
        told_file = json.loads(made.column("file").to_pylist()[0])
        place = tmp_path / "events" / told_file["name"]
        written = pq.read_table(place).sort_by("event_key").to_pylist() if place.is_file() else []
        people = {PEOPLE[n] for n in range(3) if n + 1 not in left_out}
        assert written == [{**event, "run_id": "run"} for event in events if event["person_id"] in people]
        assert len({event["person_id"] for event in written}) == kept
        assert told_file["rows"] == len(written)


def test_numbers_that_come_again_are_told_once():
    def told(*batches):
        numbers = [pa.RecordBatch.from_pydict({"number": pa.array(batch, pa.int64())}) for batch in batches]
        return [number for batch in worker.repeated(iter(numbers)) for number in batch.column("number").to_pylist()]

    assert told([3, 1, 2], [3, -9], [3, -9, -(2**63)]) == [-9, 3]
    assert told() == told([]) == told([1], [2]) == []


@settings(max_examples=25)
@given(data=st.data())
def test_pieces_order_and_days_change_nothing_that_they_should_not(tmp_path_factory, data):
    found = data.draw(st.sampled_from(SOURCES))
    path = tmp_path_factory.getbasetemp() / "pieces"
    dated = [column for column in found.columns if column.type in ("date", "datetime")]
    cells = st.sampled_from(["", "?!", "20150230", "8"])
    rows = [
        row(found, n, **{data.draw(st.sampled_from(found.columns)).name: data.draw(cells)} if data.draw(st.booleans()) else {})
        for n in range(data.draw(st.integers(1, 6)))
    ]

    def told(rows, block_bytes=None):
        _, judged_rows, events = judged(found, path, csv_bytes(found, rows), block_bytes)
        apart = ("file_sha256", "row_number")
        kept = [{k: v for k, v in one.items() if k not in apart} for one in judged_rows]
        return sorted(kept, key=str), sorted(({k: v for k, v in one.items() if k not in apart} for one in events), key=str)

    whole = told(rows)
    assert told(rows, 1) == whole
    assert told(data.draw(st.permutations(rows))) == whole
    cut = data.draw(st.integers(0, len(rows)))
    parts = [told(part) for part in (rows[:cut], rows[cut:])]
    assert tuple(sorted([*first, *second], key=str) for first, second in zip(*parts, strict=True)) == whole

    # A year of 365 days later, everything is a year later, and nothing else is changed.
    def later(text, column):
        for form in column.formats:
            try:
                return datetime.strptime(text, form).replace(year=datetime.strptime(text, form).year + 1).strftime(form)
            except ValueError:
                continue
        return text

    shifted = told([{**one, **{column.name: later(one[column.name], column) for column in dated}} for one in rows])
    moved = ("date", "end_date", "event_key", "row_key", "stay_key")

    def plain(events):
        return sorted(str({k: v for k, v in one.items() if k not in moved}) for one in events)

    assert plain(shifted[1]) == plain(whole[1])
    assert [one["date"].year for one in shifted[1]] == [2016] * len(whole[1])
    assert sorted((str(one["fault"]), one["nulled"]) for one in shifted[0]) == sorted(
        (str(one["fault"]), one["nulled"]) for one in whole[0]
    )
