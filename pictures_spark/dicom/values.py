"""Raw values to their JSON, for the kinds that need no knowledge of the rest of a header; one at a time, or many at once.

What is given is always what :func:`pictures_spark.dicom.scan.element_json` gives for the value, packed; None where only it can say.
Pure. Runs on executors.
"""

import base64
import hashlib
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from pictures_spark.dicom.scan import finite, finite_or_text, number_or_text, number_strings, rules, time_of_day

TEXT = frozenset(["AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UT"])
NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
BINARY = frozenset(["OB", "OD", "OF", "OL", "OV", "OW"])
# Text that means the same in every character set, and that JSON needs no escapes for.
_PLAIN = bytes(code for code in range(0x20, 0x7F) if code not in b'"\\')
# Decimal strings that are the number's own text: no zero at the end, at most 15 digits, not so small as to need an exponent.
_NUMBER = rb"(?:0|-?[1-9][0-9]{0,14}|-?[1-9][0-9]{0,6}\.(?:0|[0-9]{0,7}[1-9])|-?0\.(?:0|(?!0000)[0-9]{0,13}[1-9]))"
_NUMBERS = re.compile(rb"%b(?:\n%b)*" % (_NUMBER, _NUMBER))
_TIMES = re.compile(rb"[0-9]{6}(?:\.[0-9]*)?(?:\n[0-9]{6}(?:\.[0-9]*)?)*")
# Parts of values that a process remembers.
_PARTS = 1 << 14


class _Memo(dict[bytes, Any]):
    """Results of a function of bytes; those of one series come again and again."""

    def __init__(self, function: Callable[[bytes], Any]) -> None:
        self._function = function

    def __missing__(self, part: bytes) -> Any:
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


def many(vr: str, raws: Sequence[bytes], types: Sequence[str]) -> "tuple[list[bytes], list[list[Any]]] | None":
    """JSON of many values of one VR, and for each of ``types`` (of promoted columns) what the values are in it.

    None where not all of the values are plain, or a type is none that is quickly had: then they are to be taken one by one.
    """
    if vr in TEXT and vr != "AE":
        texts = [raw.rstrip(b" \0") for raw in raws]
        if b"\n".join(texts).translate(None, _PLAIN) != b"\n" * (len(texts) - 1) or max(map(len, texts)) > rules()["bulk_bytes"]:
            return None
        if vr == "UI" and any(text.startswith(b" ") for text in texts):
            return None
        of_text = _OF_TIME if vr == "TM" else _OF_TEXT
        if not of_text.keys() >= set(types):
            return None
        start, end, empty = b'{"Value":["', b'"],"vr":"%b"}' % vr.encode(), b'{"vr":"%b"}' % vr.encode()
        return [start + text + end if text else empty for text in texts], [of_text[type_](texts) for type_ in types]
    if vr in ("DS", "IS") and _OF_NUMBERS.keys() >= set(types):
        texts = [raw.rstrip(b" \0") for raw in raws]
        if max(map(len, texts)) > rules()["bulk_bytes"]:
            return None
        start, end, empty = b'{"Value":[', b'],"vr":"%b"}' % vr.encode(), b'{"vr":"%b"}' % vr.encode()
        if _NUMBERS.fullmatch(b"\n".join(texts)):
            return [start + text + end for text in texts], [_OF_NUMBERS[type_]([[float(text)] for text in texts]) for type_ in types]
        parts = [text.split(b"\\") for text in texts]
        members = [b",".join(map(_JSON.__getitem__, values)) for values in parts]
        numbers = [list(map(_NUMBER_OF.__getitem__, values)) for values in parts] if types else []
        return [start + member + end if member != b"null" else empty for member in members], [
            _OF_NUMBERS[type_](numbers) for type_ in types
        ]
    return None


def _of_number_string(part: bytes) -> int | float | str | None:
    return number_or_text(part.decode("latin-1").strip(" \0\t\r\n"))


_JSON = _Memo(lambda part: orjson.dumps(_of_number_string(part)))
_NUMBER_OF = _Memo(lambda part: finite(_of_number_string(part)))
_TIME_OF_DAY = _Memo(lambda text: time_of_day(text.decode()))


def _strings(texts: list[bytes]) -> list[Any]:
    return [text.strip().decode() or None for text in texts]


def _times(texts: list[bytes]) -> list[Any]:
    if _TIMES.fullmatch(b"\n".join(texts)):
        return [_TIME_OF_DAY[text[:6]] for text in texts]
    return [_TIME_OF_DAY[text] for text in texts]


def _doubles(numbers: list[list[float | None]]) -> list[Any]:
    return [values[0] if len(values) == 1 else None for values in numbers]


def _longs(numbers: list[list[float | None]]) -> list[Any]:
    return [int(x) if x is not None and x.is_integer() and abs(x) < 2**53 else None for x in _doubles(numbers)]


def _arrays(numbers: list[list[float | None]]) -> list[Any]:
    return [None if None in values else values for values in numbers]


_OF_TEXT: dict[str, Callable[[list[bytes]], list[Any]]] = {"string": _strings}
_OF_TIME: dict[str, Callable[[list[bytes]], list[Any]]] = {"string": _times}
_OF_NUMBERS: dict[str, Callable[[list[list[float | None]]], list[Any]]] = {"double": _doubles, "long": _longs, "array<double>": _arrays}
