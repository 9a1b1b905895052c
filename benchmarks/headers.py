"""How fast headers are read by Spark: ours against pydicom in the same job, and against a job that only opens each file and reads 8 KB.

    python benchmarks/headers.py [--n 200000] [--pydicom 4000] [--folder .cache/benchmarks]

Every job is a mapInArrow over a manifest of paths on local[2]. Ours gives the full header, as template and differences, and all typed
columns. pydicom, which is some thirty times slower, reads every k-th file of the same archive. Files lie in the page cache.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import archive
import pyarrow as pa
from measure import alternate, line
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from pictures_spark.dicom.scan import promoted
from pictures_spark.dicom.storing import Storing, spark_type
from pictures_spark.dicom.structures import Headers

CHUNK = 2048
STORED = spark_type()
COLUMNS = StructType([STORED[column.name] for column in promoted()])


class File:
    """A local file as the reader of its first bytes."""

    def __init__(self, path: str) -> None:
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    @property
    def size(self) -> int:
        return os.fstat(self._handle).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._handle, length, offset)

    def close(self) -> None:
        os.close(self._handle)


def _headers(paths: list[str], headers: Headers) -> Iterator:
    for path in paths:
        file = File(path)
        try:
            yield headers.read(file)
        finally:
            file.close()


def full(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Ours: full headers as stored."""
    yield from _ours(batches, STORED)


def columns(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Ours: the typed columns only."""
    yield from _ours(batches, COLUMNS)


def _ours(batches: Iterator[pa.RecordBatch], type_: StructType) -> Iterator[pa.RecordBatch]:
    from pyspark.sql.pandas.types import to_arrow_schema

    schema, headers, storing = to_arrow_schema(type_), Headers(), Storing()
    for batch in batches:
        _, found = storing.columns(list(_headers(batch.column(0).to_pylist(), headers)), schema.names)
        yield pa.RecordBatch.from_arrays([found[name] for name in schema.names], schema=schema)


def by_pydicom(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The peer: pydicom's own JSON model, without pixels, values not validated (its fastest settings)."""
    import orjson
    from pydicom import config, dcmread

    config.settings.reading_validation_mode = config.IGNORE
    for batch in batches:
        texts = []
        for path in batch.column(0).to_pylist():
            data_set = dcmread(path, stop_before_pixels=True)
            texts.append(orjson.dumps({**data_set.file_meta.to_json_dict(), **data_set.to_json_dict(bulk_data_threshold=65536)}).decode())
        yield pa.RecordBatch.from_pydict({"header": texts})


def columns_by_pydicom(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The peer: pydicom asked for the columns' tags only."""
    from pydicom import config, dcmread

    config.settings.reading_validation_mode = config.IGNORE
    tags = [column.dicom for column in promoted() if column.dicom != "TransferSyntaxUID"]
    for batch in batches:
        found: dict[str, list] = {tag: [] for tag in tags}
        for path in batch.column(0).to_pylist():
            data_set = dcmread(path, stop_before_pixels=True, specific_tags=tags)
            for tag in tags:
                found[tag].append(str(data_set.get(tag, "")))
        yield pa.RecordBatch.from_pydict(found)


def open_and_read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The peer: opens, reads 8 KB, closes, and says how much it read."""
    for batch in batches:
        lengths = []
        for path in batch.column(0).to_pylist():
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            lengths.append(len(os.read(handle, 8192)))
            os.close(handle)
        yield pa.RecordBatch.from_pydict({"length": pa.array(lengths, pa.int64())})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200_000, help="instances")
    parser.add_argument("--pydicom", type=int, default=4000, help="instances that pydicom reads")
    parser.add_argument("--folder", type=Path, default=Path(".cache/benchmarks"), help="where the archive is made and kept")
    given = parser.parse_args()
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    print(f"  .. archive of {given.n:,} instances in {given.folder}", file=sys.stderr, flush=True)
    paths = archive.write(given.folder.resolve() / f"archive-{given.n}", given.n)
    shuffled = paths.copy()
    random.Random(1).shuffle(shuffled)
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.memory", "2g")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", CHUNK)
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    ordered, mixed = _manifest(spark, paths), _manifest(spark, shuffled)
    few = _manifest(spark, paths[:: max(1, len(paths) // given.pydicom)])
    small = few.count()
    ddl = "header string"
    texts = ", ".join(f"`{column.dicom}` string" for column in promoted() if column.dicom != "TransferSyntaxUID")
    results = []

    def rate(name: str, frame: DataFrame, run: tuple, n: int, other: DataFrame, peer: tuple, m: int, peer_name: str) -> None:
        print(f"  .. {name}", file=sys.stderr, flush=True)
        ours, theirs = alternate(lambda: _run(frame, *run), lambda: _run(other, *peer))
        results.append(line(name, n / ours, m / theirs, peer_name, "files/s", n))

    raw = (open_and_read, "length bigint")
    rate(
        "headers_full_vs_pydicom", ordered, (full, STORED), len(paths), few, (by_pydicom, ddl), small, "pydicom to_json_dict in mapInArrow"
    )
    rate(
        "headers_columns_vs_pydicom",
        ordered,
        (columns, COLUMNS),
        len(paths),
        few,
        (columns_by_pydicom, texts),
        small,
        "pydicom specific_tags",
    )
    rate("headers_full", ordered, (full, STORED), len(paths), ordered, raw, len(paths), "open and read 8 KB, in the same Spark job")
    rate("headers_shuffled", mixed, (full, STORED), len(paths), mixed, raw, len(paths), "open and read 8 KB, in the same Spark job")
    rate("headers_columns", ordered, (columns, COLUMNS), len(paths), ordered, raw, len(paths), "open and read 8 KB, in the same Spark job")
    results += [_bytes_per_instance(spark, name, frame, len(paths)) for name, frame in (("", ordered), ("_shuffled", mixed))]
    spark.stop()
    print("\n".join(results))


def _manifest(spark: SparkSession, paths: list[str]) -> DataFrame:
    rows = spark.sparkContext.parallelize([(path,) for path in paths], 8)
    frame = spark.createDataFrame(rows, "path string").persist()
    frame.count()
    return frame


def _run(frame: DataFrame, function: object, schema: object) -> None:
    frame.mapInArrow(function, schema).write.format("noop").mode("overwrite").save()  # type: ignore[arg-type]


def _bytes_per_instance(spark: SparkSession, name: str, frame: DataFrame, n: int) -> str:
    """Bytes on disk of headers as stored, against one JSON text for each instance, both as Parquet with zstd."""
    folder = Path(tempfile.mkdtemp(dir=".cache"))
    try:
        kept = frame.mapInArrow(full, STORED).select("sop_uid", "template_id", "differences", "elements")  # type: ignore[arg-type]
        kept.write.option("compression", "zstd").parquet(str(folder / "ours"))
        sample = frame.limit(2000)
        sample.mapInArrow(whole, "header string").write.option("compression", "zstd").parquet(str(folder / "peer"))  # type: ignore[arg-type]
        sizes = [sum(file.stat().st_size for file in (folder / which).glob("*.parquet")) for which in ("ours", "peer")]
    finally:
        shutil.rmtree(folder)
    return line(f"headers_bytes_per_instance{name}", sizes[0] / n, sizes[1] / 2000, "one JSON per instance", "bytes", n)


def whole(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Full headers, one JSON text each."""
    headers = Headers()
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"header": [header.text for header in _headers(batch.column(0).to_pylist(), headers)]})


if __name__ == "__main__":
    main()
