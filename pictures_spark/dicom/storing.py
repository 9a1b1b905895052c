"""Headers as they travel: typed columns, and what each header has of its own beside a base that many share. A chunk of headers at a time.

Pure: headers in, Arrow arrays out. Runs on executors. Headers of one structure have its constants as their base, and their slots' values as
their own lines (see :mod:`pictures_spark.dicom.templates`); values are converted slot by slot, for all headers of the chunk at once. A
header without a structure is its own base.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pictures_spark.dicom.scan import promoted
from pictures_spark.dicom.structures import Header, Layout, Structure, arrays_of
from pictures_spark.dicom.templates import as_lines, split, template_id
from pictures_spark.dicom.values import Pieces, joined
from pictures_spark.schema import table

if TYPE_CHECKING:
    from pyspark.sql.types import StructType

# The columns whose values headers of one series share.
SERIES = ("study_uid", "series_uid", "modality")
# Key of the base; lines of its own; and, on the first row of each base and series that a task meets, the base's lines.
LINES = ("base_id", "lines", "base")
# The whole header as packed JSON, for those who ask for it.
TEXT = "header"


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

    return pa.string() if name == TEXT else to_arrow_schema(spark_type()).field(name).type


class Storing:
    """One task's way of making columns of headers; it knows which bases it has given already."""

    def __init__(self) -> None:
        self._given: set[Any] = set()
        self._constants: dict[Structure, dict[str, pa.Scalar]] = {}

    @property
    def typed_names(self) -> frozenset[str]:
        """The columns that do not depend on other headers."""
        return frozenset(names()) - {*LINES} | {TEXT}

    def columns(self, headers: Sequence[Header], wanted: Iterable[str] | None = None) -> tuple[list[int], dict[str, pa.Array]]:
        """Which of the headers each row is, and the wanted columns, each as long as there are headers.

        Rows of one structure come together. Without any of `LINES` or `TEXT` among the wanted columns, no JSON is made.
        """
        chosen = names() if wanted is None else tuple(wanted)
        groups: dict[Structure | None, list[int]] = {}
        for index, header in enumerate(headers):
            groups.setdefault(header.structure, []).append(index)
        members = {structure: [headers[index] for index in indices] for structure, indices in groups.items()}
        values = _values({structure: of for structure, of in members.items() if structure is not None}, chosen)
        pieces = [
            self._one_by_one(of, chosen) if structure is None else self._alike(structure, of, chosen, values[structure])
            for structure, of in members.items()
        ]
        if not pieces:
            return [], {name: pa.array([], _arrow_type(name)) for name in chosen}
        order = [index for indices in groups.values() for index in indices]
        return order, {name: pa.concat_arrays([piece[name] for piece in pieces]) for name in chosen}

    def _one_by_one(self, headers: list[Header], chosen: tuple[str, ...]) -> dict[str, pa.Array]:
        """Rows of headers that were read by ``scan``."""
        rows = []
        for header in headers:
            row = header.columns | {"has_pixels": header.has_pixels}
            if TEXT in chosen:
                row[TEXT] = header.text
            if not set(LINES).isdisjoint(chosen):
                base = "\n".join(as_lines(header.text))
                row |= {"base_id": hashlib.sha256(base.encode()).hexdigest(), "lines": "", "base": base}
            rows.append(row)
        return {name: pa.array([row[name] for row in rows], _arrow_type(name)) for name in chosen}

    def _alike(self, structure: Structure, headers: list[Header], chosen: tuple[str, ...], values: "_Values") -> dict[str, pa.Array]:
        """Rows of headers of one structure, of whose slots ``values`` are known."""
        count = len(headers)
        with_lines, needed = _needed(chosen)
        found = {
            column.name: array
            for place, (_, typed) in values.items()
            for column, array in zip(structure.slots[place].columns, typed, strict=True)
        }
        members = [pieces for pieces, _ in values.values()]
        for name in structure.paired:
            if name in needed:
                primary = found.get(name, pa.nulls(count, _arrow_type(name)))
                missing = np.flatnonzero(pc.is_null(primary).to_numpy(zero_copy_only=False)) if primary.null_count else ()
                if len(missing):
                    pairs = pa.array([structure.pair(name, headers[at].raws) for at in missing], _arrow_type(name))
                    primary = pc.replace_with_mask(primary, pc.is_null(primary), pairs) if len(missing) < count else pairs
                found[name] = primary
        made = {}
        for name in chosen:
            if name in found:
                made[name] = found[name].cast(_arrow_type(name))
            elif name == "has_pixels":
                made[name] = pa.repeat(True, count)
            elif name == TEXT:
                last = structure.between[-1]
                before = zip(structure.between, members, strict=False)
                made[name] = joined([*itertools.chain.from_iterable([text, *pieces] for text, pieces in before), last], count)
            elif name not in LINES:
                made[name] = _repeated(self._constant(structure, name), count)
        if with_lines:
            made["base_id"] = pa.repeat(structure.base_id, count)
            lines = itertools.chain.from_iterable(["\n", *pieces] if place else pieces for place, pieces in enumerate(members))
            made["lines"] = joined([*lines], count)
            made["base"] = self._bases(structure, [found.get(name, self._constant(structure, name)) for name in SERIES], count)
        return made

    def _constant(self, structure: Structure, name: str) -> pa.Scalar:
        constants = self._constants.setdefault(structure, {})
        if name not in constants:
            constants[name] = pa.scalar(structure.columns[name], _arrow_type(name))
        return constants[name]

    def _bases(self, structure: Structure, series: list[pa.Array | pa.Scalar], count: int) -> pa.StringArray:
        """The base's lines for the first header of each series for which this task has not given them before."""
        keys = joined([part for value in series for part in (pc.fill_null(value, "\0"), "\n")], count).dictionary_encode()
        bases: list[str | None] = [None] * count
        _, firsts = np.unique(keys.indices.to_numpy(), return_index=True)
        for first, key in zip(sorted(firsts.tolist()), keys.dictionary.to_pylist(), strict=True):
            if (structure.base_id, key) not in self._given:
                self._given.add((structure.base_id, key))
                bases[first] = structure.constants
        return pa.array(bases, pa.string())


# By place among a structure's slots: the values' members in pieces, and their typed columns.
_Values = dict[int, tuple[Pieces, list[pa.Array]]]


def _needed(chosen: tuple[str, ...]) -> tuple[bool, set[str]]:
    """Whether lines are wanted, and the columns that have to be made."""
    with_lines = not set(LINES).isdisjoint(chosen)
    return with_lines, {*chosen, *SERIES} if with_lines else {*chosen}


def _values(groups: dict[Structure, list[Header]], chosen: tuple[str, ...]) -> dict[Structure, _Values]:
    """Values of the slots that the chosen columns need; those of one element are converted together, whatever structure they are of."""
    with_lines, needed = _needed(chosen)
    parts: dict[tuple[str, str], list[tuple[Structure, int, pa.BinaryArray]]] = {}
    for structure, headers in groups.items():
        raws, count = _raws(headers), len(headers)
        for place, slot in enumerate(structure.slots):
            if with_lines or TEXT in needed or any(column.name in needed for column in slot.columns):
                parts.setdefault((slot.tag, slot.vr), []).append((structure, place, raws.slice(place * count, count)))
    found: dict[Structure, _Values] = {structure: {} for structure in groups}
    for same in parts.values():
        arrays = arrays_of([structure.slots[place] for structure, place, _ in same], [raws for _, _, raws in same])
        for (structure, place, _), values in zip(same, arrays, strict=True):
            found[structure][place] = values
    return {structure: dict(sorted(values.items())) for structure, values in found.items()}


def _repeated(value: pa.Scalar, count: int) -> pa.Array:
    """``pa.repeat``, which takes long for lists."""
    if not pa.types.is_list(value.type) or not value.is_valid:
        return pa.repeat(value, count)
    length = len(value)
    values = value.values.take(pa.array(np.tile(np.arange(length, dtype=np.int32), count)))
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * length), values).cast(value.type)


def _raws(headers: list[Header]) -> pa.BinaryArray:
    """The slots' values of headers of one structure: those of the first slot, one for each header, then those of the second."""
    numbers: dict[Layout, int] = {}
    which = [numbers.setdefault(cast("Layout", header.layout), len(numbers)) for header in headers]
    lengths = np.array([layout.lengths for layout in numbers], dtype=np.int32)[which]
    offsets = pa.py_buffer(np.concatenate((np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32))))
    data = pa.py_buffer(b"".join([header.slots for header in headers]))
    by_header = pa.Array.from_buffers(pa.binary(), lengths.size, [None, offsets, data])
    return by_header.take(pa.array(np.arange(lengths.size, dtype=np.int32).reshape(lengths.shape).T.ravel()))


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
