"""An archive in S3 gives what the same archive gives on a disk, in one or two round trips a file."""

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pydicom
import pytest
import s3
from archive import instances

from pictures_spark.dicom.containers import ObjectChangedError, read_object
from pictures_spark.dicom.inventory import check_root, list_archive, read_files
from pictures_spark.dicom.structures import Headers
from pictures_spark.errors import InputError
from pictures_spark.roots import root_at

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
KB = 1024


def zipped(bodies, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, body in bodies.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tarred(bodies, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, body in bodies.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every kind of file, small and longer than a range; containers of them; broken ones."""
    root = tmp_path_factory.mktemp("folder")
    files = [data for _, data in instances(30, seed=5)]
    ct = (SAMPLES / "CT_small.dcm").read_bytes()
    large = ct + b"\xfc\xff\xfc\xffOB\x00\x00" + (700 * KB).to_bytes(4, "little") + os.urandom(700 * KB)
    members = {f"IM/{n}": data for n, data in enumerate(files)} | {"large": large, "text": b"x", "inner": zipped({})}
    (root / "2015" / "06").mkdir(parents=True)
    for number, data in enumerate(files[:6]):
        (root / "2015" / f"{number}.dcm").write_bytes(data)
    whole = {
        "2015/06/large": large,
        "A.ZIP": zipped(members),
        "stored": zipped(members, zipfile.ZIP_STORED),
        "t.tar": tarred(members),
        "B.TAR.GZ": tarred(members, "w:gz"),
        "one.gz": __import__("gzip").compress(ct),
        "empty": b"",
        "empty zip": zipped({}),
        "DICOMDIR": next(SAMPLES.rglob("DICOMDIR")).read_bytes(),
        "cut": ct[:1000],
        "cut.zip": zipped(members)[:-100],
        "cut.tar": tarred(members)[:300_000],
        "name é#?%41+!": b"text",
    }
    for name, data in whole.items():
        (root / name).write_bytes(data)
    return root


def comparable(found):
    """Pairs of file and object without what only a store, or only a disk, has; headers as text."""
    return [
        (file.path, file.file_size, one._replace(round_trips=None, header=None), one.header and (one.header.text, one.header.columns))
        for file, one in found
    ]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("range_bytes", [64 * KB, 4 << 20])
def test_the_same_archive_gives_the_same_objects(server, folder, whole, range_bytes):
    server.upload(folder, "raw/")
    root = server.root("raw", range_bytes=range_bytes, threads=4)
    there, here = list_archive(root), list_archive(str(folder))
    assert [one[:2] for one in there] == [one[:2] for one in here]
    server.forget()
    found = list(read_files(root, there, Headers(), whole))
    assert comparable(found) == comparable(read_files(str(folder), here, Headers(), whole))
    own = {file.path: one.round_trips for file, one in found if one.member is None}
    assert own == {path: server.asked["GET", f"raw/{path}"] for path in own}
    if range_bytes == 4 << 20 and whole:
        assert set(own.values()) == {1}
    assert {method for method, _ in server.asked} == {"GET"}


def test_every_object_is_read_back_by_one_range(server, folder):
    server.upload(folder)
    root = server.root()
    objects = [(file, one) for file, one in read_files(root, list_archive(root), Headers()) if one.status == "catalogued"]
    assert {file.path for file, _ in objects} > {"A.ZIP", "stored", "t.tar", "B.TAR.GZ", "one.gz"}
    for file, one in objects:
        server.forget()
        place = (file.path, one.offset, one.length, one.compression)
        data = read_object(root, *place, one.sha256)
        assert hashlib.sha256(data).hexdigest() == one.sha256
        assert data == read_object(str(folder), *place)
        if one.compression != "gzip":
            assert server.ranges == {file.path: [f"bytes={one.offset}-{one.offset + one.length - 1}"]}


def test_an_object_that_changed_or_vanished_since_it_was_catalogued_is_told_apart(server):
    server.put("o", b"0123456789")
    root = server.root()
    assert read_object(root, "o", None, None, None) == b"0123456789"
    assert read_object(root, "o", 0, 0, "none") == b""
    for offset, length, compression, sha256 in ((8, 3, "none", None), (20, 1, "none", None), (0, 9, "deflate", None), (0, 1, "none", "00")):
        with pytest.raises(ObjectChangedError):
            read_object(root, "o", offset, length, compression, sha256)
    with pytest.raises(FileNotFoundError):
        read_object(root, "gone", 0, 1, "none")
    server.faults["o"] = s3.unavailable
    with pytest.raises(OSError, match="503"):
        read_object(root, "o", 0, 1, "none")


def test_what_happens_between_listing_and_reading_is_a_row(server, folder):
    """One vanishes, one changes before it is read, one while it is read, one is throttled, one never answers."""
    big = (folder / "stored").read_bytes()
    for key in ("as listed", "changed", "changes", "gone", "silent", "throttled"):
        server.put(key, big if key == "changes" else (folder / "2015" / "0.dcm").read_bytes())
    root = server.root(range_bytes=64 * KB, threads=1, timeout_seconds=1)
    files = list_archive(root)
    server.client.delete_object(Bucket=server.bucket, Key="gone")
    server.put("changed", b"other")
    asked = []

    def rewritten(environ, start_response):
        asked.append(1)
        if len(asked) == 4:
            server.put("changes", big[::-1])

    server.faults.update({"changes": rewritten, "throttled": s3.unavailable, "silent": lambda *_: __import__("time").sleep(3)})
    found = [(file.path, one) for file, one in read_files(root, files, Headers()) if one.member is None]
    assert [(path, one.status, one.reason) for path, one in found] == [
        ("as listed", "catalogued", None),
        ("changed", "quarantined", "changed"),
        ("changes", "quarantined", "changed"),
        ("gone", "quarantined", "unreadable"),
        ("silent", "quarantined", "timeout"),
        ("throttled", "quarantined", "unreadable"),
    ]
    assert not any(key in str(one.detail) for key in ("gone", "throttled", server.bucket) for _, one in found)


@pytest.mark.parametrize(("method", "most"), [(zipfile.ZIP_STORED, 0.1), (zipfile.ZIP_DEFLATED, 0.1)])
def test_headers_of_large_members_do_not_cost_their_pixels(server, method, most):
    """Twelve members of 3 MB: their headers cost a range each, and the directory one."""
    ct = (SAMPLES / "CT_small.dcm").read_bytes()
    members = {f"IM/{n}": ct + os.urandom(3 << 20) for n in range(12)}
    data = zipped(members, method)
    server.put("z", data)
    root = server.root(range_bytes=1 << 20)
    server.forget()
    found = [one for _, one in read_files(root, list_archive(root), Headers(), whole=False)]
    assert len(found) == 13
    fetched = 0
    for asked in server.ranges["z"]:
        first, last = map(int, asked.removeprefix("bytes=").split("-"))
        fetched += last + 1 - first
    assert server.asked["GET", "z"] <= 2 + 12
    assert fetched - (1 << 20) < most * len(data)


def test_small_members_share_ranges(server):
    """Five hundred members in a few round trips, whole or headers only."""
    files = [data for _, data in instances(500, seed=6)]
    server.put("z", zipped({f"IM/{n}": data for n, data in enumerate(files)}, zipfile.ZIP_STORED))
    root = server.root()
    (listed,) = list_archive(root)
    for whole in (True, False):
        server.forget()
        found = [one for _, one in read_files(root, [listed], Headers(), whole)]
        assert len(found) == 501
        assert server.asked["GET", "z"] <= 2 + listed.file_size / (1 << 20)


def test_the_archive_is_there_or_it_is_said(server, tmp_path):
    check_root(server.root("raw"))
    check_root(root_at(str(tmp_path)))
    with pytest.raises(InputError, match="see that it is mounted"):
        check_root(root_at(str(tmp_path / "none")))
    with pytest.raises(InputError, match="bucket does not exist"):
        check_root(root_at("s3://no-such-bucket-of-ours", {"endpoint": server.endpoint}))
