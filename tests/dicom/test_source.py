"""``spark.read.format("dicom")`` gives what `scan` gives of every file and member, and keeps what cannot be read, with the reason."""

import tarfile
import zipfile
from pathlib import Path

import pydicom
import pytest
import s3
from archive import instances
from pyspark.sql import functions as F

from pictures_spark.dicom.scan import scan
from pictures_spark.dicom.source import DicomSource, full_schema

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"

pytestmark = pytest.mark.spark


@pytest.fixture
def folder(tmp_path):
    """Loose files, a zip and a tar of made headers, and broken ones."""
    files = [data for _, data in instances(24, seed=9)]
    for number, data in enumerate(files[:10]):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, data in enumerate(files[10:17]):
            archive.writestr(f"IM/{number}", data)
    with tarfile.open(tmp_path / "b.tar", "w") as archive:
        for number, data in enumerate(files[17:]):
            (tmp_path / "member").write_bytes(data)
            archive.add(tmp_path / "member", f"t/{number}")
    (tmp_path / "member").unlink()
    (tmp_path / "sample").write_bytes((SAMPLES / "rtplan.dcm").read_bytes())
    (tmp_path / "cut").write_bytes(files[0][:700])
    (tmp_path / "text").write_text("no image")
    spare = (SAMPLES / "rtplan.dcm").read_bytes()
    return tmp_path, {scan(data).columns["sop_uid"]: scan(data) for data in [*files, spare]}


def test_every_object_is_a_row(spark, folder):
    root, expected = folder
    spark.dataSource.register(DicomSource)
    rows = spark.read.format("dicom").load(str(root)).collect()
    assert rows[0].__fields__ == full_schema().fieldNames()
    read = {row.sop_uid: row for row in rows if row.reason is None}
    assert read.keys() == expected.keys()
    for uid, record in expected.items():
        assert read[uid].header == record.text
        assert {name: read[uid][name] for name in record.columns} == record.columns
    assert {Path(row.path).name: row.reason for row in rows if row.reason} == {"cut": "truncated", "text": "not_dicom"}
    assert {Path(row.path).name for row in rows if row.member} == {"a.zip", "b.tar"}


def test_fewer_columns_and_rows_are_asked_for(spark, folder):
    root, expected = folder
    spark.dataSource.register(DicomSource)
    narrow = spark.read.format("dicom").schema("path string, modality string, kvp double").load(f"file://{root}")
    wanted = sum(record.columns["modality"] == "CT" for record in expected.values())
    assert narrow.where("modality = 'CT'").count() == wanted
    assert narrow.where(F.col("modality").isin("MR", "RTPLAN") & (F.col("path") != "x")).count() == len(expected) - wanted
    assert narrow.where("modality IS NULL").count() == 2


def test_a_store_is_read_like_a_folder(spark, folder, tmp_path_factory):
    root, expected = folder
    keys = tmp_path_factory.mktemp("keys") / "credentials"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    spark.dataSource.register(DicomSource)
    with s3.running() as server:
        server.upload(root, "raw/")
        server.forget()
        reader = spark.read.format("dicom").option("endpoint", server.endpoint).option("region", "us-east-1").option("attempts", "1")
        frame = reader.option("credentials_file", str(keys)).schema("path string, member string, sop_uid string, reason string")
        rows = frame.load(f"s3a://{server.bucket}/raw/").collect()
        assert {row.sop_uid for row in rows if row.reason is None} == set(expected)
        start = f"s3a://{server.bucket}/raw/"
        assert {row.path.removeprefix(start): row.reason for row in rows if row.reason} == {"cut": "truncated", "text": "not_dicom"}
        # A container is longer than the first range, by which the headers of loose files are had.
        assert max(n for (_, key), n in server.asked.items() if key) == 2
        assert sum(server.asked[key] - 1 for key in server.asked if key[1]) <= 2


@pytest.mark.parametrize(
    ("schema", "path", "message"),
    [
        ("nothing string", ".", "column nothing string is none of format dicom"),
        ("kvp string", ".", "column kvp string is none"),
        ("kvp double", "/no/such/folder", "folder does not exist"),
        ("kvp double", "gs://bucket/x", "load: scheme gs is none of file, hdfs, s3, s3a"),
    ],
)
def test_bad_usage_is_one_sentence(spark, schema, path, message):
    spark.dataSource.register(DicomSource)
    with pytest.raises(Exception, match=message):
        spark.read.format("dicom").schema(schema).load(path).count()
