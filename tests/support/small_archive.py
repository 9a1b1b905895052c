"""A small archive that has one of everything, and a house whose tables and documents tests compare."""

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pydicom
import pymongo

from pictures_spark import tables
from pictures_spark.dicom import catalogue
from pictures_spark.job import run_job
from pictures_spark.mongo import mongodb as header_store
from pictures_spark.zones import Zones

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
WRITTEN = ("object", "header_series", "header_instance", "header_span", "quarantine", "run", "catalogue_plan")


def image(number, **changes):
    """A variant of a sample MR image, one of a series."""
    data_set = pydicom.dcmread(SAMPLES / "MR_small.dcm")
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = "1.2.826.1", "1.2.826.1.1"
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.1.1.{number}"
    data_set.InstanceNumber = number
    for keyword, value in changes.items():
        setattr(data_set, keyword, value)
    buffer = io.BytesIO()
    data_set.save_as(buffer)
    return buffer.getvalue()


def fill(root):
    """10 instances of 9 contents and 8 SOP UIDs, in files and two containers; a DICOMDIR, a pipe, and four things that are broken."""
    (root / "2015" / "06").mkdir(parents=True)
    for number in (1, 2):
        (root / "2015" / "06" / f"{number}.dcm").write_bytes(image(number))
    (root / "2015" / "copy.dcm").write_bytes(image(1))
    (root / "2015" / "other content").write_bytes(image(1, PatientName="Other^Name"))
    shutil.copy(SAMPLES / "CT_small.dcm", root / "ct")
    # A batch of its own with the smallest batch_bytes.
    (root / "zz large.dcm").write_bytes(image(9, Modality="ZZ", Rows=1100, Columns=500, PixelData=bytes(1_100_000)))
    shutil.copy(next(SAMPLES.rglob("DICOMDIR")), root / "DICOMDIR")
    (root / "notes.txt").write_text("nothing")
    (root / "cut.dcm").write_bytes(image(7)[:700])
    os.mkfifo(root / "pipe")
    with zipfile.ZipFile(root / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in (3, 4):
            archive.writestr(f"IM/{number}", image(number))
        archive.writestr("readme", "x")
    with tarfile.open(root / "t.tar.gz", "w:gz") as archive:
        for number in (5, 6):
            entry = tarfile.TarInfo(f"IM/{number}")
            entry.size = len(image(number))
            archive.addfile(entry, io.BytesIO(image(number)))
    with zipfile.ZipFile(root / "cut.zip", "w") as archive:
        archive.writestr("a", "x")
    (root / "cut.zip").write_bytes((root / "cut.zip").read_bytes()[:-5])
    for path in sorted(root.rglob("*")):
        os.utime(path, ns=(10**18, 10**18))


def run(config):
    return run_job("catalogue", config, "identifiable", catalogue.run)


class House:
    """Settings of a house, and what is in its tables and documents."""

    def __init__(self, config, spark, report=None):
        self.config, self.spark, self.report = config, spark, report
        self.zones = Zones(config, "identifiable")
        self.archive = config.home / "archive"

    def rows(self, name, where="true"):
        return [row.asDict() for row in tables.read(self.spark, self.zones, "identifiable", name).where(where).collect()]

    def lasting(self, name):
        """Rows without what differs from run to run, in a fixed order."""
        passing = {"run_id", "first_seen", "last_seen"}
        return sorted(repr(sorted((k, v) for k, v in row.items() if k not in passing)) for row in self.rows(name))

    def versions(self):
        return {name: tables.version(self.spark, self.zones, "identifiable", name) for name in WRITTEN}

    def documents(self):
        with header_store(self.config, self.zones) as uri, pymongo.MongoClient(uri) as client:
            database = client[self.config["mongodb"]["database"]]
            return {name: {d["_id"]: d for d in database[name].find()} for name in database.list_collection_names()}
