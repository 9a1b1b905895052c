"""The leak scanner must find a canary in every kind of artefact before anybody may believe that it found none."""

import gzip
import io
import json
import zipfile
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pydicom
import pytest
from leaks import Scanner
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

NAME, CHI, UID, BIRTH, SHORT, PLAIN = "Brelvanqua", "0311461236", "1.2.826.0.1.3680043.99.7.31", "1946-11-03", "1ZQ1", "Sssssss"
CANARIES = {NAME, CHI, UID, BIRTH, SHORT, PLAIN, "19461103"}
SCANNER = Scanner(CANARIES)


def parquet(value, type_=None, metadata=None, **options):
    buffer = io.BytesIO()
    table = pa.table({"x": pa.array([None, value, value] * 50, type=type_)})
    pq.write_table(table.replace_schema_metadata(metadata), buffer, **options)
    return buffer.getvalue()


def unused(value, wrap=lambda array: array):
    """Parquet whose dictionary holds a value that no row refers to, as a filtered table may leave it."""
    buffer = io.BytesIO()
    array = pa.DictionaryArray.from_arrays(pa.array([0, 0, 1] * 50), pa.array(["seen", "also", value]))
    # Compressed so hard that the value is not to be seen in the file's bytes.
    pq.write_table(pa.table({"x": wrap(array)}), buffer, compression="zstd", store_schema=False)
    return buffer.getvalue()


def dicom(change, syntax=ExplicitVRLittleEndian):
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, "1.2.3.4.5.6.7.9"
    change(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def nested(dataset):
    item, inner = Dataset(), Dataset()
    inner.add_new((0x0009, 0x1001), "UN", f"x{NAME}x".encode())
    item.ReferencedSeriesSequence = [inner]
    dataset.ReferencedStudySequence = [item]


def zipped(name, data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def zstd(data):
    sink = io.BytesIO()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
        stream.flush()
        return sink.getvalue()


PLANTS = {
    "plain text": (f"a {NAME} b".encode(), NAME),
    "other case": (NAME.upper().encode(), NAME),
    "utf-16 little endian": (f"ab{NAME}".encode("utf-16-le"), NAME),
    "utf-16 big endian": (f"ab{NAME}".encode("utf-16-be"), NAME),
    "number in groups": (b"chi 031146 1236", CHI),
    "date with separators": (b"born 1946/11/03", "19461103"),
    "number beside letters": (f"x{CHI}y".encode(), CHI),
    "number among hashes": (f"{'0a' * 16} {CHI} {'f' * 64}".encode(), CHI),
    "json report": (json.dumps({"job": "x", "counts": {CHI: 1}}).encode(), CHI),
    "delta log statistics": (json.dumps({"add": {"stats": json.dumps({"minValues": {"d": BIRTH}})}}).encode(), BIRTH),
    "gzip": (gzip.compress(b"x" * 100 + NAME.encode()), NAME),
    "gzip, two members": (gzip.compress(b"x") + gzip.compress(NAME.encode()), NAME),
    "gzip, trailing bytes": (gzip.compress(b"x") + CHI.encode(), CHI),
    "spark event log": (zstd(b'{"Event":"x"}\n' * 20 + NAME.encode()), NAME),
    "zip member": (zipped("a.txt", NAME), NAME),
    "zip member name": (zipped(f"{NAME}.txt", b"x"), NAME),
    "notebook": (json.dumps({"cells": [{"source": [f"df[df.chi == '{CHI}']"]}]}).encode(), CHI),
    "parquet text, dictionary": (parquet(f"pre {NAME}"), NAME),
    "parquet text, delta": (parquet(CHI, use_dictionary=False, column_encoding={"x": "DELTA_BYTE_ARRAY"}), CHI),
    "parquet text, zstd": (parquet(NAME, compression="zstd"), NAME),
    "parquet date": (parquet(date.fromisoformat(BIRTH)), BIRTH),
    "parquet integer without its leading zero": (parquet(int(CHI)), CHI),
    "parquet floating point": (parquet(float(CHI)), CHI),
    "parquet list": (parquet([NAME], pa.list_(pa.string())), NAME),
    "parquet struct": (parquet({"a": {"b": UID}}), UID),
    "parquet binary": (parquet(NAME.encode()), NAME),
    "parquet metadata": (parquet("x", metadata={"pandas": f'{{"made for": "{CHI}"}}'}), CHI),
    "parquet short value": (parquet(SHORT), SHORT),
    "parquet dictionary, no row": (unused(f"{NAME}{CHI}" * 9), CHI),
    "parquet nested dictionary, no row": (unused(f"{CHI}{NAME}" * 9, lambda a: pa.StructArray.from_arrays([a], ["y"])), NAME),
    "parquet one letter": (parquet(f"x^{PLAIN}"), PLAIN),
    "dicom text": (dicom(lambda d: setattr(d, "PatientComments", f"seen {NAME}")), NAME),
    "dicom implicit": (dicom(lambda d: setattr(d, "PatientID", CHI), ImplicitVRLittleEndian), CHI),
    "dicom deflated": (dicom(lambda d: setattr(d, "PatientID", CHI), DeflatedExplicitVRLittleEndian), CHI),
    "dicom uid": (dicom(lambda d: setattr(d, "StudyInstanceUID", UID)), UID),
    "dicom date": (dicom(lambda d: setattr(d, "PatientBirthDate", "19461103")), "19461103"),
    "dicom short id": (dicom(lambda d: setattr(d, "PatientID", SHORT)), SHORT),
    "dicom nested private": (dicom(nested), NAME),
    "dicom name parts": (dicom(lambda d: setattr(d, "PatientName", f"Xx^{NAME}")), NAME),
    "dicom preamble": (NAME.encode().ljust(128, b"\0") + dicom(lambda d: None)[128:], NAME),
    "dicom trailing bytes": (dicom(lambda d: None) + NAME.encode(), NAME),
}


@pytest.mark.parametrize("kind", PLANTS)
def test_a_planted_canary_is_found(tmp_path, kind):
    data, canary = PLANTS[kind]
    (tmp_path / "artefact").write_bytes(data)
    assert canary.lower() in {hit.canary for hit in SCANNER.scan(tmp_path)}


@pytest.mark.parametrize("name", [f"{NAME}.txt", f"{CHI}/x", f"a-{CHI[:6]} {CHI[6:]}-b", f"{UID}.dcm"])
def test_a_canary_in_a_name_is_found(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    assert SCANNER.scan(tmp_path)


def test_a_canary_across_blocks_is_found(tmp_path):
    (tmp_path / "big").write_bytes(b"\1" * ((1 << 22) - 3) + NAME.encode() + b"\1" * 10)
    assert [hit.canary for hit in SCANNER.scan(tmp_path)] == [NAME.lower()]


def test_nothing_is_found_where_nothing_is(tmp_path):
    (tmp_path / "text").write_text("Brelvan qua 03114 1236 1946-11-04")
    (tmp_path / "hash").write_text(f"{'a' * 11}{CHI}{'b' * 11} 2.25.{CHI}{'7' * 28} 1234{CHI[:4]}-{CHI[4:8]}-4000-8000-0123456789ab")
    (tmp_path / "p").write_bytes(parquet("nothing"))
    for again in (0, 48, 52):
        column = [f"{n:x}" for n in sorted([*range(200), again])]
        pq.write_table(pa.table({"x": column}), tmp_path / f"indices {again}", compression="none")
    pq.write_table(pa.table({"x": sorted(f"{n % 128:x}" for n in range(900))}), tmp_path / "repeated", compression="none")
    (tmp_path / "noise").write_bytes(b"rrrrrrrrsssssssssttttttttuuuuuu")
    (tmp_path / "d").write_bytes(dicom(lambda d: setattr(d, "PatientName", "Other^Person")))
    assert Scanner({*CANARIES, "12345678"}).scan(tmp_path) == []


# What a run writes of itself at the worst of times: its clock, in milliseconds and as a time of day, and what Spark measured.
METERS = (
    '{"Launch Time":1796119461103},{"time":1796119461103,"id":"local-1796119461103"}',
    '{"at":"2026-12-01T19:46:11.03"},{"at":"2026-12-01 20:19:46.1103"}',
    '{"Name":"peak memory","Update":"7","Value":19461103,"Peak Execution Memory":194611030}',
)


@pytest.mark.parametrize("text", METERS)
def test_clocks_and_meters_are_no_birth_dates(monkeypatch, text):
    monkeypatch.setattr("time.time", lambda: 1796119461.103 + 86_400)
    assert SCANNER.bytes(text.encode()) == set()


def test_only_a_clock_of_this_run_is_passed_over(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1796119461.103 + 10 * 86_400)
    assert SCANNER.bytes(METERS[0].encode())


@pytest.mark.parametrize(
    "text",
    [
        '{"Value":"19461103"}',
        '{"Value":19461103 or else}',
        '{"at":"1946-11-03T00:00:00.000"}',
        '{"at":"19461103T194611"}',
        '{"clock":1796119349317,"born":19461103}',
        '{"Launch Time":1796119349317,"chi":311461236,"text":"0311461236"}',
    ],
)
def test_what_stands_beside_clocks_and_meters_is_found(monkeypatch, text):
    monkeypatch.setattr("time.time", lambda: 1796119349.317)
    assert SCANNER.bytes(text.encode())
