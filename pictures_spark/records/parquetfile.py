"""Parquet extracts: their rows as the text that a CSV extract would have, so that all that judges rows is the same for both.

A day is written in the form that its column is declared with, a whole number without a point, a missing value as an empty text. A column
that holds lists or structures has no text: it counts as missing. Pure but for reading the one file; runs on executors.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pictures_spark.records.csvfile import Block, Survey

_MAGIC = b"PAR1"
_BATCH_ROWS = 50_000
_CHUNK = 8 << 20
# Doubles hold whole numbers up to here exactly.
_WHOLE = 2.0**53


def is_parquet(path: str) -> bool:
    """Whether a file says at its start that it is Parquet.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    with Path(path).open("rb") as handle:
        return handle.read(len(_MAGIC)) == _MAGIC


def survey(path: str) -> Survey:
    """Read a file once, in bounded memory: its hash, columns and row groups; all of it is decoded, so that damage is found here.

    ``Block.offset`` is the number of the row group, ``length`` is 0.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as handle:
        while data := handle.read(_CHUNK):
            digest.update(data)
    try:
        with pq.ParquetFile(path) as file:
            names = [field.name.strip() if _is_single(field.type) else "" for field in file.schema_arrow]
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            for _ in file.iter_batches(_BATCH_ROWS):
                pass
    except (pa.ArrowException, OSError):
        return Survey(digest.hexdigest(), False, fault="truncated_file", parquet=True)
    if not names:
        return Survey(digest.hexdigest(), False, fault="empty_file", parquet=True)
    blocks, first = [], 1
    for group, count in enumerate(counts):
        if count:
            blocks.append(Block(group, 0, first, count))
        first += count
    return Survey(digest.hexdigest(), False, tuple(names), sum(counts), tuple(blocks), parquet=True)


def read_group(path: str, group: int, wanted: Sequence[int | None], forms: Sequence[str | None], first_row: int) -> Iterator[pa.Table]:
    """The rows of a row group as text, in tables as `pictures_spark.records.csvfile.read_block` gives them.

    ``forms`` has for each column the form in which a day is written, or None.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    used = sorted({place for place in wanted if place is not None})
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        # Leaves are numbered on through nested columns, so columns are asked for by name.
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[schema.field(place).name for place in used]):
            count = batch.num_rows
            columns = []
            for place, form in zip(wanted, forms, strict=True):
                column = None if place is None else batch.column(used.index(place))
                columns.append(pa.nulls(count, pa.string()) if column is None else as_text(column, form))
            numbers = pa.array(range(first_row, first_row + count), pa.int64())
            yield pa.table(
                [*columns, numbers, _faults(columns, count)], names=[*(f"c{n}" for n in range(len(wanted))), "row_number", "fault"]
            )
            first_row += count


def _is_single(type_: pa.DataType) -> bool:
    return not pa.types.is_nested(type_)


def as_text(column: pa.Array, form: str | None) -> pa.Array:
    """Values as text; a missing one is empty. What is no UTF-8 becomes U+FFFD.

    Examples
    --------
    >>> as_text(pa.array([101011237.0, 1.5, None]), None).to_pylist()
    ['101011237', '1.5', '']
    """
    types = pa.types
    type_ = column.type
    if types.is_dictionary(type_):
        column = column.dictionary_decode()
        type_ = column.type
    if types.is_date(type_) or types.is_timestamp(type_):
        # A time with a zone is told in UTC, as it is stored.
        text = pc.strftime(
            column.cast(pa.timestamp("s"), safe=False), form or ("%Y-%m-%d" if types.is_date(type_) else "%Y-%m-%d %H:%M:%S")
        )
    elif types.is_time(type_):
        text = pc.utf8_slice_codeunits(column.cast(pa.string()), 0, len("HH:MM:SS"))
    elif types.is_floating(type_):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), _WHOLE))
        text = pc.if_else(whole, pc.if_else(whole, column, 0.0).cast(pa.int64()).cast(pa.string()), column.cast(pa.string()))
    elif types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_) or _is_bytes(type_):
        text = _decoded(column)
    else:
        text = column.cast(pa.string())
    return pc.fill_null(text, "")


def _is_bytes(type_: pa.DataType) -> bool:
    return pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_fixed_size_binary(type_)


def _decoded(column: pa.Array) -> pa.Array:
    try:
        text = column.cast(pa.string())
        text.validate(full=True)
    except pa.ArrowInvalid:
        raw = column.cast(pa.large_binary())
        text = pa.array([None if value is None else value.decode("utf-8", "replace") for value in raw.to_pylist()], pa.string())
    return text


def _faults(columns: list[Any], count: int) -> pa.Array:
    fault: Any = pa.nulls(count, pa.string())
    for sign, reason in (("\x00", "nul_byte"), ("\ufffd", "bad_encoding")):
        for column in columns:
            fault = pc.if_else(pc.fill_null(pc.match_substring(column, sign), False), reason, fault)
    return fault
