"""Headers that nobody would write, made of real ones: each is named by a seed and a number, and can be made again from these.

As a script, the child of tests/dicom/test_fuzz.py: reads a range of them by `scan` and by one `Headers`, under limits on time and memory,
and prints what it met as JSON.
"""

import io
import json
import random
import re
import resource
import signal
import struct
import sys
import time
import warnings
import zlib
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

import pydicom
from pydicom.filereader import ENCODED_VR
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

SAMPLES = sorted(path for path in (Path(pydicom.__file__).parent / "data").rglob("*") if path.is_file() and ".py" not in path.suffix)
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
REASONS = {"not_dicom", "truncated", "bad_syntax", "missing_uid", "too_large", "unreadable"}
# Mutants that one `Headers` reads, after some headers as they were written.
CHUNK = 1000
HANG_SECONDS = 5
# Of a file, what is mutated: its header and the first bytes of its pixel data.
_LONGEST = 20_000
_LENGTHS = [0, 1, 2, 7, 8, 12, 0xFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFE, 0xFFFFFFFF]
_VRS = sorted(ENCODED_VR) + [b"ZZ", b"\0\0", b"zz", b"OX"]
_LONG = b"OBODOFOLOVOWSQSVUCUNURUTUV"
_MARKS = [b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xff\xfe\xe0\x00", b"\xff\xfe\xe0\xdd", b"\xe0\x7f\x10\x00"]


@cache
def corpus():
    """Headers as they were written: every DICOM file that pydicom ships, each in every transfer syntax that it can be written in."""
    found = []
    for path in SAMPLES:
        data = path.read_bytes()
        if data[128:132] != b"DICM" and not path.name.endswith(".dcm"):
            continue
        found.append(data[:_LONGEST])
        for syntax in SYNTAXES:
            with suppress(Exception):
                found.append(_rewritten(data, syntax)[:_LONGEST])
    return sorted({data for data in found if len(data) > 140})


def _rewritten(data, syntax):
    data_set = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.remove_private_tags() if syntax == ExplicitVRBigEndian else None
    buffer = io.BytesIO()
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    pydicom.dcmwrite(buffer, data_set, implicit_vr=implicit, little_endian=little, force_encoding=True)
    if syntax != DeflatedExplicitVRLittleEndian:
        buffer.write(
            struct.pack("<HH" if little else ">HH", 0x7FE0, 0x10) + (b"OW\0\0" if not implicit else b"") + b"\x08\0\0\0" + bytes(8)
        )
    return buffer.getvalue()


@cache
def series():
    """Headers of devices whose structure is soon learned."""
    from archive import instances

    return [data[:_LONGEST] for _, data in instances(60, seed=9)]


def mutant(seed, number):
    """One mutant."""
    chance = random.Random(f"{seed}/{number}")
    pool = series() if chance.random() < 0.4 else corpus()
    data = chance.choice(pool)
    where = data.find(b"1.2.840.10008.1.2.1.99")
    if 0 <= where < 400 and chance.random() < 0.7:
        with suppress(zlib.error):
            return _within_deflated(data, chance)
    return mutated(bytearray(data), chance, pool)


def _within_deflated(data, chance):
    """A deflated file changed before it was deflated."""
    start = 144 + struct.unpack("<L", data[140:144])[0]
    inner = bytearray(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], 1 << 16))
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return data[:start] + deflate.compress(mutated(inner, chance, [data], first=0)) + deflate.flush()


def mutated(data, chance, pool, first=128):
    """Change bytes in one to four ways."""
    for _ in range(chance.choice([1, 1, 1, 2, 3, 4])):
        if len(data) <= first + 8:
            break
        _CHANGES[chance.randrange(len(_CHANGES))](data, chance, pool, first)
    return bytes(data)


def _flip(data, chance, pool, first):
    for _ in range(chance.choice([1, 1, 2, 8, 40])):
        data[chance.randrange(first, len(data))] ^= 1 << chance.randrange(8)


def _byte(data, chance, pool, first):
    data[chance.randrange(first, len(data))] = chance.choice([0, 0x20, 0x5C, 0x1B, 0x41, 0x7F, 0xFE, 0xFF, chance.randrange(256)])


def _cut(data, chance, pool, first):
    del data[chance.randrange(0 if chance.random() < 0.1 else first, len(data)) :]


def _vr_places(data, first):
    return [
        match.start() for match in re.finditer(rb"(?=[A-Z]{2})", data[first:]) if bytes(data[first + match.start() :][:2]) in ENCODED_VR
    ]


def _length(data, chance, pool, first):
    order = chance.choice("<<<>")
    places = _vr_places(data, first)
    if places and chance.random() < 0.8:
        place = first + chance.choice(places)
        wide = bytes(data[place : place + 2]) in [_LONG[i : i + 2] for i in range(0, len(_LONG), 2)]
        at, code = (place + 4, "L") if wide else (place + 2, "H")
    else:
        at, code = chance.randrange(first, len(data) - 4) & ~1, chance.choice("HL")
    size = struct.calcsize(f"<{code}")
    if at + size > len(data):
        return
    (old,) = struct.unpack_from(f"{order}{code}", data, at)
    new = chance.choice([*_LENGTHS, old + 1, old - 1, old + 2, 2 * old, old // 2, len(data), len(data) - at, chance.getrandbits(16)])
    struct.pack_into(f"{order}{code}", data, at, new % (1 << 8 * size))


def _vr(data, chance, pool, first):
    places = _vr_places(data, first)
    if places:
        place = first + chance.choice(places)
        data[place : place + 2] = chance.choice(_VRS)


def _tag(data, chance, pool, first):
    places = _vr_places(data, first)
    if places:
        place = first + chance.choice(places)
        if place >= 4:
            number = chance.choice(
                [0, 0x00080005, 0x00080018, 0x00020010, 0x52009230, 0x00280103, 0xFFFEE00D, 0xFFFEE0DD, chance.getrandbits(32)]
            )
            struct.pack_into("<HH", data, place - 4, number >> 16, number & 0xFFFF)


def _splice(data, chance, pool, first):
    other = chance.choice(pool)
    start = chance.randrange(first, len(other)) if len(other) > first else 0
    at = chance.randrange(first, len(data))
    piece = other[start : start + chance.choice([4, 16, 100, 1000, _LONGEST])]
    data[at : at + chance.choice([0, len(piece), 50])] = piece
    del data[2 * _LONGEST :]


def _repeat(data, chance, pool, first):
    at = chance.randrange(first, len(data))
    piece = data[at : at + chance.choice([8, 30, 200])]
    data[at:at] = piece * chance.choice([1, 2, 50])


def _drop(data, chance, pool, first):
    at = chance.randrange(first, len(data))
    del data[at : at + chance.choice([1, 2, 4, 8, 100])]


def _mark(data, chance, pool, first):
    at = chance.randrange(first, len(data))
    data[at : at + chance.choice([0, 4])] = chance.choice(_MARKS)


_CHANGES = [_flip, _flip, _byte, _cut, _length, _length, _vr, _tag, _splice, _repeat, _drop, _mark]


class Hang(BaseException):
    """More than `HANG_SECONDS` of processor time; no `Exception`, so that no handler takes it for a broken header."""


def said(read, data):
    """Everything that a reader says of bytes, or the reason why not."""
    from pictures_spark.dicom.scan import ScanError

    try:
        header = read(data)
        return header.kind, header.text, header.columns, header.has_pixels
    except ScanError as error:
        return error.reason


def check(seed, numbers):
    """Read mutants; the counts of outcomes, and (number, what is wrong) of those that break a promise."""
    from pictures_spark.dicom.scan import scan
    from pictures_spark.dicom.structures import Headers

    def hang(*_):
        raise Hang

    signal.signal(signal.SIGPROF, hang)
    counts, faults, slowest = Counter(), [], 0.0
    headers = Headers()
    for data in series():
        headers.read(data)
    for number in numbers:
        data = mutant(seed, number)
        signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS)
        before = time.process_time()
        try:
            one = said(scan, data)
            took = time.process_time() - before
            two = said(headers.read, data)
            slowest = max(slowest, took)
            counts[one if isinstance(one, str) else one[0]] += 1
            if isinstance(one, str) and one not in REASONS:
                faults.append((number, f"no declared reason: {one}"))
            if not isinstance(one, str):
                json.loads(one[1])
            if one != two:
                faults.append((number, f"scan and Headers differ: {_short(one)} and {_short(two)}"))
        except Hang:
            faults.append((number, f"takes more than {HANG_SECONDS} s"))
        except Exception as error:  # noqa: BLE001 - this is what is looked for
            faults.append((number, f"raises {type(error).__name__}"))
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return counts, faults, slowest


def _short(outcome):
    return outcome if isinstance(outcome, str) else outcome[0]


def peak_mb():
    """The most memory that this process had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(seed, first, count):
    """The child: mutants first .. first + count - 1, a line for each `CHUNK`."""
    warnings.simplefilter("ignore")
    corpus()
    check(seed, [first])
    before = peak_mb()
    for start in range(first, first + count, CHUNK):
        numbers = range(start, min(start + CHUNK, first + count))
        counts, faults, slowest = check(seed, numbers)
        said = {"from": start, "counts": counts, "faults": faults, "slowest": slowest, "grown_mb": peak_mb() - before}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[2] / "benchmarks")]
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
