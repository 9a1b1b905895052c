"""A made-up archive for benchmarks: series of several vendors' shapes, with lengths and differences like real ones, written fast.

Every header starts from one that pydicom ships (a CT of 261 elements with GE's private blocks, an MR), in explicit or implicit VR, with or
without sequences of undefined length and private blocks of other vendors. Within a series at least 14 elements differ from instance to
instance, several of them in length. A quarter of the series have one or two images, the median is 30, one in twenty has over 300.
Same seed, same bytes.
"""

import random
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

_LONG = {"OB", "OW", "UN", "SQ", "UT"}
_PIXELS = {"CT": 32_000, "MR": 6_000}
LARGE = 500_000


@dataclass
class Device:
    """One scanner's way of writing headers: each element encoded, by tag."""

    modality: str
    implicit: bool
    elements: dict[int, bytes]

    def encode(self, tag: int, vr: str, value: bytes) -> bytes:
        """An element's bytes."""
        value += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(value) % 2)
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if self.implicit and tag >> 16 != 2:
            return head + struct.pack("<I", len(value)) + value
        if vr in _LONG:
            return head + vr.encode() + struct.pack("<HI", 0, len(value)) + value
        return head + vr.encode() + struct.pack("<H", len(value)) + value


def devices(count: int = 8) -> list[Device]:
    """Scanners, half of them CT."""
    made = []
    for number in range(count):
        modality = ("CT", "MR")[number % 2]
        path = get_testdata_file("CT_small.dcm" if modality == "CT" else "MR_small.dcm")
        source = pydicom.dcmread(path)
        del source.PixelData
        if "DataSetTrailingPadding" in source:
            del source.DataSetTrailingPadding
        source.Manufacturer = f"Maker {number % 3}"
        source.StationName = f"SCANNER{number}"
        source.SoftwareVersions = f"v{number}.1"
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3.4"
        source.ReferencedImageSequence = Sequence([item])
        source["ReferencedImageSequence"].is_undefined_length = number % 4 < 2
        block = source.private_block(0x0029, f"MAKER {number % 3} HEADER", create=True)
        block.add_new(0x10, "OB", bytes(range(200)) * 2)
        block.add_new(0x11, "LO", "software x")
        block.add_new(0x12, "DS", "1.25")
        implicit = number % 4 == 3
        elements = {}
        for element in source:
            stream = DicomBytesIO()
            stream.is_little_endian, stream.is_implicit_VR = True, implicit
            one = Dataset()
            one[element.tag] = element
            write_dataset(stream, one)
            elements[int(element.tag)] = stream.getvalue()
        made.append(Device(modality, implicit, elements))
    return made


def length(chance: random.Random) -> int:
    """Images in a series."""
    draw = chance.random()
    if draw < 0.25:
        return chance.choice((1, 2))
    if draw < 0.95:
        return round(min(300, max(3, chance.lognormvariate(3.7, 0.9))))
    return chance.randint(301, 500)


def instances(count: int, seed: int = 1, pixels: int | None = None) -> Iterator[tuple[str, bytes]]:
    """(relative path, bytes) of ``count`` instances, series by series; ``pixels``: bytes of pixel data, where not those of the modality."""
    chance = random.Random(seed)
    scanners = devices()
    done = series = 0
    while done < count:
        device = chance.choice(scanners)
        for path, data in _series(device, series, min(length(chance), count - done), chance, pixels):
            done += 1
            yield path, data
        series += 1


def _series(device: Device, series: int, images: int, chance: random.Random, size: int | None) -> Iterator[tuple[str, bytes]]:
    study = f"1.2.826.0.1.3680043.99.{series // 3 + 1}"
    day = f"20{10 + series % 10}{1 + series % 12:02}{1 + series % 28:02}"
    common = dict(device.elements)

    def put(elements: dict[int, bytes], tag: int, vr: str, value: str | bytes) -> None:
        elements[tag] = device.encode(tag, vr, value.encode() if isinstance(value, str) else value)

    syntax = ImplicitVRLittleEndian if device.implicit else ExplicitVRLittleEndian
    put(common, 0x00020010, "UI", syntax)
    put(common, 0x00020002, "UI", f"1.2.840.10008.5.1.4.1.1.{2 if device.modality == 'CT' else 4}")
    put(common, 0x00020012, "UI", "1.2.826.0.1.3680043.99.0")
    put(common, 0x00080020, "DA", day)
    put(common, 0x00080021, "DA", day)
    put(common, 0x00080022, "DA", day)
    put(common, 0x00080050, "SH", f"A{series // 3}")
    put(common, 0x0008103E, "LO", chance.choice(("HEAD", "CHEST 1.25", "T2 AX", "LOCALIZER", "DWI b1000")))
    put(common, 0x00100010, "PN", f"Made^Up{series // 9}")
    put(common, 0x00100020, "LO", f"{series // 9:010}")
    put(common, 0x0020000D, "UI", study)
    put(common, 0x0020000E, "UI", f"{study}.{series}")
    put(common, 0x00200052, "UI", f"{study}.{series}.0")
    x, y = chance.uniform(-200, 0), chance.uniform(-200, 0)
    # Pixels differ from file to file, as a scanner's do.
    pixels = chance.randbytes(size or _PIXELS[device.modality])
    for number in range(1, images + 1):
        elements = dict(common)
        uid = f"{study}.{series}.{number}"
        z = number * 1.25 - 80
        put(elements, 0x00020003, "UI", uid)
        put(elements, 0x00080018, "UI", uid)
        put(elements, 0x00080032, "TM", f"{10 + number // 60 % 8:02}{number % 60:02}{number % 60:02}.{number * 37 % 1000}")
        put(elements, 0x00080033, "TM", f"{10 + number // 60 % 8:02}{number % 60:02}{number % 60:02}")
        put(elements, 0x00181151, "IS", str(200 + number % 90))
        put(elements, 0x00181152, "IS", str(7 + number % 9))
        put(elements, 0x00200012, "IS", str(1 + number // 40))
        put(elements, 0x00200013, "IS", str(number))
        put(elements, 0x00200032, "DS", f"{x:.4f}\\{y:.4f}\\{z:.2f}")
        put(elements, 0x00201041, "DS", f"{z:.2f}")
        put(elements, 0x00280106, "US", struct.pack("<H", number % 50))
        put(elements, 0x00280107, "US", struct.pack("<H", 900 + number % 400))
        put(elements, 0x00281050, "DS", f"{40 + number % 30}")
        put(elements, 0x00281051, "DS", f"{350 + number % 60}")
        put(elements, 0x00291012, "DS", f"{number / 7:.3f}")
        meta = b"".join(data for tag, data in sorted(elements.items()) if tag >> 16 == 2)
        body = b"".join(data for tag, data in sorted(elements.items()) if tag >> 16 != 2)
        stream = BytesIO()
        stream.write(b"\0" * 128 + b"DICM" + device.encode(0x00020000, "UL", struct.pack("<I", len(meta))) + meta + body)
        stream.write(device.encode(0x7FE00010, "OW", pixels[number % 64 :] + pixels[: number % 64]))
        yield f"{day[:4]}/{day[4:6]}/{series}/{number}.dcm", stream.getvalue()


def write(root: Path, count: int, seed: int = 1, pixels: int | None = None) -> list[str]:
    """Write ``count`` instances below ``root``; their paths in order. What is there already is not written again."""
    mark = root / f"made-{count}-{seed}-{pixels}"
    if mark.is_file():
        return [str(root / line) for line in mark.read_text().splitlines()]
    paths = []
    for path, data in instances(count, seed, pixels):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
        paths.append(path)
    mark.write_text("\n".join(paths))
    return [str(root / path) for path in paths]


def write_packed(root: Path, count: int, kind: str, seed: int = 1) -> list[str]:
    """Write ``count`` instances as one deflated zip, or one tar, for every 500 of them; the containers' paths."""
    mark = root / f"made-{count}-{seed}"
    if mark.is_file():
        return mark.read_text().splitlines()
    root.mkdir(parents=True, exist_ok=True)
    found = list(instances(count, seed))
    paths = []
    for start in range(0, count, 500):
        path = root / f"{start:08}.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in found[start : start + 500]:
                    archive.writestr(name, data)
        else:
            with tarfile.open(path, "w") as archive:
                for name, data in found[start : start + 500]:
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    archive.addfile(entry, BytesIO(data))
        paths.append(str(path))
    mark.write_text("\n".join(paths))
    return paths
