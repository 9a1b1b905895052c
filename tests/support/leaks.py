"""Search everything below a folder for identifiers, in every form in which they could hide there.

The scanner shares no code with what it checks. It looks at

- names of files and folders;
- bytes: as they are, without NUL bytes (UTF-16 and UTF-32 become plain text) and without separators (a CHI number written in groups);
- the same inside gzip, zstd (Spark event logs), zip and deflated DICOM;
- Parquet decoded column by column, because dictionary and delta encodings hide text from a byte search: text, dates, numbers; and each
  column's whole dictionary, because a writer may leave in it a value that no row holds any more;
- DICOM decoded element by element, at any depth.

Canaries shorter than ``SHORT``, and those of one letter again and again (a sample file's Sssssss), are looked for as whole words of decoded
values only: in bytes they would occur by chance.
"""

import io
import re
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom

SHORT = 7
_SEPARATORS = str.maketrans("", "", " -./^_:")
_SEPARATOR_BYTES = b" -./^_:\\"
# Keyed hashes, checksums, UUIDs and our own 2.25. UIDs: among 10^5 of them some hold an eight-digit birth date by chance, so numbers are
# not looked for inside one. A number that leaked stands by itself.
_RANDOM = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32,}|2\.25\.[0-9]{20,}")
# The indices of a dictionary-encoded column whose values are nearly all different are the bytes 0, 1, 2 ..., here and there with one index
# again in between. They spell the digits in order, after "-./0": not the patient 12345678 of a sample file.
_INDICES = re.compile(rb".?".join(re.escape(bytes([n])) for n in b"-./0123456789"), re.DOTALL)

# The clock and Spark's meters. In milliseconds since 1970 the last eight digits run through every date of a century within a quarter of an
# hour, once in 28 hours; so do minutes and seconds between 19:00 and 21:00. Only a number that is a time of this run, the time of day
# behind a date, and the value of a meter in Spark's event log are passed over; the date itself, and any other number, are not.
_MILLISECONDS = re.compile(rb"(?<![0-9])[0-9]{13}(?![0-9])")
_METERS = re.compile(
    rb"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[t ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
    rb"|(?P<name>\"(?:value|update|[a-z ]*(?:time|memory))\":)[0-9]+(?=[,}])"
)
_THIS_RUN = 2 * 86_400_000  # ms to either side of now


def _without_clock(data: bytes, now: float) -> bytes:
    """Lower-case bytes without the times and meters that a run itself writes; ``now`` in milliseconds since 1970."""
    plain = _MILLISECONDS.sub(lambda number: b"#" if abs(int(number[0]) - now) < _THIS_RUN else number[0], data)
    return _METERS.sub(lambda found: (found["date"] or found["name"]) + b"#", plain)


@dataclass(frozen=True)
class Hit:
    """Where a canary was found: never a thing to print in full, because the place may name it."""

    place: str
    form: str
    canary: str

    @property
    def shape(self) -> str:
        """The canary with its digits as 9 and its letters as a: what kind of thing was found, without saying it."""
        return re.sub(r"[^\W\d]", "a", re.sub(r"\d", "9", self.canary))


class Scanner:
    """Finds any of many canaries at once."""

    def __init__(self, canaries: set[str]) -> None:
        plain = {canary.strip().lower() for canary in canaries if canary.strip()}
        self.short = {canary for canary in plain if len(canary) < SHORT or len(set(canary)) < 2}
        self.long = plain - self.short
        squeezed = {canary.translate(_SEPARATORS) for canary in self.long}
        # Separators go from numbers only: in text, words that merely stand side by side would join to a name.
        self.numbers = {canary for canary in squeezed if canary.isdigit() and len(canary) >= 8}
        words = self.long - self.numbers
        self.dates = {date.fromisoformat(canary) for canary in plain if re.fullmatch(r"\d{4}-\d\d-\d\d", canary)}
        self._by_prefix = _prefixes({canary.encode() for canary in words} | {canary.encode("latin-1", "ignore") for canary in words})
        self._number_prefix = _prefixes({canary.encode() for canary in self.numbers})

    def scan(self, root: Path) -> list[Hit]:
        """Every hit in and below a folder."""
        hits = []
        for path in sorted(root.rglob("*")):
            place = str(path.relative_to(root))
            hits += [Hit(place, "name", canary) for canary in self.text(place)]
            if path.is_file() and not path.is_symlink():
                hits += self.content(path.read_bytes(), place)
        return hits

    def content(self, data: bytes, place: str) -> list[Hit]:
        """Every hit in a file's bytes, whatever it is."""
        hits = [Hit(place, "bytes", canary) for canary in self.bytes(data)]
        if data[:4] == b"PAR1":
            hits += [Hit(place, f"parquet column {column}", canary) for column, canary in self._parquet(data)]
        elif data[128:132] == b"DICM":
            hits += [Hit(place, f"dicom {keyword}", canary) for keyword, canary in self._dicom(data)]
        for form, inner in _unpacked(data):
            hits += [Hit(place, f"{form}: {hit.form}", hit.canary) for hit in self.content(inner, place)]
        return hits

    def text(self, value: str) -> set[str]:
        """Canaries in a decoded value."""
        lowered = value.lower()
        words = set(re.split(r"[^0-9a-z.^]+", lowered)) | set(re.split(r"[^0-9a-z]+", lowered)) | {lowered.strip()}
        return self.bytes(lowered.encode()) | (self.short & words)

    def bytes(self, data: bytes) -> set[str]:
        """Canaries in raw bytes, case folded."""
        lowered = data.lower()
        found: set[bytes] = set()
        for form in {lowered, lowered.replace(b"\0", b"")}:
            masked = _without_clock(_RANDOM.sub(b"#", _INDICES.sub(b"#", form)), 1000 * time.time())
            found |= _search(form, self._by_prefix) | _search(masked, self._number_prefix)
            found |= _search(masked.translate(None, _SEPARATOR_BYTES), self._number_prefix)
        return {value.decode("utf-8", "replace") for value in found}

    def _parquet(self, data: bytes) -> Iterator[tuple[str, str]]:
        file = pq.ParquetFile(io.BytesIO(data))
        for value in (file.metadata.metadata or {}).values():
            for canary in self.bytes(value):
                yield "(metadata)", canary
        chunks = [file.metadata.row_group(i).column(j) for i in range(file.num_row_groups) for j in range(file.metadata.num_columns)]
        with_dictionary = sorted({c.path_in_schema for c in chunks if c.has_dictionary_page and c.physical_type == "BYTE_ARRAY"})
        table = file.read()
        encoded = pq.ParquetFile(io.BytesIO(data), read_dictionary=with_dictionary).read()
        for name in table.column_names:
            values = set(_scalars(table.column(name).to_pylist()))
            for value in values.union(*(_dictionaries(chunk) for chunk in encoded.column(name).chunks)):
                for canary in self._value(value):
                    yield name, canary

    def _value(self, value: object) -> set[str]:
        if isinstance(value, datetime):
            return {value.date().isoformat()} if value.date() in self.dates else set()
        if isinstance(value, date):
            return {value.isoformat()} if value in self.dates else set()
        if isinstance(value, bytes):
            return self.bytes(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            # A CHI number loses its leading zero when it is stored as a number.
            digits = str(abs(value))
            return {digits.zfill(n) for n in (len(digits), 10)} & (self.numbers | self.long)
        return self.text(str(value)) if value is not None else set()

    def _dicom(self, data: bytes) -> Iterator[tuple[str, str]]:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        for part in (dataset.file_meta, dataset):
            for element in part.iterall():
                if element.VR != "SQ" and element.tag != (0x7FE0, 0x0010):
                    values = element.value if isinstance(element.value, list | pydicom.multival.MultiValue) else [element.value]
                    for value in values:
                        for canary in self._value(value if isinstance(value, bytes) else str(value)):
                            yield element.keyword or str(element.tag), canary


def _dictionaries(array: pa.Array) -> set[object]:
    """Every value of the dictionaries of a column, at any depth, also those that no row refers to."""
    if pa.types.is_dictionary(array.type):
        return set(array.dictionary.to_pylist())
    if pa.types.is_struct(array.type):
        return set().union(*(_dictionaries(array.field(i)) for i in range(array.type.num_fields)))
    if pa.types.is_map(array.type):
        return _dictionaries(array.keys) | _dictionaries(array.items)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return _dictionaries(array.values)
    return set()


def _scalars(values: object) -> Iterator[object]:
    if isinstance(values, dict):
        values = [*values.keys(), *values.values()]
    if isinstance(values, list | tuple):
        for value in values:
            yield from _scalars(value)
    else:
        yield values


def _unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    if data[:2] == b"\x1f\x8b":
        inflater = zlib.decompressobj(31)
        yield "gzip", inflater.decompress(data)
        if inflater.unused_data:
            yield "gzip, what follows", inflater.unused_data
    elif data[:4] == b"\x28\xb5\x2f\xfd":
        # An event log that is still being written has no end mark: read as far as it goes.
        with pa.input_stream(io.BytesIO(data), compression="zstd") as stream:
            parts = []
            try:
                while part := stream.read(1 << 20):
                    parts.append(part)
            except OSError:
                pass
            yield "zstd", b"".join(parts)
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield "zip", name.encode() + b"\n" + archive.read(name)
    elif data[128:132] == b"DICM" and b"1.2.840.10008.1.2.1.99" in data[:1024]:
        # Group length (0002,0000), explicit VR UL: its value ends where the counted group begins, at byte 144.
        start = 144 + int.from_bytes(data[140:144], "little")
        yield "deflated", zlib.decompressobj(-15).decompress(data[start:])


_PREFIX = SHORT


def _prefixes(canaries: set[bytes]) -> tuple[np.ndarray, dict[bytes, list[bytes]]]:
    """Sorted integers of the canaries' first bytes, and the canaries by those bytes."""
    by_prefix: dict[bytes, list[bytes]] = {}
    for canary in canaries:
        if len(canary) >= _PREFIX:
            by_prefix.setdefault(canary[:_PREFIX], []).append(canary)
    keys = np.array(sorted(int.from_bytes(prefix, "little") for prefix in by_prefix), dtype=np.uint64)
    return keys, by_prefix


def _search(data: bytes, index: tuple[np.ndarray, dict[bytes, list[bytes]]]) -> set[bytes]:
    keys, by_prefix = index
    found: set[bytes] = set()
    block = 1 << 22
    for start in range(0, len(data), block):
        part = np.frombuffer(data, dtype=np.uint8, offset=start, count=min(block + _PREFIX, len(data) - start)).astype(np.uint64)
        if len(part) < _PREFIX or not len(keys):
            continue
        n = len(part) - _PREFIX + 1
        windows = np.zeros(n, dtype=np.uint64)
        for k in range(_PREFIX):
            windows |= part[k : k + n] << np.uint64(8 * k)
        at = np.searchsorted(keys, windows)
        candidates = np.flatnonzero(keys[np.minimum(at, len(keys) - 1)] == windows)
        for position in candidates:
            here = start + int(position)
            found.update(c for c in by_prefix[data[here : here + _PREFIX]] if data.startswith(c, here))
    return found
