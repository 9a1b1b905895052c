"""Headers as they travel: typed columns, and what each header has of its own beside a base that many share. A chunk of headers at a time.

Pure: headers in, Arrow arrays out. Runs on executors. Headers of one structure have its constants as their base, and their slots' values as
their own lines (see :mod:`pictures_spark.dicom.templates`); values are converted slot by slot, for all headers of the chunk at once. A
header without a structure is its own base.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pictures_spark.dicom.scan import promoted
from pictures_spark.dicom.structures import Header, Structure
from pictures_spark.dicom.templates import as_lines, split, template_id
from pictures_spark.schema import table

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

# The columns whose values headers of one series share.
SERIES = ("study_uid", "series_uid", "modality")
# Key of the base; lines of its own; and, on the first row of each base and series that a task meets, the base's lines.
LINES = ("base_id", "lines", "base")


@cache
def names() -> tuple[str, ...]:
    """The columns of a header that `Storing` gives where no others are asked for."""
    return (*(column.name for column in promoted()), "has_pixels", *LINES)


@cache
def spark_type() -> "StructType":
    """Types of `names`."""
    from pyspark.sql.types import BooleanType, StringType, StructField, StructType

    declared = table("identifiable", "header_instance").spark_type()
    typed = [StructField(column.name, declared[column.name].dataType) for column in promoted()]
    return StructType([*typed, StructField("has_pixels", BooleanType()), *(StructField(name, StringType()) for name in LINES)])


@cache
def _arrow_type(name: str) -> pa.DataType:
    from pyspark.sql.pandas.types import to_arrow_schema

    return to_arrow_schema(spark_type()).field(name).type


class Storing:
    """One task's way of making columns of headers; it knows which bases it has given already."""

    def __init__(self) -> None:
        self._given: set[Any] = set()
        self._constants: dict[Structure, dict[str, pa.Scalar]] = {}

    @property
    def typed_names(self) -> frozenset[str]:
        """The columns that need no JSON."""
        return frozenset(names()) - {*LINES}

    def columns(self, headers: Sequence[Header], wanted: Iterable[str] | None = None) -> tuple[list[int], dict[str, pa.Array]]:
        """Which of the headers each row is, and the wanted columns, each as long as there are headers.

        Rows of one structure come together. Without any of `LINES` among the wanted columns, no JSON is made.
        """
        chosen = names() if wanted is None else tuple(wanted)
        groups: dict[Structure | None, list[int]] = {}
        for index, header in enumerate(headers):
            groups.setdefault(header.structure, []).append(index)
        pieces = []
        for structure, indices in groups.items():
            members = [headers[index] for index in indices]
            pieces.append(self._one_by_one(members, chosen) if structure is None else self._alike(structure, members, chosen))
        if not pieces:
            return [], {name: pa.array([], _arrow_type(name)) for name in chosen}
        order = [index for indices in groups.values() for index in indices]
        return order, {name: pa.concat_arrays([piece[name] for piece in pieces]) for name in chosen}

    def _one_by_one(self, headers: list[Header], chosen: tuple[str, ...]) -> dict[str, pa.Array]:
        """Rows of headers that were read by ``scan``."""
        rows = []
        for header in headers:
            row = header.columns | {"has_pixels": header.has_pixels}
            if not set(LINES).isdisjoint(chosen):
                base = "\n".join(as_lines(header.text))
                row |= {"base_id": hashlib.sha256(base.encode()).hexdigest(), "lines": "", "base": base}
            rows.append(row)
        return {name: pa.array([row[name] for row in rows], _arrow_type(name)) for name in chosen}

    def _alike(self, structure: Structure, headers: list[Header], chosen: tuple[str, ...]) -> dict[str, pa.Array]:
        """Rows of headers of one structure."""
        count = len(headers)
        with_lines = not set(LINES).isdisjoint(chosen)
        needed = {*chosen, *SERIES} if with_lines else {*chosen}
        found: dict[str, Sequence[Any]] = {}
        members = []
        raws = list(zip(*(header.raws for header in headers), strict=True))
        for slot, values in zip(structure.slots, raws, strict=True):
            if with_lines or any(column.name in needed for column in slot.columns):
                own, *typed = slot.values(values)
                members.append(own)
                found.update(zip((column.name for column in slot.columns), typed, strict=True))
        for name in structure.paired:
            if name in needed:
                primary = found.get(name, [None] * count)
                found[name] = [
                    structure.pair(name, header.raws) if value is None else value for value, header in zip(primary, headers, strict=True)
                ]
        made = {}
        for name in chosen:
            if name in found:
                made[name] = pa.array(found[name], _arrow_type(name))
            elif name == "has_pixels":
                made[name] = pa.repeat(True, count)
            elif name not in LINES:
                made[name] = pa.repeat(self._constant(structure, name), count)
        if with_lines:
            series = zip(*(found.get(name, [structure.columns[name]] * count) for name in SERIES), strict=True)
            made["base_id"] = pa.repeat(structure.base_id, count)
            made["lines"] = pa.array(map(b"\n".join, zip(*members, strict=True)) if members else [b""] * count, pa.binary()).cast(
                pa.string()
            )
            made["base"] = pa.array([self._base(structure, key) for key in series], pa.string())
        return made

    def _constant(self, structure: Structure, name: str) -> pa.Scalar:
        constants = self._constants.setdefault(structure, {})
        if name not in constants:
            constants[name] = pa.scalar(structure.columns[name], _arrow_type(name))
        return constants[name]

    def _base(self, structure: Structure, series: tuple[Any, ...]) -> str | None:
        """The base's lines where this task has not given them for this series before."""
        key = (structure.base_id, series)
        if key in self._given:
            return None
        self._given.add(key)
        return structure.constants


def split_type() -> "StructType":
    """Rows of `split_series`: of header_instance, with the template's own columns on the first row of each template."""
    from pyspark.sql.types import LongType, StringType, StructField, StructType

    fields = [StructField(f.name, f.dataType) for f in table("identifiable", "header_instance").spark_type().fields]
    return StructType([*fields, StructField("elements", StringType()), StructField("instance_count", LongType())])


def split_series(names: list[str]) -> Callable[[pa.Table], pa.Table]:
    """What executors run over the instances of one series and the bases that they were read by (rows with ``base``): rows of ``names``.

    ``template_id``, ``differences``; on the first row ``elements``, which all instances share; ``instance_count``. An instance without a
    ``base_id`` has all of its lines for itself. The outcome does not depend on how the files were cut into tasks: what the instances share
    is found anew.
    """

    def convert(group: pa.Table) -> pa.Table:
        is_base = pc.is_valid(group["base"])
        bases: dict[str | None, str] = {None: ""}
        bases |= {row["base_id"]: row["base"] for row in group.filter(is_base).select(["base_id", "base"]).to_pylist()}
        group = group.filter(pc.invert(is_base)).sort_by([("sop_uid", "ascending"), ("content_sha256", "ascending")])
        count = group.num_rows
        identity, common, differences = "", "", list[str]()
        if count:
            common, differences = split(list(zip(group["base_id"].to_pylist(), group["lines"].to_pylist(), strict=True)), bases)
            identity = template_id(group["series_uid"][0].as_py(), common)
        added = {
            "template_id": pa.array([identity] * count, pa.string()),
            "differences": pa.array(differences, pa.string()),
            "elements": pa.array([common, *[None] * (count - 1)][:count], pa.string()),
            "instance_count": pa.array([count] * count, pa.int64()),
        }
        return pa.table({name: added[name] if name in added else group[name] for name in names})

    return convert
