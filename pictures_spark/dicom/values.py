"""Raw values to their JSON, for the kinds that need no knowledge of the rest of a header; one at a time, or many at once.

What is given is always what :func:`pictures_spark.dicom.scan.element_json` gives for the value, packed; None where only it can say.
Pure. Runs on executors.
"""

import base64
import hashlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pictures_spark.dicom.scan import date_of, finite, finite_or_text, number_or_text, number_strings, rules, time_of_day

TEXT = frozenset(["AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UT"])
NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
BINARY = frozenset(["OB", "OD", "OF", "OL", "OV", "OW"])
# Text that means the same in every character set, and that JSON needs no escapes for.
_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
_TIME = r"^[0-9]{6}(\.[0-9]*)?$"
# Parts of values that a process remembers.
_PARTS = 1 << 14


class _Memo(dict[Any, Any]):
    """Results of a function; those of one series come again and again."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __missing__(self, part: Any) -> Any:
        if len(self) >= _PARTS:
            self.clear()
        result = self[part] = self._function(part)
        return result


def packed(element: dict[str, Any]) -> bytes:
    """An element's JSON as it is stored."""
    return orjson.dumps(element, option=orjson.OPT_SORT_KEYS)


def plain_json(vr: str, raw: bytes) -> bytes | None:
    """JSON of one value."""
    if len(raw) > rules()["bulk_bytes"] and vr != "SQ":
        digest = hashlib.sha256(raw).hexdigest()
        return f'{{"BulkDataURI":"sha256:{digest}?length={len(raw)}","vr":"{vr}"}}'.encode() if vr in BINARY or vr == "UN" else None
    if vr in TEXT or vr == "PN":
        text = raw.rstrip(b" \0")
        if text.translate(None, _PLAIN) or (vr == "PN" and b"=" in text) or (vr == "UI" and text.startswith(b" ")):
            return None
        if vr == "AE":
            text = text.strip()
        if not text:
            return f'{{"vr":"{vr}"}}'.encode()
        if vr == "PN":
            return b'{"Value":[{"Alphabetic":"' + text + b'"}],"vr":"PN"}'
        return b'{"Value":["' + text + b'"],"vr":"' + vr.encode() + b'"}'
    if vr in ("DS", "IS"):
        return packed(number_strings(vr, raw))
    if vr in NUMBERS:
        width = struct.calcsize("=" + NUMBERS[vr])
        if not raw or len(raw) % width:
            return None
        numbers = struct.unpack(f"<{len(raw) // width}{NUMBERS[vr]}", raw)
        return packed({"vr": vr, "Value": [finite_or_text(number) for number in numbers]})
    if (vr in BINARY or vr == "UN") and raw:
        return f'{{"InlineBinary":"{base64.b64encode(raw).decode()}","vr":"{vr}"}}'.encode()
    return None


# The parts of many values' JSON: the same text for all of them, or one for each.
Pieces = list[str | pa.StringArray]


def many(vr: str, raws: pa.BinaryArray, types: Sequence[str]) -> tuple[Pieces, list[pa.Array]] | None:
    """JSON of many values of one VR, in pieces, and for each of ``types`` (of promoted columns) what the values are in it.

    None where not all of the values are plain, or a type is none that is quickly had: then they are to be taken one by one.
    """
    number = vr in ("DS", "IS")
    quick = _OF_NUMBERS if number else _OF_VR.get(vr, _OF_TEXT)
    if not (number or vr == "PN" or vr in TEXT) or vr == "AE" or not quick.keys() >= set(types):
        return None
    texts = pc.ascii_rtrim(_viewed(raws, pa.string()), " \0")
    lengths = pc.binary_length(texts)
    if pc.max(lengths).as_py() > rules()["bulk_bytes"]:
        return None
    empty = f'{{"vr":"{vr}"}}'
    if not number:
        data = _data(texts)
        if data.translate(None, _PLAIN) or (vr == "PN" and b"=" in data) or (vr == "UI" and pc.any(pc.starts_with(texts, " ")).as_py()):
            return None
        start, end = ('{"Value":[{"Alphabetic":"', '"}]') if vr == "PN" else ('{"Value":["', '"]')
        pieces: Pieces = [start, texts, f'{end},"vr":"{vr}"}}']
        if pc.min(lengths).as_py() == 0:
            pieces = [pc.if_else(pc.equal(lengths, 0), empty, joined(pieces, len(texts)))]
        return pieces, [quick[type_](texts) for type_ in types]
    lists = pc.split_pattern(_viewed(texts, pa.binary()), "\\") if b"\\" in _data(texts) else None
    parts = (_viewed(texts, pa.binary()) if lists is None else lists.flatten()).dictionary_encode()
    known = parts.dictionary.to_pylist()
    texts_of = list(map(_JSON.__getitem__, known))
    members = pa.array(texts_of, pa.string()).take(parts.indices)
    if lists is not None:
        members = pc.binary_join(pa.ListArray.from_arrays(lists.offsets, members), ",")
    pieces = ['{"Value":[', members, f'],"vr":"{vr}"}}']
    if b"null" in texts_of:
        pieces = [pc.if_else(pc.equal(members, "null"), empty, joined(pieces, len(texts)))]
    if not types:
        return pieces, []
    numbers = pa.array(list(map(_NUMBER_OF.__getitem__, known)), pa.float64()).take(parts.indices)
    offsets = pa.array(range(len(texts) + 1), pa.int32()) if lists is None else lists.offsets
    return pieces, [quick[type_](pa.ListArray.from_arrays(offsets, numbers)) for type_ in types]


def joined(pieces: Sequence[str | pa.StringScalar | pa.StringArray], count: int) -> pa.StringArray:
    """Texts that were made in pieces, put together; ``count`` is how many there are."""
    merged: list[Any] = []
    for piece in pieces:
        text = piece.as_py() if isinstance(piece, pa.Scalar) else piece
        if isinstance(text, str) and merged and isinstance(merged[-1], str):
            merged[-1] += text
        else:
            merged.append(text)
    if not any(isinstance(piece, pa.Array) for piece in merged):
        return pa.repeat("".join(merged), count)
    return pc.binary_join_element_wise(*merged, "")


def _viewed(texts: pa.Array, type_: pa.DataType) -> pa.Array:
    """The same bytes as another type."""
    return pa.Array.from_buffers(type_, len(texts), texts.buffers(), offset=texts.offset)


def _data(texts: pa.StringArray) -> bytes:
    """All bytes of texts that were just made, one after the other."""
    _, offsets, data = texts.buffers()
    (end,) = struct.unpack_from("<i", offsets, 4 * len(texts))
    return bytes(memoryview(data)[:end]) if end else b""


def _of_number_string(part: bytes) -> int | float | str | None:
    return number_or_text(part.decode("latin-1").strip(" \0\t\r\n"))


_JSON = _Memo(lambda part: orjson.dumps(_of_number_string(part)))
_NUMBER_OF = _Memo(lambda part: finite(_of_number_string(part)))
_TIME_OF_DAY = _Memo(lambda text: time_of_day(text.decode()))
_DATE_OF = _Memo(date_of)


def _strings(texts: pa.StringArray) -> pa.StringArray:
    trimmed = pc.ascii_trim(texts, " ")
    return pc.if_else(pc.equal(pc.binary_length(trimmed), 0), None, trimmed)


def _times(texts: pa.StringArray) -> pa.StringArray:
    # Of most of them, what counts are the first six characters, of which there are far fewer.
    plain = pc.all(pc.match_substring_regex(texts, _TIME)).as_py()
    parts = (pc.binary_slice(_viewed(texts, pa.binary()), 0, 6) if plain else _viewed(texts, pa.binary())).dictionary_encode()
    return pa.array(list(map(_TIME_OF_DAY.__getitem__, parts.dictionary.to_pylist())), pa.string()).take(parts.indices)


def _dates(texts: pa.StringArray) -> pa.Date32Array:
    parts = texts.dictionary_encode()
    return pa.array(list(map(_DATE_OF.__getitem__, parts.dictionary.to_pylist())), pa.date32()).take(parts.indices)


def _doubles(numbers: pa.ListArray) -> pa.DoubleArray:
    lengths = numbers.value_lengths()
    if pc.min_max(lengths) == _ONE_EACH:
        return numbers.flatten()
    # An empty value is a list of one null; a list has one number or more.
    return pc.if_else(pc.equal(lengths, 1), pc.list_element(numbers, 0), None)


def _longs(numbers: pa.ListArray) -> pa.Int64Array:
    doubles = _doubles(numbers)
    whole = pc.and_(pc.equal(pc.floor(doubles), doubles), pc.less(pc.abs(doubles), 2.0**53))
    return pc.cast(pc.if_else(whole, doubles, None), pa.int64())


def _arrays(numbers: pa.ListArray) -> pa.ListArray:
    if not numbers.values.null_count:
        return numbers
    return pa.array([None if None in values else values for values in numbers.to_pylist()], numbers.type)


_ONE_EACH = pa.scalar({"min": 1, "max": 1}, pa.struct([("min", pa.int32()), ("max", pa.int32())]))
_OF_TEXT: dict[str, Callable[[pa.StringArray], pa.Array]] = {"string": _strings}
_OF_VR: dict[str, dict[str, Callable[[pa.StringArray], pa.Array]]] = {"TM": {"string": _times}, "DA": {"date": _dates}}
_OF_NUMBERS: dict[str, Callable[[pa.ListArray], pa.Array]] = {"double": _doubles, "long": _longs, "array<double>": _arrays}
