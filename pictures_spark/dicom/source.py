"""``spark.read.format("dicom")``: the headers of files, zip and tar archives below a folder, as a table.

    from pictures_spark.dicom.source import DicomSource
    spark.conf.set("spark.sql.python.filterPushdown.enabled", "true")  # our own sessions have it
    spark.dataSource.register(DicomSource)
    series = spark.read.format("dicom").schema("path string, series_uid string, modality string").load("/archive/2015")

The folder may be a store's: ``hdfs://``, ``s3://``, ``s3a://``, with the settings ``remote`` as options (``.option("endpoint", …)``).
Only header bytes are read. A narrower ``.schema`` costs less: without ``header`` no JSON is built. Equality with, and membership in, typed
columns is judged before a row is made. What cannot be read is a row with a ``reason``.
The driver lists the folder and cuts it into partitions of about equal cost; executors open the files, by the same path.
"""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql.datasource import DataSource, DataSourceReader, EqualTo, Filter, In, InputPartition
from pyspark.sql.types import BooleanType, LongType, StringType, StructField, StructType

from pictures_spark.dicom.inventory import Found, check_root, chunks, list_archive, read_files
from pictures_spark.dicom.scan import DEFAULT_MAX_HEADER_BYTES, promoted
from pictures_spark.dicom.storing import Storing
from pictures_spark.dicom.structures import Header, Headers
from pictures_spark.errors import ConfigError
from pictures_spark.roots import Listed, Remote, Root, defaults, root_at
from pictures_spark.schema import table

if TYPE_CHECKING:
    from pyspark.sql.datasource import ColumnPath

_ROWS = 2048
# Opening a file costs about as much as reading this much of it; a container is read through.
_OPEN = 64 << 10
# A partition of so many costs, or as many as make this number of partitions, but not less than a batch of rows is worth.
_PARTITION, _PARTITIONS, _LEAST = 256 << 20, 32, 16 << 20
_CONTAINERS = (".zip", ".tar", ".gz", ".tgz")


@cache
def full_schema() -> StructType:
    """Columns of the source: where an object is, why it could not be read, its typed columns, and its header in the DICOM JSON model."""
    place = [StructField(name, StringType()) for name in ("path", "member")]
    place += [StructField("offset", LongType()), StructField("length", LongType()), StructField("reason", StringType())]
    declared = table("identifiable", "header_instance").spark_type()
    typed = [StructField(column.name, declared[column.name].dataType) for column in promoted()]
    return StructType([*place, *typed, StructField("has_pixels", BooleanType()), StructField("header", StringType())])


class DicomSource(DataSource):
    """The data source; see the module."""

    @classmethod
    def name(cls) -> str:
        """Its short name."""
        return "dicom"

    def schema(self) -> StructType:
        """All columns; see `full_schema`."""
        return full_schema()

    def reader(self, schema: StructType) -> "DicomReader":
        """A reader of the columns asked for.

        Raises
        ------
        ConfigError
            No path, or a column that is not one of `full_schema`, or not of its type.
        """
        path = self.options.get("path")
        if not path:
            raise ConfigError('format "dicom" needs one folder: load("/archive/2015")')
        known = full_schema()
        for field in schema.fields:
            if field.name not in known.fieldNames() or known[field.name].dataType != field.dataType:
                raise ConfigError(f"column {field.name} {field.dataType.simpleString()} is none of format dicom: see full_schema()")
        return DicomReader(root_at(path, _remote(self.options), "load"), schema)


@dataclass
class _Files(InputPartition):
    files: Sequence[Listed]


class DicomReader(DataSourceReader):
    """Lists a folder, and reads the headers of the files in it."""

    def __init__(self, root: Root, schema: StructType) -> None:
        self._root = root
        self._schema = schema
        self._wanted: list[tuple[str, frozenset[Any]]] = []

    def pushFilters(self, filters: list[Filter]) -> Iterable[Filter]:
        """Take equality with and membership in typed columns of the schema; leave the rest to Spark."""
        typed = {column.name for column in promoted() if not column.type.startswith("array")}
        for one in filters:
            name = _column(one.attribute) if isinstance(one, EqualTo | In) else None
            if name in typed and name in self._schema.fieldNames():
                self._wanted.append((str(name), frozenset([one.value] if isinstance(one, EqualTo) else cast("In", one).value)))
            else:
                yield one

    def partitions(self) -> Sequence[InputPartition]:
        """The folder's files, in stretches of about equal cost.

        Raises
        ------
        InputError
            It is not there.
        """
        check_root(self._root)
        parts: list[InputPartition] = []
        cost = 0
        stretch: list[Listed] = []
        files = list_archive(self._root)
        costs = [_OPEN + (listed.file_size if listed.path.lower().endswith(_CONTAINERS) else 0) for listed in files]
        enough = min(_PARTITION, max(_LEAST, sum(costs) // _PARTITIONS))
        for listed, one in zip(files, costs, strict=True):
            stretch.append(listed)
            cost += one
            if cost >= enough:
                parts.append(_Files(stretch))
                cost, stretch = 0, []
        return [*parts, _Files(stretch)] if stretch or not parts else parts

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Rows of a partition, in the files' order."""
        from pyspark.sql.pandas.types import to_arrow_schema

        schema, headers, storing = to_arrow_schema(self._schema), Headers.of_process(DEFAULT_MAX_HEADER_BYTES), Storing()
        gc.freeze()
        files = partition.files if isinstance(partition, _Files) else ()
        found = (pair for pair in read_files(self._root, files, headers, whole=False) if pair[1].status in ("catalogued", "quarantined"))
        for chunk in chunks(found, _ROWS):
            yield self._batch(self._chosen(chunk, storing), schema, storing)

    def _chosen(self, chunk: list[tuple[Listed, Found]], storing: Storing) -> list[tuple[Listed, Found]]:
        """What the filters leave."""
        if not self._wanted:
            return chunk
        columns = _typed(chunk, {name for name, _ in self._wanted}, storing)
        masks = [pc.is_in(columns[name], pa.array(sorted(values - {None}), columns[name].type)) for name, values in self._wanted]
        return [one for one, *keep in zip(chunk, *(mask.to_pylist() for mask in masks), strict=True) if all(keep)]

    def _batch(self, chunk: list[tuple[Listed, Found]], schema: pa.Schema, storing: Storing) -> pa.RecordBatch:
        columns = _typed(chunk, schema.names, storing)
        for name in schema.names:
            if name == "path":
                columns[name] = pa.array([f"{self._root.location}/{file.path}" for file, _ in chunk], pa.string())
            elif name not in columns:
                columns[name] = pa.array([getattr(found, name) for _, found in chunk], schema.field(name).type)
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _typed(chunk: list[tuple[Listed, Found]], names: Iterable[str], storing: Storing) -> dict[str, pa.Array]:
    """Those of ``names`` that come from a header, null where there is none."""
    with_header = [index for index, (_, found) in enumerate(chunk) if found.header is not None]
    order, columns = storing.columns([cast("Header", chunk[i][1].header) for i in with_header], sorted(storing.typed_names & set(names)))
    rows: list[int | None] = [None] * len(chunk)
    for row, index in enumerate(order):
        rows[with_header[index]] = row
    return {name: column.take(pa.array(rows, pa.int32())) for name, column in columns.items()}


def _remote(options: Mapping[str, str]) -> Remote:
    """Settings ``remote`` among the options; Spark does not tell upper from lower case in their names."""
    given = {name: options[name] for name in defaults() if options.get(name) is not None}
    numbers = {name: type(default)(given[name]) for name, default in defaults().items() if name in given and default is not None}
    return cast("Remote", {**given, **numbers})


def _column(path: "ColumnPath") -> str | None:
    return path[0] if len(path) == 1 else None
