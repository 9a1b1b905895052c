"""What is listed, and what one file gives: every kind of file ends as a row with a status, whatever is in it."""

import gzip
import hashlib
import io
import os
import tarfile
import warnings
import zipfile
from pathlib import Path

import pydicom
import pytest
from archive import write

from pictures_spark.dicom import inventory
from pictures_spark.dicom.containers import open_file, read_object
from pictures_spark.dicom.inventory import list_archive, locator, read_file, read_files
from pictures_spark.dicom.structures import Headers
from pictures_spark.roots import Listed

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
CT = (SAMPLES / "CT_small.dcm").read_bytes()
DIR = next(SAMPLES.rglob("DICOMDIR")).read_bytes()


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tarred(mode="w", **members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, body in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "ct"
        archive.addfile(link)
    return buffer.getvalue()


def read(root, path="f", limit=1 << 26):
    state = (root / path).stat()
    return list(read_file(str(root), path, state.st_size, state.st_mtime_ns, Headers(limit)))


def brief(found):
    return [(one.member, one.kind, one.status, one.reason) for one in found]


# content of a file, (member, kind, status, reason) of its objects
KINDS = {
    "dicom": (CT, [(None, "dicom", "catalogued", None)]),
    "dicomdir": (DIR, [(None, "dicomdir", "ignored", None)]),
    "text": (b"some notes", [(None, "other", "quarantined", "not_dicom")]),
    "empty": (b"", [(None, "other", "quarantined", "not_dicom")]),
    "truncated": (CT[:1000], [(None, "dicom", "quarantined", "truncated")]),
    "zip": (
        zipped(ct=CT, dir=DIR, txt=b"x", cut=CT[:1000], inner=zipped(a=b"")),
        [
            ("ct", "dicom", "catalogued", None),
            ("dir", "dicomdir", "ignored", None),
            ("txt", "other", "quarantined", "not_dicom"),
            ("cut", "dicom", "quarantined", "truncated"),
            ("inner", "other", "quarantined", "nested_container"),
            (None, "zip", "container", None),
        ],
    ),
    "empty zip": (zipped(), [(None, "zip", "container", None)]),
    "tar": (tarred(ct=CT), [("ct", "dicom", "catalogued", None), ("link", "other", "ignored", None), (None, "tar", "container", None)]),
    "tar.gz": (
        tarred("w:gz", ct=CT, ct2=CT),
        [
            ("ct", "dicom", "catalogued", None),
            ("ct2", "dicom", "catalogued", None),
            ("link", "other", "ignored", None),
            (None, "tar", "container", None),
        ],
    ),
    "cut tar": (tarred(ct=CT)[:5000], [("ct", "other", "quarantined", "archive_corrupt"), (None, "tar", "quarantined", "archive_corrupt")]),
    "cut zip": (zipped(ct=CT)[:-10], [(None, "zip", "quarantined", "archive_corrupt")]),
    "gzipped dicom": (gzip.compress(CT), [(None, "dicom", "catalogued", None)]),
    "gzipped text": (gzip.compress(b"x"), [(None, "other", "quarantined", "not_dicom")]),
    "cut gzip": (gzip.compress(CT)[:3000], [(None, "dicom", "quarantined", "archive_corrupt")]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_files(tmp_path, kind):
    content, expected = KINDS[kind]
    (tmp_path / "f").write_bytes(content)
    found = read(tmp_path)
    assert brief(found) == expected
    for one in found:
        if one.status == "catalogued":
            data = read_object(str(tmp_path), "f", one.offset, one.length, one.compression, one.sha256)
            assert (len(data), hashlib.sha256(data).hexdigest()) == (one.size, one.sha256)
            assert one.header.columns["modality"] == "CT"


def test_names_say_nothing_of_kinds(tmp_path):
    for name, kind in (("A.ZIP", "zip"), ("B.TAR.GZ", "tar.gz"), ("C.TAR", "tar"), ("image.zip", "dicom"), ("D.DCM", "zip")):
        (tmp_path / name).write_bytes(KINDS[kind][0])
        assert brief(read(tmp_path, name)) == KINDS[kind][1]


def test_members_of_one_name_have_names_of_their_own(tmp_path):
    with zipfile.ZipFile(tmp_path / "f", "w") as archive, warnings.catch_warnings(action="ignore"):
        for name in ("a", "a#2", "a", "a"):
            archive.writestr(name, b"")
    assert [one.member for one in read(tmp_path)] == ["a", "a#2", "a#3", "a#4", None]


def test_the_limit_for_headers_holds(tmp_path):
    (tmp_path / "f").write_bytes(CT)
    assert read(tmp_path, limit=1000)[0].reason == "too_large"


def test_a_file_that_changed_since_it_was_listed_is_quarantined(tmp_path):
    (tmp_path / "f").write_bytes(CT)
    state = (tmp_path / "f").stat()
    for size, mtime in ((state.st_size + 1, state.st_mtime_ns), (state.st_size, state.st_mtime_ns + 1)):
        assert brief(read_file(str(tmp_path), "f", size, mtime, Headers())) == [(None, "other", "quarantined", "changed")]


@pytest.mark.parametrize("content", [CT, zipped(ct=CT)])
def test_a_file_that_grows_while_it_is_read_is_quarantined(tmp_path, content, monkeypatch):
    (tmp_path / "f").write_bytes(content)
    quick = Headers.read

    def slow(*arguments):
        with (tmp_path / "f").open("ab") as file:
            file.write(b"more")
        return quick(*arguments)

    monkeypatch.setattr(Headers, "read", slow)
    assert brief(read(tmp_path))[-1][2:] == ("quarantined", "changed")


def test_a_file_that_is_gone_or_closed_to_us_is_unreadable(tmp_path):
    assert brief(read_file(str(tmp_path), "gone", 1, 1, Headers())) == [(None, "other", "quarantined", "unreadable")]


def test_listing_names_everything_once_and_enters_no_link(tmp_path):
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"x")
    root = tmp_path / "root"
    for name in ("z", "a/b/1", "a.1", "new\nline", "é"):
        (root / name).write_bytes(b"12")
    (root / "loop").symlink_to(root)
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    Path(os.fsdecode(os.fsencode(root) + b"/latin-\xe9")).write_bytes(b"")
    listed = list_archive(str(root))
    names = ["a.1", "a/b/1", "dangling", "latin-\\xe9", "loop", "new\nline", "out", "pipe", "z", "é"]
    assert [one.path for one in listed] == names
    statuses = {path: brief(read_file(str(root), path, size, mtime, Headers()))[0][2:] for path, size, mtime, _ in listed}
    assert statuses["loop"] == statuses["pipe"] == ("ignored", None)
    assert statuses["out"] == ("quarantined", "link_outside_root")
    assert statuses["dangling"] == statuses["latin-\\xe9"] == ("quarantined", "unreadable")
    assert statuses["z"] == ("quarantined", "not_dicom")


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "open").write_bytes(b"")
    scandir = os.scandir

    def guarded(path):
        if str(path).rstrip("/").endswith("closed"):
            raise PermissionError
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert [one.path for one in list_archive(str(tmp_path))] == ["closed", "open"]


def test_a_folder_in_place_of_a_file_is_reported(tmp_path):
    (tmp_path / "folder").mkdir()
    assert brief(read_file(str(tmp_path), "folder", 0, 0, Headers())) == [(None, "other", "quarantined", "unreadable")]


def test_locators_are_never_shared():
    places = [("a!b", None), ("a", "b"), ("a%21b", None), ("a", "!b"), ("a!", "b"), ("a", None), ("a", "")]
    assert len({locator(*place) for place in places}) == len(places)


def test_files_like_those_before_are_read_at_once_and_say_the_same(tmp_path, monkeypatch):
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(root, 60, seed=11)
    write(outside, 60, seed=11)
    series = max((folder for folder in root.rglob("*") if folder.is_dir()), key=lambda folder: len([*folder.glob("*.dcm")]))
    whole = (series / "2.dcm").read_bytes()
    (root / "cut.dcm").write_bytes(whole[:3000])
    (root / "empty.dcm").write_bytes(b"")
    (root / "notes.dcm").write_bytes(b"x" * len(whole))
    (root / "big.dcm").write_bytes(whole + bytes(2 << 20))
    (root / "link.dcm").symlink_to(series / "2.dcm")
    (root / "away.dcm").symlink_to(outside / series.relative_to(root) / "2.dcm")
    os.mkfifo(root / "pipe.dcm")
    files = list_archive(str(root))
    away = series.relative_to(root) / "2.dcm"
    (root / "folder").symlink_to(outside)
    files += [
        Listed(f"folder/{away}", len(whole), 0),
        Listed(f"../outside/{away}", len(whole), 0),
        Listed(f"{outside}/{away}", len(whole), 0),
    ]
    # Other than it was listed: as long, or as old.
    files += [
        Listed(str(away), len(whole) + 2, 0),
        Listed(str(away), len(whole), 0),
        Listed("gone.dcm", len(whole), 0),
    ]

    def all_of(headers, whole):
        found = [one for _, one in read_files(str(root), files, headers, whole)]
        return [(one._replace(header=None), one.header and (one.header.text, one.header.columns)) for one in found]

    headers = Headers()
    for whole in (True, False):
        all_of(headers, whole)
        quick = all_of(headers, whole)
        with monkeypatch.context() as step_by_step:
            step_by_step.setattr(inventory, "_at_once", lambda *_: None)
            assert quick == all_of(Headers(), whole)
    opened = []
    monkeypatch.setattr(inventory, "open_file", lambda *place: opened.append(place) or open_file(*place))
    all_of(headers, whole=True)
    assert len(opened) < 20 < len(files)


def test_chunks_are_of_so_many_rows_or_of_so_much_text(tmp_path, monkeypatch):
    write(tmp_path, 30, seed=12)
    found = list(read_files(str(tmp_path), [file for file in list_archive(str(tmp_path)) if file.path.endswith(".dcm")], Headers()))
    assert [len(chunk) for chunk in inventory.chunks(iter(found), 8)] == [8, 8, 8, 6]
    monkeypatch.setattr(inventory, "_CHUNK_BYTES", 3 * max(one.header.held for _, one in found))
    assert [one for chunk in inventory.chunks(iter(found), 100) for one in chunk] == found
    assert max(len(chunk) for chunk in inventory.chunks(iter(found), 100)) < len(found)
