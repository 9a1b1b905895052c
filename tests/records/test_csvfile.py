"""CSV files as bytes: every record accounted for, the same in whatever pieces a file is read."""

import csv
import gzip
import hashlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures_spark.records import csvfile
from pictures_spark.records.csvfile import Survey, load_block, read_block, survey


def read(path, block_bytes=1 << 20, **limits):
    """(survey, rows by number) of a file."""
    facts = survey(str(path), block_bytes, **limits)
    rows = {}
    for block in facts.blocks:
        table = read_block(
            load_block(str(path), facts.compressed, block.offset, block.length),
            len(facts.header),
            range(len(facts.header)),
            block.first_row,
            facts.delimiter,
        )
        assert table.num_rows == block.row_count
        for row in table.to_pylist():
            number, fault = row.pop("row_number"), row.pop("fault")
            rows[number] = (fault, list(row.values()))
    assert len(rows) == facts.row_count - (facts.open_row is not None)
    return facts, rows


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("csv") / "file.csv"


@settings(max_examples=300)
@given(st.lists(st.sampled_from(["a", "é", '"', '""', ",", "\n", "\r\n", "\r", '"a"', ',"x",', '"a\nb"', " "]), max_size=30).map("".join))
def test_it_reads_what_pythons_csv_reads_whatever_the_pieces(path, body):
    data = ("h1,h2\n" + body).encode()
    path.write_bytes(data)
    found = []
    chunk = csvfile.CHUNK
    for block_bytes, csvfile.CHUNK in ((1, 3), (10, 7), (1 << 20, 1 << 20)):
        facts, rows = read(path, block_bytes)
        found.append((facts.row_count, facts.open_row, rows))
    csvfile.CHUNK = chunk
    assert found[0] == found[1] == found[2]
    if facts.open_row is None:
        expected = [row for row in csv.reader(io.StringIO(data.decode(), newline="")) if row][1:]
        told = [rows[number] for number in sorted(rows)]
        assert told == [(None, row) if len(row) == 2 else ("wrong_field_count", [None, None]) for row in expected]


def test_a_survey_is_what_a_task_can_send(path):
    path.write_bytes(b"\xef\xbb\xbf a ,b\n1,2\n")
    facts = survey(str(path))
    assert facts.header == ("a", "b")
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert Survey.from_dict(facts.as_dict()) == facts


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b"1,caf\xe9\n2,b\n", {1: ("bad_encoding", ["1", "caf\ufffd"]), 2: (None, ["2", "b"])}),
        (b"\x80\n1,2\n", {1: ("wrong_field_count", [None, None]), 2: (None, ["1", "2"])}),
        (b"1,\xef\xbf\xbd\n", {1: ("bad_encoding", ["1", "\ufffd"])}),
        (b"1,a\x00b\n2,b\n", {1: ("nul_byte", ["1", "a\x00b"]), 2: (None, ["2", "b"])}),
        (b"1\n1,2,3\n1,2\n", {1: ("wrong_field_count", [None, None]), 2: ("wrong_field_count", [None, None]), 3: (None, ["1", "2"])}),
        (b"1," + b"x" * 100_000 + b"\n2,b", {1: (None, ["1", "x" * 100_000]), 2: (None, ["2", "b"])}),
        (b'1,5" tube\n2,"a ""b"" c"\n', {1: (None, ["1", '5" tube']), 2: (None, ["2", 'a "b" c'])}),
        (b"\n\r\n\n1,2\r\n", {1: (None, ["1", "2"])}),
        (b"", {}),
    ],
)
def test_faults_of_rows(path, body, rows):
    path.write_bytes(b"h1,h2\n" + body)
    facts, found = read(path, 1)
    assert (facts.fault, facts.open_row) == (None, None)
    assert found == rows


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_header_says_what_stands_between_fields(path, delimiter):
    rows = [["h1", '"h,2"', "h3"], ["1", f'"a{delimiter}b\nc"', ""], ["2", "b,c,d", "x"], ["3", "4"]]
    path.write_text("\n".join(delimiter.join(row) for row in rows), newline="")
    facts, rows = read(path, 1)
    assert (facts.header, facts.delimiter) == (("h1", "h,2", "h3"), delimiter)
    assert rows == {
        1: (None, ["1", f"a{delimiter}b\nc", ""]),
        2: (None, ["2", "b,c,d", "x"]),
        3: ("wrong_field_count", [None, None, None]),
    }


def test_what_follows_a_quote_that_is_never_closed_is_one_row_that_cannot_be_read(path):
    path.write_bytes(b'h1,h2\n1,2\n3,"four\n5,6\n')
    facts, rows = read(path)
    assert (facts.row_count, facts.open_row) == (2, 2)
    assert rows == {1: (None, ["1", "2"])}


def test_a_record_without_end_takes_no_more_memory_than_the_limit(path):
    path.write_bytes(b'h1,h2\n1,2\n3,"' + b"x\n" * 5000)
    facts, rows = read(path, max_record_bytes=1000)
    assert (facts.row_count, facts.open_row) == (2, 2)
    assert rows == {1: (None, ["1", "2"])}


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n"])
def test_files_without_header(path, data):
    path.write_bytes(data)
    assert survey(str(path)).fault == "empty_file"


def test_compressed_files(path):
    text = b"h1,h2\n" + b"".join(b"%d,x\n" % n for n in range(1000))
    path.write_bytes(gzip.compress(text[:3000]) + gzip.compress(text[3000:]))
    facts, rows = read(path, 500)
    assert facts.compressed
    assert rows == {n + 1: (None, [str(n), "x"]) for n in range(1000)}
    whole = gzip.compress(text)
    for damaged in (whole[:-4], whole[: len(whole) // 2], whole[:20] + b"????" + whole[24:]):
        path.write_bytes(damaged)
        assert survey(str(path)).fault == "truncated_file"


def test_a_file_that_changed_since_is_not_read(path):
    path.write_bytes(b"h1,h2\n1,2\n")
    (block,) = survey(str(path)).blocks
    path.write_bytes(b"h1,h2\n1")
    with pytest.raises(OSError, match="has changed while it was read"):
        load_block(str(path), False, block.offset, block.length)
