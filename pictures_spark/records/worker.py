"""What a worker does with extract files: survey them, read and judge their blocks, and make events and rows of tables.

Enters: places of files and blocks, as rows of Arrow batches. Leaves: judged rows and what they become, as Arrow batches or as data files of
Delta tables that are told to the driver. Every function that is named for its work gives a function for ``mapInArrow``. Executors.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pictures_spark import datafiles
from pictures_spark.records import judging, parquetfile
from pictures_spark.records.csvfile import Survey, load_block, read_block
from pictures_spark.records.csvfile import survey as survey_csv
from pictures_spark.records.source import EVENTS, Source, TableSpec
from pictures_spark.schema import table

Work = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]

# Columns of `writing` and `writing_events`: the data file as JSON, and of which source it is.
TOLD = "source string, file string"
_BATCH_ROWS = 50_000


def survey(path: str) -> Survey:
    """What a file is made of, CSV or Parquet.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    return parquetfile.survey(path) if parquetfile.is_parquet(path) else survey_csv(path)


def surveying(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Rows with a ``path``, and with what is at it as JSON in ``survey``."""
    for batch in batches:
        told = [json.dumps(survey(path).as_dict()) for path in batch.column("path").to_pylist()]
        yield pa.RecordBatch.from_arrays([*batch.columns, pa.array(told, pa.string())], names=[*batch.schema.names, "survey"])


def blocks_of(found: Source, path: str, facts: Survey) -> list[str]:
    """The blocks of a file as a worker is told of them, each as JSON."""
    places = {name.casefold(): at for at, name in enumerate(facts.header)}
    one = {
        "source": found.name,
        "path": path,
        "sha256": facts.sha256,
        "compressed": facts.compressed,
        "parquet": facts.parquet,
        "delimiter": facts.delimiter,
        "forms": [column.formats[0] if column.formats else None for column in found.columns],
        "fields": len(facts.header),
        "wanted": [places.get(column.name.casefold()) for column in found.columns],
        "names": [*(column.field for column in found.columns), "row_number", "read_fault"],
    }
    blocks: list[dict[str, int | None]] = [
        {"offset": b.offset, "length": b.length, "row": b.first_row, "count": b.row_count} for b in facts.blocks
    ]
    if facts.open_row is not None:
        blocks.append({"offset": None, "row": facts.open_row, "count": 1})
    return [json.dumps(one | block) for block in blocks]


def judged_layout(found: Source) -> str:
    """The columns of judged rows as they leave the worker: the table's, but for ``run_id``."""
    return ", ".join(f"`{column.name}` {column.type}" for column in table("identifiable", found.table).own)


def judged(found: Source, block: Mapping[str, Any]) -> Iterator[pa.Table]:
    """The rows of a block, judged.

    Raises
    ------
    OSError
        The file cannot be read, or has changed since it was surveyed.
    """
    count = 0
    for rows in _rows_of(block):
        count += rows.num_rows
        told = rows.rename_columns(block["names"])
        yield _judged(found, told.append_column("file_sha256", pa.repeat(pa.scalar(block["sha256"]), rows.num_rows)))
    if count != block["count"]:
        raise OSError("a block of an extract file does not hold the rows that were counted in it")


def _judged(found: Source, rows: pa.Table) -> pa.Table:
    told = judging.judge(found, rows)
    made = pa.table([*rows.columns, *told.columns], names=[*rows.column_names, *told.column_names])
    return made.select([column.name for column in table("identifiable", found.table).own])


def reading(found: Source) -> Work:
    """Blocks (column ``block``) to judged rows."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for text in batch.column("block").to_pylist():
                for rows in judged(found, json.loads(text)):
                    yield from rows.to_batches(max_chunksize=_BATCH_ROWS)

    return read


def judging_again(found: Source) -> Work:
    """Rows that are there already to judged rows."""

    def judge(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from _judged(found, pa.Table.from_batches([batch])).to_batches(max_chunksize=_BATCH_ROWS)

    return judge


def writing(sources: Mapping[str, Source], folders: Mapping[str, str], run_id: str) -> Work:
    """Blocks to data files of ``record_<source>``, one each; ``folders`` has the table's folder of each source."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for text in batch.column("block").to_pylist():
                block = json.loads(text)
                found = sources[block["source"]]
                declared = table("identifiable", found.table)
                rows = (_run(part, run_id) for part in judged(found, block))
                yield _told(found.name, datafiles.write(rows, declared, folders[found.name], ("row_key", "row_number"), ("file_sha256",)))

    return write


def writing_events(sources: Mapping[str, Source], folder: str, run_id: str) -> Work:
    """Data files of ``record_<source>`` to data files of ``record_event``, one each; none where there is no event.

    A row of the batches has ``source``, the ``path`` of a file, and ``left_out``: numbers of its rows that do not stand.
    """

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for one in batch.to_pylist():
                found = sources[one["source"]]
                parts = (_run(part, run_id) for part in _events_of(found, one["path"], one["left_out"] or ()))
                file = datafiles.write(parts, table("identifiable", EVENTS), folder, ("row_key", "event_key"), ("source", "file_sha256"))
                yield _told(found.name, file)

    return write


def _events_of(found: Source, path: str, left_out: Iterable[int]) -> Iterator[pa.Table]:
    names = [*judging.event_fields(found), "row_key", "file_sha256", "person_id"]
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=[*names, "fault", "row_number"])
            stands = pc.is_null(rows["fault"]).to_numpy() & ~np.isin(rows["row_number"].to_numpy(), np.fromiter(left_out, np.int64))
            yield judging.events(found, rows.filter(pa.array(stands)).select(names).combine_chunks())


def _run(rows: pa.Table, run_id: str) -> pa.Table:
    return rows.append_column("run_id", pa.repeat(pa.scalar(run_id), rows.num_rows))


def _told(name: str, file: datafiles.DataFile) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"source": [name], "file": [json.dumps(asdict(file))]})


def emitting(found: Source) -> Work:
    """Judged rows that stand to their events."""

    def emit(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from judging.events(found, pa.Table.from_batches([batch])).combine_chunks().to_batches()

    return emit


def tabling(found: Source, spec: TableSpec) -> Work:
    """Judged rows that stand to rows of a table of their own."""

    def make(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = pa.Table.from_batches([batch])
            made = judging.table_rows(found, spec, rows)
            kept = rows.select(["file_sha256", "load_order", "row_number"])
            yield from pa.table([*made.columns, *kept.columns], names=[*made.column_names, *kept.column_names]).to_batches()

    return make


def repeated(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Numbers (column ``number``) that a partition has more than once, each once. Keeps 8 bytes a number, and as many to sort them."""
    parts = [batch.column("number").to_numpy() for batch in batches]
    numbers = np.sort(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
    found = np.unique(numbers[1:][numbers[1:] == numbers[:-1]])
    yield pa.RecordBatch.from_pydict({"number": pa.array(found, pa.int64())})


def _rows_of(block: Mapping[str, Any]) -> Iterator[pa.Table]:
    """The rows of a block as text, with their numbers and what is wrong with them as rows of a file."""
    if block["offset"] is None:
        columns: list[Any] = [pa.nulls(1, pa.string()) for _ in block["wanted"]]
        columns += [pa.array([block["row"]], pa.int64()), pa.array(["unterminated_quote"])]
        yield pa.table(columns, names=[f"c{at}" for at in range(len(columns))])
    elif block["parquet"]:
        yield from parquetfile.read_group(block["path"], block["offset"], block["wanted"], block["forms"], block["row"])
    else:
        data = load_block(block["path"], block["compressed"], block["offset"], block["length"])
        yield read_block(data, block["fields"], block["wanted"], block["row"], block["delimiter"])
