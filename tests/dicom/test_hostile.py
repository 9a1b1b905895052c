# ruff: noqa: E501
"""What someone could make to stop the catalogue: each is read or refused, in bounded time and memory, measured in a process of its own."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib

import pytest
from bounded import CPU_SECONDS, MB, cost
from dicom_bytes import OPEN, Encoder, written
from houses import CHAOS
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from pictures_spark.dicom.inventory import list_archive, read_file
from pictures_spark.dicom.scan import ScanError, scan
from pictures_spark.dicom.structures import Headers

SEQUENCE, PER_FRAME = 0x00400275, 0x52009230
DEPTH = 1_000_000


def outcome(read, data):
    try:
        return read(data).kind
    except ScanError as error:
        return error.reason


def nested_open(encoder, vr=b"SQ", depth=DEPTH):
    return (encoder.head(SEQUENCE, vr, OPEN) + encoder.mark(0xE000, OPEN)) * depth


def nested_defined(encoder, depth=DEPTH, tag=SEQUENCE, first=None):
    """A sequence in a sequence …, each of a length that is right."""
    step = len(encoder.head(tag, b"SQ", 0)) + 8
    parts = []
    for level in range(depth, 0, -1):
        parts += [
            encoder.head(first if first and level == depth else tag, b"SQ", level * step - step + 8),
            encoder.mark(0xE000, (level - 1) * step),
        ]
    return b"".join(parts)


def many(count, vr, value, group=0x0041, encoder=None):
    """So many private elements, of groups from this one on."""
    encoder = encoder or Encoder()
    numbers = range(0x1000, 0xFFFF)
    tags = ((group + 2 * block) << 16 | number for block in range(count // len(numbers) + 1) for number in numbers)
    return b"".join(encoder.element(tag, vr, value) for _, tag in zip(range(count), tags, strict=False))


def with_set(names, *elements):
    """A header under a Specific Character Set."""
    encoder = Encoder(ImplicitVRLittleEndian)
    uids = ((0x00080018, b"1.2.3\0"), (0x0020000D, b"1.2.4\0"), (0x0020000E, b"1.2.5\0"))
    head = encoder.element(0x00080005, b"CS", names)
    return (
        written(Dataset(), ImplicitVRLittleEndian)
        + head
        + b"".join(encoder.element(tag, b"UI", uid) for tag, uid in uids)
        + b"".join(elements)
    )


def bomb(gigabytes):
    """A deflated data set of one value of zeros: a block of deflate that stands alone, many times."""
    encoder = Encoder()
    whole = written(Dataset(), DeflatedExplicitVRLittleEndian)
    start = 144 + struct.unpack("<L", whole[140:144])[0]
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = deflate.compress(encoder.start()[-60:] + encoder.head(0x00420011, b"OB", 0xFFFFFFF0)) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return whole[:start] + head + block * (gigabytes << 10)


EXPLICIT, IMPLICIT, BIG = Encoder(ExplicitVRLittleEndian), Encoder(ImplicitVRLittleEndian), Encoder(ExplicitVRBigEndian)


def text(vr, value, count=1, encoder=IMPLICIT):
    """Private creators and elements whose VR a public dictionary tells, so that their value may be long in implicit VR too."""
    return b"".join(encoder.element(tag, vr, value) for tag in TAGS[vr][:count])


TAGS = {
    b"PN": [0x00401010, 0x00404037, 0x0040A075, 0x0040A123, 0x0072006A, 0x300E0008],
    b"LO": [0x00401001, 0x00401005, 0x00401102, 0x00402010, 0x0040A390, 0x00540016],
    b"DS": [0x00201041, 0x00280030, 0x00281050, 0x00281051, 0x00281052, 0x00281053, 0x300A0050, 0x30060050],
    b"US": [0x00280106, 0x00280107, 0x00281101, 0x00281102, 0x00281103],
    b"AT": [0x00280009, 0x00720026, 0x00720050],
}

# what: (how the header is made, what may come of it)
HEADERS = {
    "10^6 deep, undefined, explicit": (lambda: EXPLICIT.start() + nested_open(EXPLICIT), "bad_syntax"),
    "10^6 deep, undefined, implicit": (lambda: IMPLICIT.start() + nested_open(IMPLICIT), "bad_syntax"),
    "10^6 deep, undefined, big endian": (lambda: BIG.start() + nested_open(BIG), "bad_syntax"),
    "10^6 deep, undefined, in UN": (lambda: EXPLICIT.start() + nested_open(EXPLICIT, b"UN"), "bad_syntax"),
    "10^6 deep, undefined, implicit in UN": (
        lambda: EXPLICIT.start() + EXPLICIT.head(0x00411001, b"UN", OPEN) + IMPLICIT.mark(0xE000, OPEN) + nested_open(IMPLICIT),
        "bad_syntax",
    ),
    "10^6 deep, defined, explicit": (lambda: EXPLICIT.start() + nested_defined(EXPLICIT), "dicom"),
    "10^6 deep, defined, implicit": (lambda: IMPLICIT.start() + nested_defined(IMPLICIT), "dicom"),
    "10^6 deep, defined, in functional groups": (lambda: EXPLICIT.start() + nested_defined(EXPLICIT, first=PER_FRAME), "dicom"),
    "10^6 deep, defined, in UN": (lambda: EXPLICIT.start() + EXPLICIT.element(0x00411001, b"UN", nested_defined(IMPLICIT)), "dicom"),
    "10,000 deep, defined": (lambda: EXPLICIT.start() + nested_defined(EXPLICIT, 10_000), "bad_syntax"),
    "10,000 deep, defined, implicit in UN": (
        lambda: EXPLICIT.start() + EXPLICIT.element(SEQUENCE, b"UN", nested_defined(IMPLICIT, 10_000)[8:]), "bad_syntax",
    ),
    "10,000 deep, undefined in defined": (
        lambda: EXPLICIT.start() + EXPLICIT.element(SEQUENCE, b"SQ", EXPLICIT.mark(0xE000, 200_000) + nested_open(EXPLICIT, depth=10_000)),
        "bad_syntax",
    ),
    "10^6 elements": (lambda: EXPLICIT.start() + many(DEPTH, b"US", b"\1\0"), "too_large"),
    "10^6 empty elements": (lambda: EXPLICIT.start() + many(DEPTH, b"UN", b""), "too_large"),
    "60,000 elements": (lambda: EXPLICIT.start() + many(60_000, b"US", b"\1\0"), "dicom"),
    "10^6 times one element": (lambda: EXPLICIT.start() + EXPLICIT.element(0x00411001, b"LO", b"x ") * DEPTH, "too_large"),
    "10^6 group lengths": (lambda: EXPLICIT.start() + EXPLICIT.element(0x00410000, b"UL", bytes(4)) * DEPTH, "too_large"),
    "10^6 elements in items": (
        lambda: EXPLICIT.start() + b"".join(EXPLICIT.sequence(0x00411000 + n << 0, [EXPLICIT.item(many(25_000, b"US", b"\1\0"))]) for n in range(40)),
        "too_large",
    ),
    "items without end": (lambda: EXPLICIT.start() + EXPLICIT.head(SEQUENCE, b"SQ", OPEN) + EXPLICIT.mark(0xE000) * DEPTH, "truncated"),
    "300,000 empty frames": (lambda: EXPLICIT.start() + EXPLICIT.sequence(PER_FRAME, [EXPLICIT.mark(0xE000)] * 300_000, True), "dicom"),
    "10^6 small elements in a long sequence": (
        lambda: EXPLICIT.start() + EXPLICIT.sequence(SEQUENCE, [EXPLICIT.item(many(DEPTH, b"US", b"\1\0"), True)], True), "dicom",
    ),
    "values of undefined length without end": (
        lambda: EXPLICIT.start() + b"".join(EXPLICIT.head(0x00411000 + n, b"OB", OPEN) + bytes(100) for n in range(50_000)), "truncated",
    ),
    "values of undefined length": (
        lambda: EXPLICIT.start()
        + b"".join(EXPLICIT.head(0x00411000 + n, b"OB", OPEN) + bytes(90) + EXPLICIT.mark(0xE0DD) for n in range(50_000)),
        "dicom",
    ),
    "values of undefined length in an item": (
        lambda: EXPLICIT.start()
        + EXPLICIT.sequence(
            SEQUENCE, [EXPLICIT.item(b"".join(EXPLICIT.head(0x00411000 + n, b"OB", OPEN) + bytes(2) + EXPLICIT.mark(0xE0DD) for n in range(11_000)), True)], True
        ),
        "dicom",
    ),
    "a fragment in a fragment": (
        lambda: EXPLICIT.start() + EXPLICIT.head(0x00411001, b"OB", OPEN) + EXPLICIT.mark(0xE000, OPEN) * DEPTH, "truncated",
    ),
    "a number of 10^7 values": (lambda: IMPLICIT.start() + text(b"DS", b"1\\" * 10**7), "dicom"),
    "many numbers of 30,000 values": (lambda: IMPLICIT.start() + text(b"DS", b"1\\" * 30_000, 8), "dicom"),
    "many names of 30,000 values": (lambda: IMPLICIT.start() + text(b"PN", b"A\\" * 30_000, 6), "dicom"),
    "many names of no value": (lambda: IMPLICIT.start() + text(b"PN", b"\\" * 65_000, 6), "dicom"),
    "many texts of 65,000 values": (lambda: IMPLICIT.start() + text(b"LO", b"\\" * 65_000, 6), "dicom"),
    "many integers": (lambda: IMPLICIT.start() + text(b"US", b"\0\1" * 32_000, 5), "dicom"),
    "many tags": (lambda: IMPLICIT.start() + text(b"AT", b"\x08\0\x18\0" * 16_000, 3), "dicom"),
    "250 texts of 65,000 values": (
        lambda: EXPLICIT.start() + b"".join(EXPLICIT.element(0x00411000 + n, b"LO", b"\\" * 65_000) for n in range(250)), "too_large",
    ),
    "250 integers of 32,000 values": (
        lambda: EXPLICIT.start() + b"".join(EXPLICIT.element(0x00411000 + n, b"US", b"\0\1" * 32_000) for n in range(250)), "too_large",
    ),
    "250 binary values": (
        lambda: EXPLICIT.start() + b"".join(EXPLICIT.element(0x00411000 + n, b"OB", b"\0\1" * 32_000) for n in range(250)), "dicom",
    ),
    "a number of 60,000 digits": (lambda: IMPLICIT.start() + text(b"DS", b"1" * 60_000, 8), "dicom"),
    "a number of 60,000 digits and an end": (lambda: IMPLICIT.start() + text(b"DS", b"1" * 60_000 + b"x ", 8), "dicom"),
    "a number of 60,000 blanks": (lambda: IMPLICIT.start() + text(b"DS", b" " * 60_000 + b"x ", 8), "dicom"),
    "blanks inside a number": (lambda: IMPLICIT.start() + text(b"DS", b"1" + b"\t" * 60_000 + b"x", 8), "dicom"),
    "a long private creator": (
        lambda: EXPLICIT.start()
        + EXPLICIT.element(0x00410010, b"LO", b"C" * 60_000)
        + b"".join(EXPLICIT.element(0x00411000 + n, b"UN", b"ab") for n in range(256))
        + EXPLICIT.element(0x00430010, b"LO", b"C\\" * 30_000)
        + b"".join(EXPLICIT.element(0x00431000 + n, b"UN", b"ab") for n in range(256)),
        "dicom",
    ),
    "240 long private creators": (
        lambda: EXPLICIT.start()
        + b"".join(EXPLICIT.element(0x00410010 + n, b"LO", b"C" * 60_000) for n in range(240))
        + b"".join(EXPLICIT.element(0x00410000 + n, b"UN", b"ab") for n in range(0x1000, 0xFFFF)),
        "dicom",
    ),
    "a long character set": (lambda: with_set(b"X" * 60_000, *(IMPLICIT.element(0x00411000 + n, b"", b"ab") for n in range(100)), text(b"LO", b"\xff\\" * 999, 6)), "dicom"),
    "many character sets": (
        lambda: with_set(b"\\ISO 2022 IR 87\\ISO 2022 IR 100\\ISO 2022 IR 149" * 1000, text(b"PN", b"\x1b$B;3\x1b(B^\\" * 6000, 6)), "dicom",
    ),
    "unknown character sets": (lambda: with_set(b"".join(b"\\X%d" % n for n in range(9_000)), text(b"PN", b"\x1b$B;3\x1b(B^\\" * 600, 6)), "dicom"),
    "escapes and nothing else": (lambda: with_set(b"\\ISO 2022 IR 87", text(b"PN", b"\x1b" * 65_000, 6), text(b"LO", b"\x1b$B" * 21_000, 6)), "dicom"),
    "a name of carets and equals": (lambda: with_set(b"ISO_IR 192", text(b"PN", b"^" * 65_000, 3), text(b"LO", b"=" * 65_000, 6)), "dicom"),
    "a deflated bomb of 4 GB": (lambda: bomb(4), "too_large"),
    "zeros": (lambda: EXPLICIT.start() + bytes(1 << 24), "too_large"),
    "a preamble and zeros": (lambda: bytes(128) + b"DICM" + bytes(1 << 24), "too_large"),
}  # fmt: skip


# Left to make chaos: they cost seconds, mostly to be made.
SLOW = {
    "10^6 small elements in a long sequence",
    "10^6 elements in items",
    "10^6 empty elements",
    "10^6 deep, defined, implicit",
    "10^6 deep, defined, in UN",
    "240 long private creators",
    "values of undefined length without end",
}


@pytest.mark.chaos
@pytest.mark.parametrize("reader", ["scan", "Headers"] if CHAOS else ["scan"])
@pytest.mark.parametrize("case", [case for case in HEADERS if CHAOS or case not in SLOW])
def test_a_header_cannot_cost_more_than_it_may(case, reader):
    make, expected = HEADERS[case]
    data = make()
    read = scan if reader == "scan" else Headers().read
    found = cost(lambda: outcome(read, data))
    assert found.outcome == expected, found
    assert found.cpu < CPU_SECONDS, found
    assert found.mb < MB, found


def read_all(root, headers=None):
    """(member, status, reason) of every object below a folder."""
    found = []
    for path, size, mtime, _ in list_archive(str(root)):
        found += [[one.member, one.status, one.reason] for one in read_file(str(root), path, size, mtime, headers or Headers())]
    return found


def image():
    return EXPLICIT.start() + EXPLICIT.pixels()


def zipped(*members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, pieces in members:
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                for piece in pieces:
                    member.write(piece)
    return buffer.getvalue()


def deflating_zip(*members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


def empty_members(count):
    """A gzipped tar of empty members, each compressed alone so that it is quickly made."""
    entry = tarfile.TarInfo("a/b.dcm").tobuf(tarfile.USTAR_FORMAT)
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    head = deflate.compress(b"") + deflate.flush(zlib.Z_FULL_FLUSH)
    hundred = deflate.compress(entry * 100) + deflate.flush(zlib.Z_FULL_FLUSH)
    end = deflate.compress(bytes(1024)) + deflate.flush()
    checksum = zlib.crc32(entry * count + bytes(1024)) if count <= 100_000 else 0
    tail = struct.pack("<LL", checksum, (512 * count + 1024) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + head + hundred * (count // 100) + end + tail


def test_zip_bombs(tmp_path):
    layers = zipped(("0", [bytes(1 << 20)] * 16))
    for level in range(1, 6):
        layers = deflating_zip(*((f"{level}-{n}", layers) for n in range(16)))
    (tmp_path / "layers.zip").write_bytes(layers)
    (tmp_path / "zeros.zip").write_bytes(zipped(("zeros", [bytes(1 << 20)] * 512)))
    (tmp_path / "image.zip").write_bytes(zipped(("image", [image(), *[bytes(1 << 20)] * 256])))
    found = cost(lambda: read_all(tmp_path))
    assert ["5-0", "quarantined", "nested_container"] in found.outcome
    assert ["zeros", "quarantined", "not_dicom"] in found.outcome or ["zeros", "ignored", None] in found.outcome
    assert ["image", "catalogued", None] in found.outcome
    assert found.cpu < CPU_SECONDS, found
    assert found.mb < 50, found


@pytest.mark.chaos
def test_a_tar_of_a_million_empty_members(tmp_path):
    # Fewer in the suite: the cost is that of reading so many headers of a tar.
    count = 1_000_000 if CHAOS else 20_000
    (tmp_path / "many.tgz").write_bytes(empty_members(count))
    ((path, size, mtime, _),) = list_archive(str(tmp_path))
    # Each member is work to be done, so that time may grow with their number; memory may not.
    seconds = max(CPU_SECONDS, count // 20_000)
    found = cost(lambda: sum(1 for _ in read_file(str(tmp_path), path, size, mtime, Headers())), seconds)
    assert found.outcome == count + 1
    assert found.cpu < seconds, found
    assert found.mb < MB, found


def test_what_is_no_file_or_lies_outside_is_not_read(tmp_path):
    root = tmp_path / "archive"
    root.mkdir()
    (tmp_path / "secret.dcm").write_bytes(image())
    (root / "out.dcm").symlink_to(tmp_path / "secret.dcm")
    (root / "folder").symlink_to(tmp_path)
    (root / "round").symlink_to(root)
    os.mkfifo(root / "pipe.dcm")
    (root / "new\nline.dcm").write_bytes(image())
    (root / "..dcm").write_bytes(image())
    (root / "a.zip").write_bytes(deflating_zip(("../../secret.dcm", image()), ("/etc/passwd", image()), ("new\nline", image())))
    found = cost(lambda: read_all(root))
    assert sorted(found.outcome, key=str) == sorted(
        [
            [None, "quarantined", "link_outside_root"],
            [None, "quarantined", "link_outside_root"],
            [None, "ignored", None],
            [None, "ignored", None],
            [None, "catalogued", None],
            [None, "catalogued", None],
            ["../../secret.dcm", "catalogued", None],
            ["/etc/passwd", "catalogued", None],
            ["new\nline", "catalogued", None],
            [None, "container", None],
        ],
        key=str,
    )
    assert found.cpu < CPU_SECONDS


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_grows_while_it_is_read(tmp_path, packed):
    file = tmp_path / "growing"
    file.write_bytes(deflating_zip(("one", image())) if packed else image())

    class Growing(Headers):
        def read(self, source):
            with file.open("ab") as end:
                end.write(bytes(1 << 16))
            return super().read(source)

    found = read_all(tmp_path, Growing())
    assert found[-1] == [None, "quarantined", "changed"]


def test_a_file_that_shrinks_or_goes_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(image() + bytes(100))
    ((path, size, mtime, _),) = list_archive(str(tmp_path))
    (tmp_path / "a").write_bytes(image())
    assert [one.reason for one in read_file(str(tmp_path), path, size, mtime, Headers())] == ["changed"]
    (tmp_path / "a").unlink()
    assert [one.reason for one in read_file(str(tmp_path), path, size, mtime, Headers())] == ["unreadable"]


def test_a_gzip_of_zeros(tmp_path):
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(1 << 28), 1))
    found = cost(lambda: read_all(tmp_path))
    assert found.outcome != "killed"
    assert found.mb < 50, found
