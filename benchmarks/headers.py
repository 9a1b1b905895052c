"""How fast headers are read by Spark, and how small they are kept: ours against named peers, on the same files, in the same session.

    python benchmarks/headers.py [--n 200000] [--pydicom 4000] [--large 2000] [--packed 20000] [--only NAME ...]

Every job runs on local[2], warm, and its files lie in the page cache. Ours gives the full header (a base that a task gives once for each
series, and each header's own lines) and all typed columns. Peers that are many times slower read every k-th file of the same archive.

The peers, each at its fastest settings (values not validated, pixels not read, JSON by orjson):

- open and read 8 KB: the same kind of job, which only opens each file, reads 8 KB and returns the length;
- pydicom: ``to_json_dict`` in mapInArrow; for the typed columns, ``specific_tags``; for a tar, over the members as tarfile gives them;
- zipdcm-like: a Python data source that goes through zip files by zipfile and gives pydicom's JSON for each member;
- Pixels-like: mapInPandas with a pool of threads, pydicom's JSON for each path.
"""

import argparse
import itertools
import os
import random
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import archive
import orjson
import pyarrow as pa
from measure import CHUNK, ROUNDS, alternate, line, local_session
from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.types import StructType

from pictures_spark.dicom.scan import DEFAULT_MAX_HEADER_BYTES, promoted
from pictures_spark.dicom.source import DicomSource
from pictures_spark.dicom.storing import SERIES, Storing, spark_type, split_series
from pictures_spark.dicom.structures import Headers

STORED = spark_type()
ROWS = 8192
COLUMNS = StructType([STORED[column.name] for column in promoted()])
RAW = "open and read 8 KB, in the same Spark job"


class File:
    """An open local file as the reader of its bytes."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @property
    def size(self) -> int:
        return os.fstat(self._handle).st_size

    def read_at(self, offset: int, length: int) -> bytes:
        return os.pread(self._handle, length, offset)


def _headers(paths: list[str], headers: Headers) -> Iterator:
    for path in paths:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield headers.known(os.read(handle, headers.window)) or headers.read(File(handle))
        finally:
            os.close(handle)


def full(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Ours: full headers and typed columns."""
    yield from _ours(batches, STORED)


def columns(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Ours: the typed columns only."""
    yield from _ours(batches, COLUMNS)


def _ours(batches: Iterator[pa.RecordBatch], type_: StructType) -> Iterator[pa.RecordBatch]:
    import gc

    from pyspark.sql.pandas.types import to_arrow_schema

    schema, headers, storing = to_arrow_schema(type_), Headers.of_process(DEFAULT_MAX_HEADER_BYTES), Storing()
    gc.freeze()
    paths = (path for batch in batches for path in batch.column(0).to_pylist())
    while chunk := list(itertools.islice(paths, ROWS)):
        _, found = storing.columns(list(_headers(chunk, headers)), schema.names)
        yield pa.RecordBatch.from_arrays([found[name] for name in schema.names], schema=schema)


def whole(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Full headers, one JSON text each."""
    headers = Headers.of_process(DEFAULT_MAX_HEADER_BYTES)
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"header": [header.text for header in _headers(batch.column(0).to_pylist(), headers)]})


def _by_pydicom(source: Any) -> str:
    from pydicom import config, dcmread

    config.settings.reading_validation_mode = config.IGNORE
    data_set = dcmread(source, stop_before_pixels=True)
    return orjson.dumps({**data_set.file_meta.to_json_dict(), **data_set.to_json_dict(bulk_data_threshold=65536)}).decode()


def json_by_pydicom(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The peer: pydicom's own JSON model."""
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"header": [_by_pydicom(path) for path in batch.column(0).to_pylist()]})


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


def tar_by_pydicom(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The peer: pydicom on what tarfile gives."""
    for batch in batches:
        for path in batch.column(0).to_pylist():
            with tarfile.open(path) as members:
                texts = [_by_pydicom(members.extractfile(member)) for member in members]
            yield pa.RecordBatch.from_pydict({"header": texts})


def like_pixels(frames: Iterator) -> Iterator:
    """The peer: pandas in and out, 32 threads for each task."""
    import pandas as pd

    for frame in frames:
        with ThreadPoolExecutor(32) as pool:
            yield pd.DataFrame({"path": frame["path"], "meta": list(pool.map(_by_pydicom, frame["path"]))})


class ZipdcmLike(DataSource):
    """The peer: zip files by zipfile, pydicom's JSON for each member."""

    @classmethod
    def name(cls) -> str:
        return "zipdcmlike"

    def schema(self) -> str:
        return "rowid bigint, path string, meta string"

    def reader(self, schema: StructType) -> "ZipdcmLikeReader":
        return ZipdcmLikeReader(self.options["path"])


class ZipdcmLikeReader(DataSourceReader):
    def __init__(self, folder: str) -> None:
        self._folder = folder

    def partitions(self) -> list[InputPartition]:
        paths = sorted(str(path) for path in Path(self._folder).glob("*.zip"))
        return [InputPartition(paths[number::8]) for number in range(8)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        for path in partition.value:
            with zipfile.ZipFile(path) as members:
                names = members.namelist()
                texts = []
                for name in names:
                    with members.open(name) as member:
                        texts.append(_by_pydicom(member))
            places = [f"{path}::{name}" for name in names]
            yield pa.RecordBatch.from_pydict({"rowid": pa.array(range(len(names)), pa.int64()), "path": places, "meta": texts})


def open_and_read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The peer: opens, reads 8 KB, closes, and says how much it read."""
    for batch in batches:
        lengths = []
        for path in batch.column(0).to_pylist():
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            lengths.append(len(os.read(handle, 8192)))
            os.close(handle)
        yield pa.RecordBatch.from_pydict({"length": pa.array(lengths, pa.int64())})


def in_process(name: str, paths: list[str]) -> str:
    """One process without Spark, by its processor time: what else the machine does matters least to it."""

    def seconds(work: Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]) -> float:
        batches = (pa.RecordBatch.from_pydict({"path": paths[start : start + CHUNK]}) for start in range(0, len(paths), CHUNK))
        start = time.process_time()
        for _ in work(batches):
            pass
        return time.process_time() - start

    works = (full, open_and_read)
    rounds = [[seconds(work) for work in works] for _ in range(ROUNDS + 1)][1:]
    ours, peer = (statistics.median(taken) for taken in zip(*rounds, strict=True))
    return line(name, len(paths) / ours, len(paths) / peer, "open and read 8 KB, in one process", "files per CPU second", len(paths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200_000, help="small loose files")
    parser.add_argument("--pydicom", type=int, default=4000, help="files that pydicom reads")
    parser.add_argument("--large", type=int, default=2000, help="loose files of 0.5 MB")
    parser.add_argument("--packed", type=int, default=20_000, help="members of zip and of tar files")
    parser.add_argument("--folder", type=Path, default=Path(".cache/benchmarks"), help="where the archives are made and kept")
    parser.add_argument("--only", nargs="*", help="names of the results wanted")
    given = parser.parse_args()
    folder = given.folder.resolve()

    def wanted(*names: str) -> bool:
        return not given.only or any(name in given.only for name in names)

    print(f"  .. archives in {given.folder}", file=sys.stderr, flush=True)
    paths = archive.write(folder / f"small-{given.n}", given.n)
    shuffled = paths.copy()
    random.Random(1).shuffle(shuffled)
    results = [
        in_process(name, files[:50_000])
        for name, files in (("headers_process", paths), ("headers_process_shuffled", shuffled))
        if wanted(name)
    ]
    if given.only and all(name.startswith("headers_process") for name in given.only):
        print("\n".join(results))
        return
    spark = local_session()
    ordered, mixed = manifest(spark, paths), manifest(spark, shuffled)
    few = manifest(spark, paths[:: max(1, len(paths) // given.pydicom)])
    small = few.count()

    def rate(name: str, ours: Callable[[], DataFrame], n: int, peer: Callable[[], DataFrame], m: int, peer_name: str) -> None:
        if wanted(name):
            print(f"  .. {name}", file=sys.stderr, flush=True)
            seconds = alternate(lambda: noop(ours()), lambda: noop(peer()))
            results.append(line(name, n / seconds[0], m / seconds[1], peer_name, "files/s", n))

    def full_of(frame: DataFrame) -> DataFrame:
        return frame.mapInArrow(full, STORED)

    def raw_of(frame: DataFrame) -> DataFrame:
        return frame.mapInArrow(open_and_read, "length bigint")

    n, json = len(paths), "header string"
    texts = ", ".join(f"`{column.dicom}` string" for column in promoted() if column.dicom != "TransferSyntaxUID")
    by_pydicom = "pydicom to_json_dict in mapInArrow"
    rate("headers_full_vs_pydicom", lambda: full_of(ordered), n, lambda: few.mapInArrow(json_by_pydicom, json), small, by_pydicom)
    rate(
        *("headers_columns_vs_pydicom", lambda: ordered.mapInArrow(columns, COLUMNS), n),
        *(lambda: few.mapInArrow(columns_by_pydicom, texts), small, "pydicom specific_tags in mapInArrow"),
    )
    rate("headers_full", lambda: full_of(ordered), n, lambda: raw_of(ordered), n, RAW)
    rate("headers_shuffled", lambda: full_of(mixed), n, lambda: raw_of(mixed), n, RAW)
    rate("headers_columns", lambda: ordered.mapInArrow(columns, COLUMNS), n, lambda: raw_of(ordered), n, RAW)
    rate(
        *("headers_vs_pixels", lambda: full_of(ordered), n),
        *(lambda: few.mapInPandas(like_pixels, "path string, meta string"), small, "Pixels-like: mapInPandas, 32 threads, to_json_dict"),
    )
    if wanted("headers_large", "headers_large_vs_pydicom"):
        large = manifest(spark, archive.write(folder / f"large-{given.large}", given.large, pixels=archive.LARGE))
        rate("headers_large", lambda: full_of(large), given.large, lambda: raw_of(large), given.large, f"{RAW}; 0.5 MB files")
        rate(
            *("headers_large_vs_pydicom", lambda: full_of(large), given.large),
            *(lambda: large.mapInArrow(json_by_pydicom, json), given.large, f"{by_pydicom}; 0.5 MB files"),
        )
    spark.dataSource.register(DicomSource)
    spark.dataSource.register(ZipdcmLike)
    if wanted("headers_zip_vs_zipdcm"):
        archive.write_packed(folder / f"zip-{given.packed}", given.packed, "zip")
        few_zips = folder / f"zip-{given.pydicom}"
        archive.write_packed(few_zips, given.pydicom, "zip")
        rate(
            *("headers_zip_vs_zipdcm", lambda: spark.read.format("dicom").load(str(folder / f"zip-{given.packed}")), given.packed),
            *(lambda: spark.read.format("zipdcmlike").load(str(few_zips)), given.pydicom, "zipdcm-like data source"),
        )
    if wanted("headers_tar_vs_pydicom"):
        archive.write_packed(folder / f"tar-{given.packed}", given.packed, "tar")
        few_tars = manifest(spark, archive.write_packed(folder / f"tar-{given.pydicom}", given.pydicom, "tar"))
        rate(
            *("headers_tar_vs_pydicom", lambda: spark.read.format("dicom").load(str(folder / f"tar-{given.packed}")), given.packed),
            *(lambda: few_tars.mapInArrow(tar_by_pydicom, json), given.pydicom, "pydicom to_json_dict over tarfile, in mapInArrow"),
        )
    if wanted("headers_bytes_per_instance"):
        results += bytes_per_instance(spark, folder, ordered)
    spark.stop()
    print("\n".join(results))


def manifest(spark: SparkSession, paths: list[str]) -> DataFrame:
    """Paths as a cached frame of 8 partitions, in order."""
    rows = spark.sparkContext.parallelize([(path,) for path in paths], 8)
    frame = spark.createDataFrame(rows, "path string").persist()
    frame.count()
    return frame


def noop(frame: DataFrame) -> None:
    """Run a job, and keep nothing."""
    frame.write.format("noop").mode("overwrite").save()


def kept(frame: DataFrame) -> DataFrame:
    """Headers as the catalogue keeps them: split series by series, whatever task read them."""
    # Read once, as the catalogue does: a worker that has learned more in between would give other bases.
    read = frame.mapInArrow(full, STORED).withColumn("content_sha256", F.lit("")).persist(StorageLevel.DISK_ONLY)
    bases = read.where("base IS NOT NULL").groupBy("base_id", *SERIES).agg(F.min("base").alias("base"))
    both = read.drop("base").unionByName(bases, allowMissingColumns=True)
    type_ = "sop_uid string, template_id string, differences string, series_uid string, elements string, instance_count bigint"
    names = [part.split()[0] for part in type_.split(", ")]
    return both.groupBy(*SERIES).applyInArrow(split_series(names), type_)


def bytes_per_instance(spark: SparkSession, folder: Path, frame: DataFrame) -> list[str]:
    """Bytes on disk of headers as kept (two Delta tables), against one JSON text for each instance; and of series of one or two images."""
    place = Path(tempfile.mkdtemp(dir=folder))

    def size(name: str, rows: DataFrame) -> int:
        rows.write.format("delta").save(str(place / name))
        return sum(file.stat().st_size for file in (place / name).rglob("*.parquet"))

    try:
        whole_size = size("whole", frame.mapInArrow(whole, "header string"))
        split = kept(frame).localCheckpoint()
        found = []
        for name, condition in (("", "instance_count > 0"), ("_short_series", "instance_count <= 2")):
            rows = split.where(condition)
            n = rows.count()
            ours = size(f"instance{name}", rows.select("sop_uid", "template_id", "differences"))
            ours += size(f"series{name}", rows.where("elements IS NOT NULL").select("template_id", "series_uid", "elements"))
            found.append(
                line(f"headers_bytes_per_instance{name}", ours / n, whole_size / frame.count(), "one JSON per instance, Delta", "bytes", n)
            )
    finally:
        shutil.rmtree(place)
    return found


if __name__ == "__main__":
    main()
