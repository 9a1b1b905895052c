"""Containers: every member is found, has a place it can be read back from, and hostile ones cost little."""

import gzip
import hashlib
import io
import os
import random
import struct
import tarfile
import tracemalloc
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pictures_spark.dicom import containers
from pictures_spark.dicom.containers import ObjectChangedError, gzip_content, open_file, read_object, sniff, tar_members, zip_members
from pictures_spark.dicom.scan import ScanError

BODIES = {
    "a/1.dcm": b"one" * 1000,
    "a/2.dcm": random.Random(1).randbytes(5000),
    "new\nline": b"x",
    "../up": b"up",
    "é漢": b"",
    "a/1.DCM": b"9",
}


def zipped(bodies, method=zipfile.ZIP_DEFLATED, force_zip64=False):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.mkdir("folder")
        for name, body in bodies.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=force_zip64) as member:
                member.write(body)
        for entry in archive.infolist():
            entry.compress_type = method
    return buffer.getvalue()


def deflated(bodies):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in bodies.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def tarred(bodies, mode="w", layout=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=layout) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, body in bodies.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


CONTAINERS = {
    "stored": (lambda bodies: zipped(bodies, zipfile.ZIP_STORED), zip_members),
    "deflated": (deflated, zip_members),
    "zip64": (lambda bodies: zipped(bodies, zipfile.ZIP_STORED, force_zip64=True), zip_members),
    "prefixed": (lambda bodies: b"#!/bin/self-extract\n" + deflated(bodies), zip_members),
    "pax": (tarred, tar_members),
    "gnu": (lambda bodies: tarred(bodies, layout=tarfile.GNU_FORMAT), tar_members),
    "tar.gz": (lambda bodies: tarred(bodies, "w:gz"), lambda file: tar_members(file, packed=True)),
}


def opened(folder, data):
    (folder / "c").write_bytes(data)
    return open_file(str(folder), "c")


def read_all(listing):
    """Names of the members read to their end, and the reason of the first fault that stopped it."""
    names = []
    try:
        for member, content in listing:
            if content is not None:
                content.finish()
            else:
                assert member.fault or member.special
            names.append(member.name)
    except ScanError as error:
        return names, error.reason
    return names, None


def faults(listing):
    return {member.name: member.fault.reason for member, _ in listing if member.fault}


@pytest.mark.parametrize("form", CONTAINERS)
def test_members_are_found_hashed_and_read_back(tmp_path, form):
    make, members = CONTAINERS[form]
    found = []
    with opened(tmp_path, make(BODIES)) as file:
        for member, content in members(file):
            head = content.read_at(0, 100)
            assert head == BODIES[member.name][:100]
            assert content.finish() == (hashlib.sha256(BODIES[member.name]).hexdigest(), len(BODIES[member.name]))
            found.append(member)
    assert sorted(member.name for member in found) == sorted(BODIES)
    for member in found:
        assert read_object(str(tmp_path), "c", member.offset, member.length, member.compression) == BODIES[member.name]


@pytest.mark.parametrize("form", CONTAINERS)
def test_members_need_not_be_read_to_be_listed(tmp_path, form):
    make, members = CONTAINERS[form]
    with opened(tmp_path, make(BODIES)) as file:
        assert [member.name for member, _ in members(file)] == list(BODIES)


@settings(max_examples=40, deadline=None)
@given(form=st.sampled_from(sorted(CONTAINERS)), cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255))))
def test_damaged_containers_give_members_or_a_reason(tmp_path_factory, form, cut, flips):
    make, members = CONTAINERS[form]
    data = bytearray(make(BODIES))
    for place, value in flips:
        data[int(place * (len(data) - 1))] = value
    del data[int(cut * len(data)) :]
    with opened(tmp_path_factory.mktemp("c"), bytes(data)) as file:
        assert read_all(members(file))[1] in {None, "archive_corrupt", "too_large"}


class Counted(io.FileIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def readinto(self, buffer):
        got = super().readinto(buffer)
        self.count += got
        return got


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_start_of_a_member_costs_the_start_of_it(tmp_path, method):
    body = {"noise": random.Random(7).randbytes(8 << 20), "zeros": bytes(64 << 20)}
    with zipfile.ZipFile(tmp_path / "c", "w", method) as archive:
        for name, data in body.items():
            archive.writestr(name, data)
    with Counted(tmp_path / "c") as raw, io.BufferedReader(raw) as file:
        tracemalloc.start()
        try:
            for member, content in zip_members(file):
                assert content.read_at(0, 20_000) == body[member.name][:20_000]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert raw.count < 200_000
        assert peak < 1 << 20


def test_members_beyond_four_gigabytes_are_found_and_read_back(tmp_path):
    """Zip64 by place: the offsets do not fit 32 bits. The file is mostly a hole."""
    with (tmp_path / "c").open("wb") as file:
        file.seek(5 << 30)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, body in BODIES.items():
                archive.writestr(name, body)
    with open_file(str(tmp_path), "c") as file:
        found = [(member, content.finish()[1]) for member, content in zip_members(file)]
    assert [(member.name, length) for member, length in found] == [(name, len(body)) for name, body in BODIES.items()]
    for member, _ in found:
        assert member.offset > 5 << 30
        assert read_object(str(tmp_path), "c", member.offset, member.length, member.compression) == BODIES[member.name]


def test_more_members_than_sixteen_bits_count_cost_the_file_once(tmp_path):
    """Zip64 by number. However many members there are, the directory is read once and each byte of the rest about once."""
    count = 66_000
    with zipfile.ZipFile(tmp_path / "c", "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"IM/{number:06}"), b"%d" % number)
    with Counted(tmp_path / "c") as raw, io.BufferedReader(raw) as file:
        for number, (last, content) in enumerate(zip_members(file)):
            assert (last.name, content.read_at(0, 10)) == (f"IM/{number:06}", b"%d" % number)
        assert number == count - 1
        assert raw.count < 2 * (tmp_path / "c").stat().st_size
    assert read_object(str(tmp_path), "c", last.offset, last.length, last.compression) == b"%d" % (count - 1)


def test_a_directory_without_end_is_refused_before_it_is_read(tmp_path, monkeypatch):
    rules = {**containers.load_schema("dicom/containers.yaml"), "zip_directory_bytes": 100}
    monkeypatch.setattr(containers, "load_schema", lambda name: rules)
    with opened(tmp_path, deflated(BODIES)) as file, pytest.raises(ScanError, match="too_large"):
        list(zip_members(file))


def test_members_come_as_they_lie_in_the_file(tmp_path):
    """Whatever the order of the directory, the file is read forward."""
    data = zipped({"a": b"A" * 100, "b": b"B" * 100}, zipfile.ZIP_STORED)
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entries = [b"PK\x01\x02" + rest for rest in data[start:end].split(b"PK\x01\x02")[1:]]
    with opened(tmp_path, data[:start] + b"".join(reversed(entries)) + data[end:]) as file:
        assert [member.name for member, _ in zip_members(file)] == ["a", "b"]


def test_a_damaged_tar_header_is_not_the_end(tmp_path):
    data = bytearray(tarred(BODIES, layout=tarfile.GNU_FORMAT))
    at = data.index(b"a/2.dcm")
    data[at] ^= 1
    with opened(tmp_path, bytes(data)) as file:
        assert read_all(tar_members(file)) == (["a/1.dcm"], "archive_corrupt")


def listed(file):
    """What a tar says of its members, or why it cannot be read."""
    members = []
    try:
        for member, content in tar_members(file):
            members.append((member, member.fault and member.fault.reason, content and content.finish()))
    except ScanError as error:
        members.append(error.reason)
    return [(one[0]._replace(fault=None), *one[1:]) if isinstance(one, tuple) else one for one in members]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_plain_headers_of_a_tar_say_what_tarfile_says(tmp_path, monkeypatch, layout):
    chance = random.Random(layout)
    names = ["plain", "a/" * 60 + "prefixed", "ends/", "é漢", "x" * 100, *("more" * n for n in range(1, 4))]
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=layout, pax_headers={"comment": "of all"} if chance.random() < 0.5 else {}
    ) as archive:
        for number, name in enumerate(names):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.uid = 300 * number, chance.choice((0, 1.5, 2e9)), chance.choice((0, 2_000_000))
            entry.mtime = entry.mtime if layout == tarfile.PAX_FORMAT else int(entry.mtime)
            entry.type = chance.choice((tarfile.REGTYPE, tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE))
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    whole = buffer.getvalue()
    headers = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    for number in range(300):
        data = bytearray(whole)
        for _ in range(number % 4):
            at = chance.choice(headers)
            data[at + chance.choice((0, 100, 124, 135, 136, 148, 156, 157, 257, 265, 329, 345, 500, chance.randrange(512)))] = (
                chance.choice((0, 0x20, 0x2F, 0x30, 0x37, 0x38, 0x80, 0xFF, chance.randrange(256)))
            )
            if chance.random() < 0.7:
                blank = data[at : at + 148] + b" " * 8 + data[at + 156 : at + 512]
                data[at + 148 : at + 156] = b"%06o\0 " % sum(blank)
        data = bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data)) + 1))])
        with opened(tmp_path, data) as file:
            found = listed(file)
        with monkeypatch.context() as slow, opened(tmp_path, data) as file:
            slow.setattr(containers, "_plain_entry", lambda *_: None)
            assert found == listed(file), number


def test_an_encrypted_member_is_named_as_such(tmp_path):
    data = bytearray(deflated({"a": b"secret", "b": b"open"}))
    for mark, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + flag] |= 1
    with opened(tmp_path, bytes(data)) as file:
        assert faults(zip_members(file)) == {"a": "member_encrypted"}


def test_other_packing_methods_are_unreadable(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", b"x" * 100)
    with opened(tmp_path, buffer.getvalue()) as file:
        assert faults(zip_members(file)) == {"a": "unreadable"}


def test_overlapping_members_are_refused(tmp_path):
    data = bytearray(zipped({"a": b"A" * 100, "b": b"B" * 100}, zipfile.ZIP_STORED))
    first, second = (i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02" and data[i + 46 : i + 47] in (b"a", b"b"))
    # The second member claims the first one's place.
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    with opened(tmp_path, bytes(data)) as file:
        assert set(faults(zip_members(file)).values()) == {"archive_corrupt"}


def test_a_member_that_unpacks_to_more_than_it_says_is_corrupt(tmp_path):
    data = bytearray(deflated({"bomb": bytes(10_000_000)}))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<L", 1000)
    with opened(tmp_path, bytes(data)) as file:
        ((_, content),) = zip_members(file)
        with pytest.raises(ScanError, match="archive_corrupt"):
            content.finish()


def test_a_checksum_that_does_not_match_is_corrupt(tmp_path):
    data = bytearray(zipped({"a": b"A" * 100}, zipfile.ZIP_STORED))
    data[data.index(b"A" * 100)] = 0
    with opened(tmp_path, bytes(data)) as file:
        ((_, content),) = zip_members(file)
        with pytest.raises(ScanError, match="checksum"):
            content.finish()


@pytest.mark.parametrize("form", ["deflated", "tar.gz"])
def test_a_member_beyond_the_limit_is_too_large(tmp_path, form, monkeypatch):
    rules = {**containers.load_schema("dicom/containers.yaml"), "member_bytes": 4000}
    monkeypatch.setattr(containers, "load_schema", lambda name: rules)
    make, members = CONTAINERS[form]
    with opened(tmp_path, make(BODIES)) as file:
        assert faults(members(file)) == {"a/2.dcm": "too_large"}


def test_a_gzip_bomb_stops_at_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "load_schema", lambda name: {"member_bytes": 100_000})
    with opened(tmp_path, gzip.compress(bytes(50_000_000))) as file, pytest.raises(ScanError, match="too_large"):
        gzip_content(file).finish()


def test_links_and_devices_in_a_tar_are_special(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (("soft", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    with opened(tmp_path, buffer.getvalue()) as file:
        assert [(member.special, content) for member, content in tar_members(file)] == [(True, None)] * 3


def test_a_tar_record_that_claims_gigabytes_is_refused(tmp_path):
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, 4 << 30
    data = gzip.compress(entry.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 20))
    with opened(tmp_path, data) as file, pytest.raises(ScanError, match="archive_corrupt"):
        list(tar_members(file, packed=True))


def test_kinds_are_told_by_content():
    tar = tarred({"a": b"x"})
    cases = {
        b"": "other",
        b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100": "dicom",
        b"\x08\x00\x16\x00\x1a\x00\x00\x001.2.840.10008": "dicom",
        b"\x02\x00\x00\x00UL\x04\x00": "dicom",
        b"\x08\x00ordinary text": "other",
        bytes(2000): "other",
        bytes(128) + b"DICM": "dicom",
        zipped({}): "zip",
        tar: "tar",
        gzip.compress(tar): "gzip",
        b"%PDF-1.7 and so on": "other",
    }
    assert [sniff(head[: containers.HEAD_BYTES]) for head in cases] == list(cases.values())


# what is at the path, reason
REFUSED = {
    "link out of the root": (lambda root: (root / "c").symlink_to(root.parent), "link_outside_root"),
    "link to a file outside": (lambda root: (root / "c").symlink_to("/etc/hostname"), "link_outside_root"),
    "pipe": (lambda root: os.mkfifo(root / "c"), "not_a_file"),
    "folder": (lambda root: (root / "c").mkdir(), "not_a_file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_a_file_of_the_archive_is_refused(tmp_path, case):
    root = tmp_path / "root"
    root.mkdir()
    make, reason = REFUSED[case]
    make(root)
    with pytest.raises(ScanError) as caught:
        open_file(str(root), "c")
    assert caught.value.reason == reason
    with pytest.raises(ObjectChangedError):
        read_object(str(root), "c", None, None, None)


@pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "a/../../outside"])
def test_paths_do_not_leave_the_root(tmp_path, path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "outside").write_bytes(b"x")
    with pytest.raises(ObjectChangedError):
        read_object(str(root), path, None, None, None)


def test_a_link_inside_the_root_is_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    assert read_object(str(tmp_path), "link", None, None, "none") == b"x"


def test_a_changed_object_is_refused(tmp_path):
    (tmp_path / "c").write_bytes(b"0123456789")
    root = str(tmp_path)
    assert read_object(root, "c", 2, 3, "none", hashlib.sha256(b"234").hexdigest()) == b"234"
    for offset, length, compression, sha256 in ((8, 3, "none", None), (0, 10, "deflate", None), (0, 1, "gzip", None), (0, 1, "none", "00")):
        with pytest.raises(ObjectChangedError):
            read_object(root, "c", offset, length, compression, sha256)
    with pytest.raises(ValueError, match="compression"):
        read_object(root, "c", 0, 1, "lzma")
    with pytest.raises(OSError, match="No such file"):
        read_object(root, "gone", None, None, None)
