"""CSV extracts as bytes: where records begin (`survey`), and blocks of them as Arrow tables of text (`read_block`).

RFC 4180 with any line end: commas, quotes doubled inside quotes, a quote only special at the start of a field, line breaks inside quotes.
Instead of commas there may be semicolons, tabs or bars: whichever the header has most of. Blank lines are no records. A gzip file is
recognised by its first bytes, and so are forms that are not read (zip, UTF-16 and others), which are told apart from a damaged header.
Whatever the bytes are, every record is accounted for by its number: read as text, or with a fault of schemas/record_reasons.yaml. Pure but
for reading the one file; runs on executors.
"""

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

CHUNK = 8 << 20
BLOCK_BYTES = 24 << 20
# A longer record is a quote that was never closed: it bounds the memory, and no field of an extract comes near it.
MAX_RECORD_BYTES = 32 << 20
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_QUOTE, _LF, _CR = b'"\n\r'
_DELIMITERS = ",;\t|"
# The first bytes of what is no text of ours, and the reason that is told.
_OTHER = {
    "other_encoding": (b"\xff\xfe", b"\xfe\xff"),
    "other_format": (b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"\xd0\xcf\x11\xe0", b"%PDF", b"\0", _GZIP),
}


@dataclass(frozen=True)
class Block:
    """Whole records of a file: where their bytes are (in a gzip file: of its content), how many they are, the number of the first."""

    offset: int
    length: int
    first_row: int
    row_count: int


@dataclass(frozen=True)
class Survey:
    """What a file is made of.

    Attributes
    ----------
    sha256 : of the file as it lies there, hex.
    row_count : data records, blank lines not counted.
    open_row : number of the record whose quote is never closed; it and what follows is in no block. None where all is well.
    fault : reason why nothing can be read, or None.
    """

    sha256: str
    compressed: bool
    header: tuple[str, ...] = ()
    row_count: int = 0
    blocks: tuple[Block, ...] = ()
    open_row: int | None = None
    fault: str | None = None
    parquet: bool = False
    delimiter: str = ","

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Survey":
        """The reverse of `as_dict`."""
        blocks = tuple(Block(**block) for block in values["blocks"])
        return cls(**{**values, "header": tuple(values["header"]), "blocks": blocks})


@dataclass
class _Content:
    """The content of a file in chunks, while its hash is taken; ``fault`` is told after the last chunk."""

    handle: IO[bytes]
    digest: Any = field(default_factory=hashlib.sha256)
    compressed: bool = False
    fault: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        head = self._read()
        self.compressed = head.startswith(_GZIP)
        if not self.compressed:
            while head:
                yield head
                head = self._read()
            return
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while head:
            try:
                content = unpacker.decompress(head, CHUNK)
            except zlib.error:
                self.fault = "truncated_file"
                while self._read():
                    pass
                return
            if content:
                yield content
            head = unpacker.unconsumed_tail
            if unpacker.eof:
                # Members one after another are one file (RFC 1952, 2.2); zeros after the last fill up a block of a tape or disk.
                head = (unpacker.unused_data or self._read()).lstrip(b"\0")
                while not head:
                    head = self._read()
                    if not head:
                        return
                    head = head.lstrip(b"\0")
                unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
            head = head or self._read()
        self.fault = "truncated_file"

    def _read(self) -> bytes:
        data = self.handle.read(CHUNK)
        self.digest.update(data)
        return data


def survey(path: str, block_bytes: int = BLOCK_BYTES, max_record_bytes: int = MAX_RECORD_BYTES) -> Survey:
    """Read a file once, front to back in bounded memory: its hash, header and blocks of whole records.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with Path(path).open("rb") as handle:
        content = _Content(handle)
        records = _Records(block_bytes, max_record_bytes)
        for chunk in content:
            records.add(chunk)
        records.close()
    sha256 = content.digest.hexdigest()
    fault = content.fault or records.other
    if fault is not None:
        return Survey(sha256, content.compressed, fault=fault)
    if records.header is None:
        return Survey(sha256, content.compressed, fault="empty_file")
    found = tuple(records.blocks)
    return Survey(sha256, content.compressed, records.header, records.count, found, records.open_row, delimiter=records.delimiter)


class _Records:
    """Finds where records end in chunks of bytes, and gathers them into blocks."""

    def __init__(self, block_bytes: int, max_record_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.max_record_bytes = max_record_bytes
        self.header: tuple[str, ...] | None = None
        self.delimiter = ","
        self.other: str | None = None  # why this is no text that could be read
        self.count = 0
        self.blocks: list[Block] = []
        self.open_row: int | None = None
        self.rest = b""  # bytes after the last record that has ended
        self.at = 0  # place of ``rest`` in the file
        self.block_at = 0
        self.block_count = 0

    def add(self, chunk: bytes) -> None:
        if self.open_row is not None or self.other is not None:
            return
        data = self.rest + chunk
        if self.at == 0 and self.header is None:
            self.other = next((reason for reason, heads in _OTHER.items() if data.startswith(heads)), None)
            if self.other is not None:
                self.rest = b""
                return
        if self.at == 0 and self.header is None and data.startswith(_BOM):
            data = data[len(_BOM) :]
            self.at = len(_BOM)
        self.rest = data
        self._look_for_delimiter()
        ends, _ = _record_ends(data, self.delimiter, final=False)
        self._take(ends)
        if len(self.rest) > self.max_record_bytes:
            self._give_up()

    def close(self) -> None:
        if self.open_row is not None or self.other is not None:
            return
        self._look_for_delimiter()
        ends, is_open = _record_ends(self.rest, self.delimiter, final=True)
        if len(self.rest) and not is_open and (not len(ends) or ends[-1] != len(self.rest)):
            ends = np.append(ends, len(self.rest))
        self._take(ends)
        if is_open and self.rest:
            self._give_up()
        self._end_block()

    def _look_for_delimiter(self) -> None:
        """What stands between most names of the first line that is not blank; a comma where nothing does."""
        if self.header is None:
            line = _first_line(self.rest).decode("utf-8", "replace")
            self.delimiter = max(_DELIMITERS, key=lambda one: len(_names(line, one)))

    def _take(self, ends: "np.ndarray") -> None:
        """Count the records that end at these places of ``rest`` (one past their line end), blank lines apart."""
        if not len(ends):
            return
        data = np.frombuffer(self.rest, np.uint8)
        starts = np.concatenate(([0], ends[:-1]))
        sizes = ends - starts
        first = data[np.minimum(starts, len(data) - 1)]
        is_break = (first == _LF) | (first == _CR)
        blank = is_break & (sizes <= 2)
        filled = np.flatnonzero(~blank)
        if self.header is None and len(filled):
            at = int(filled[0])
            text = self.rest[int(starts[at]) : int(ends[at])].decode("utf-8", "replace")
            self.header = tuple(name.strip() for name in _names(text, self.delimiter))
            self.block_at = self.at + int(ends[at])
            filled = filled[1:]
        self.block_count += len(filled)
        done = int(ends[-1])
        self.rest = self.rest[done:]
        self.at += done
        if self.header is None:
            self.block_at = self.at
        elif self.at - self.block_at >= self.block_bytes:
            self._end_block()

    def _end_block(self) -> None:
        if self.block_count:
            self.blocks.append(Block(self.block_at, self.at - self.block_at, self.count + 1, self.block_count))
            self.count += self.block_count
        self.block_at, self.block_count = self.at, 0

    def _give_up(self) -> None:
        self._end_block()
        if self.header is not None:
            self.count += 1
            self.open_row = self.count
        self.rest = b""


def _first_line(data: bytes) -> bytes:
    """The first line that is not blank, as far as it is there."""
    rest = data.lstrip(b"\r\n")
    return rest[: min((at for at in (rest.find(b"\n"), rest.find(b"\r")) if at >= 0), default=len(rest))]


def _names(text: str, delimiter: str) -> list[str]:
    """The fields of a header; none where it holds what no name could be."""
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    except csv.Error:
        return []


def _record_ends(data: bytes, delimiter: str, final: bool) -> tuple["np.ndarray", bool]:
    """Places one past each record's line end, from a place where a record begins; and whether a quote is open at the end of the data.

    A carriage return or quote as the last byte is left undecided unless the data are ``final``.
    """
    found = np.frombuffer(data, np.uint8)
    returns = np.flatnonzero(found == _CR)
    if len(returns):
        known = returns[(returns + 1 < len(found)) | final]
        following = found[np.minimum(known + 1, len(found) - 1)]
        lone = known[(following != _LF) | (known + 1 == len(found))]
        breaks = np.union1d(np.flatnonzero(found == _LF), lone)
    else:
        breaks = np.flatnonzero(found == _LF)
    quotes = np.flatnonzero(found == _QUOTE)
    if not len(quotes):
        return breaks + 1, False
    between = ord(delimiter)
    if _alternate(found, quotes, between):
        return breaks[np.searchsorted(quotes, breaks) % 2 == 0] + 1, len(quotes) % 2 == 1
    spans, is_open = _quoted(found, quotes.tolist(), between)
    edges = np.array([edge for span in spans for edge in span], dtype=np.int64)
    return breaks[np.searchsorted(edges, breaks) % 2 == 0] + 1, is_open


def _alternate(found: "np.ndarray", quotes: "np.ndarray", between: int) -> bool:
    """Whether the quotes open and close in turn, so that counting them tells what is inside. Doubled quotes close and open again."""
    opening, closing = quotes[::2], quotes[1::2]
    before = found[np.maximum(opening - 1, 0)]
    opens = (opening == 0) | (before == between) | (before == _LF) | (before == _CR) | (before == _QUOTE)
    after = found[np.minimum(closing + 1, len(found) - 1)]
    closes = (closing + 1 == len(found)) | (after == between) | (after == _LF) | (after == _CR) | (after == _QUOTE)
    return bool(opens.all() and closes.all())


def _quoted(found: "np.ndarray", quotes: list[int], between: int) -> tuple[list[tuple[int, int]], bool]:
    """The quoted stretches where stray quotes stand in fields: one quote after the other, as a parser meets them."""
    spans = []
    start: int | None = None
    at = 0
    while at < len(quotes):
        place = quotes[at]
        if start is None:
            if place == 0 or found[place - 1] in (between, _LF, _CR):
                start = place
        elif at + 1 < len(quotes) and quotes[at + 1] == place + 1:
            at += 1
        else:
            spans.append((start, place))
            start = None
        at += 1
    if start is not None:
        spans.append((start, len(found)))
    return spans, start is not None


def load_block(path: str, compressed: bool, offset: int, length: int) -> bytes:
    """The bytes of a block; in a gzip file what lies before it is unpacked and left.

    Raises
    ------
    OSError
        The file cannot be read, or has changed since it was surveyed.
    """
    with Path(path).open("rb") as file, gzip.GzipFile(fileobj=file) if compressed else nullcontext(file) as content:
        content.seek(offset)
        data = content.read(length)
    if len(data) != length:
        raise OSError("an extract file has changed while it was read; run the job again")
    return data


def read_block(data: bytes, field_count: int, wanted: Sequence[int | None], first_row: int, delimiter: str = ",") -> pa.Table:
    """The records of a block as text.

    Parameters
    ----------
    field_count : fields that each record must have, as the header has.
    wanted : for each column of the result the place of its field in a record, or None for a column that the file lacks.
    first_row : number of the first record.
    delimiter : what stands between fields.

    Returns
    -------
    columns ``c0``, ``c1`` … as ``wanted`` (text as it stands, empty for an empty field, null for a missing column), ``row_number`` and
    ``fault``: null, ``wrong_field_count`` (all columns are null), ``bad_encoding`` (what is no UTF-8 has become U+FFFD; a U+FFFD that was
    in the file is the trace of such a loss elsewhere, and counts too) or ``nul_byte``.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        data = data.decode("utf-8", "replace").encode("utf-8")
    wrong: list[int] = []

    def skip(row: Any) -> str:
        wrong.append(row.number)
        return "skip"

    fields = [f"f{place}" for place in range(field_count)]
    used = sorted({place for place in wanted if place is not None})
    records = pyarrow.csv.read_csv(
        io.BytesIO(data),
        pyarrow.csv.ReadOptions(column_names=fields, use_threads=False, block_size=len(data) + 1),
        pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(fields, pa.string()),
            include_columns=[fields[place] for place in used],
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
    good = records.num_rows
    numbers = np.delete(np.arange(good + len(wrong)), np.array(wrong, dtype=np.int64) - 1) + first_row
    columns = [records[fields[place]] if place is not None else pa.nulls(good, pa.string()) for place in wanted]
    table = pa.table(
        [*columns, pa.array(numbers, pa.int64()), _faults(data, columns, good)],
        names=[*(f"c{place}" for place in range(len(wanted))), "row_number", "fault"],
    )
    if not wrong:
        return table
    empty = [pa.nulls(len(wrong), pa.string()) for _ in wanted]
    told = pa.array(["wrong_field_count"] * len(wrong), pa.string())
    refused = pa.table([*empty, pa.array([first_row + number - 1 for number in wrong], pa.int64()), told], names=table.column_names)
    return pa.concat_tables([table, refused])


def _faults(data: bytes, columns: list[Any], count: int) -> "pa.Array | pa.ChunkedArray":
    fault: Any = pa.nulls(count, pa.string())
    for sign, reason in (("\x00", "nul_byte"), ("\ufffd", "bad_encoding")):
        if sign.encode() in data:
            for column in columns:
                if column.null_count < len(column):
                    fault = pc.if_else(pc.match_substring(column, sign), reason, fault)
    return fault
