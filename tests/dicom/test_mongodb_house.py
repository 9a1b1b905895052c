"""MongoDB of a whole house: an outage in the middle of writing, damage, a rebuild, and documents of others as a source."""

import copy
import os
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import bson
import pydicom
import pymongo
import pytest
from houses import only_chaos, settings
from instances import dicom_bytes, instance

from pictures_spark import tables
from pictures_spark.dicom import catalogue, imported, mongodb, parity
from pictures_spark.dicom.inventory import locator
from pictures_spark.dicom.scan import scan
from pictures_spark.errors import ChecksFailedError, ConfigError, InputError
from pictures_spark.job import run_job
from pictures_spark.keys import init_key
from pictures_spark.mongo import mongodb as header_store
from pictures_spark.zones import Zones

pytestmark = [pytest.mark.spark, pytest.mark.chaos, only_chaos]

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
CANARY = "Quillfeather"


def private(number, creator):
    """An image with a private block and values that are hard to keep: texts like JSON, whole doubles, characters of other scripts."""
    made = instance(SpecificCharacterSet="ISO_IR 192", SOPInstanceUID=f"1.2.826.9.{number}", InstanceNumber=number)
    made.StudyDescription, made.PatientComments = "[1, null]", "{}"
    block = made.private_block(0x0009, creator, create=True)
    block.add_new(0x01, "LO", "null")
    block.add_new(0x02, "FD", [1.0, -0.0, 1e300, 5e-324])
    block.add_new(0x03, "LT", "\u5c71\u7530 \U0001f6d1 \x7f")
    return made


def fill(root):
    """Four instances: three of one series in two folders, whose creators differ in case only, and one MR image."""
    (root / "b").mkdir(parents=True)
    for place, number, creator in (("b/1", 1, "ACME 1.0"), ("b/2", 2, "Acme 1.0"), ("a%!", 3, "ACME 1.0")):
        (root / place).write_bytes(dicom_bytes(private(number, creator)))
    shutil.copy(SAMPLES / "MR_small.dcm", root / "mr")


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@contextmanager
def opened(config):
    with header_store(config, Zones(config, "identifiable")) as uri, pymongo.MongoClient(uri) as client:
        yield client


def everything(config):
    with opened(config) as client:
        database = client["headers"]
        return {name: {one["_id"]: one for one in database[name].find()} for name in sorted(database.list_collection_names())}


def job(name, config, heart, *arguments):
    return run_job(name, config, "identifiable", lambda started: heart(started, *arguments))


def rows(spark, config, name):
    return [row.asDict() for row in tables.read(spark, Zones(config, "identifiable"), "identifiable", name).collect()]


@pytest.fixture(scope="module")
def house(tmp_path_factory, _session):
    config = settings(tmp_path_factory.mktemp("house"), catalogue={"quarantine_limit": 0.5, "batch_bytes": 1 << 20})
    fill(config.home / "archive")
    init_key(Zones(config, "identifiable"), "k1")
    return config


def test_a_server_that_is_killed_in_the_middle_of_writing_loses_nothing(house, spark, monkeypatch):
    sent = 0
    widen = mongodb._widen

    def killing(found, fields):
        nonlocal sent
        sent += 1
        if sent == 2:
            os.kill(int((house.home / "identifiable" / "mongodb" / "server.pid").read_text()), signal.SIGKILL)
        return widen(found, fields)

    monkeypatch.setattr(mongodb, "_widen", killing)
    with pytest.raises(InputError, match="run the same command") as error:
        job("catalogue", house, catalogue.run)
    assert CANARY not in str(error.value)
    # Three documents were written and confirmed, or the kill would have proved nothing.
    partial = everything(house)
    assert 0 < sum(map(len, partial.values())) < 6
    report = job("catalogue", house, catalogue.run)
    assert (report.details["mongodb_documents"], report.details["mongodb_series"]) == (4, 2)
    found = everything(house)
    assert {name: len(there) for name, there in found.items()} == {"image_CT": 3, "image_MR": 1, "series": 2}
    (run_id,) = {row["run_id"] for row in rows(spark, house, "header_instance")}
    for number, place in enumerate(("b/1", "b/2", "a%!"), start=1):
        data = (house.home / "archive" / place).read_bytes()
        expected = mongodb.document(scan(data).elements, f"1.2.826.9.{number}", False, locator(place, None), len(data), run_id)
        assert found["image_CT"][expected["_id"]] == expected
        assert list(found["image_CT"][expected["_id"]]) == list(expected)
    series = found["series"]["1.2.826.0.1.3680043.10.1234.1.1"]
    assert series["header"] == {"DirectoryPath": "", "ImagesInSeries": 3}
    assert series["InstanceNumber"] == "3"


def test_damage_is_found_and_mended(house):
    before = everything(house)
    with opened(house) as client:
        database = client["headers"]
        database.image_CT.delete_one({"_id": "1.2.826.9.1"})
        database.image_CT.update_one({"_id": "1.2.826.9.2"}, {"$set": {"Modality": CANARY}})
        moved = database.image_MR.find_one()
        database.image_MR.delete_one({"_id": moved["_id"]})
        database.image_OTHER.insert_one(moved)
        database.series.insert_one({"_id": CANARY, "header": None})
    with pytest.raises(ChecksFailedError, match=r"4 of 4 collections .*`pictures mongo rebuild`") as error:
        job("mongo-verify", house, parity.verify)
    assert (error.value.exit_code, CANARY in str(error.value)) == (13, False)
    report = job("mongo-rebuild", house, parity.rebuild)
    assert report.counts == {"seen": 8, "written": 3, "unchanged": 3, "skipped_removed": 2}
    assert {name: there for name, there in everything(house).items() if there} == before
    with opened(house) as client:
        client.drop_database("headers")
    report = job("mongo-rebuild", house, parity.rebuild)
    assert report.counts == {"seen": 6, "written": 6, "unchanged": 0, "skipped_removed": 0}
    assert everything(house) == before
    report = job("mongo-verify", house, parity.verify)
    assert report.counts == {"seen": 6, "unchanged": 6, "skipped_in_collections_that_differ": 0}


def test_documents_of_others_are_a_source_also_when_killed_and_files_take_their_place(house, spark, tmp_path, monkeypatch):
    mine = everything(house)
    ours = settings(tmp_path / "house", catalogue={"quarantine_limit": 0.5, "batch_bytes": 1 << 20})
    fill(ours.home / "archive")
    init_key(Zones(ours, "identifiable"), "k1")
    documents = [{**copy.deepcopy(one), "_id": bson.ObjectId()} for name in ("image_CT", "image_MR") for one in mine[name].values()]
    other = {**copy.deepcopy(documents[0]), "_id": bson.ObjectId(), "PatientName": "Other^Content"}
    again = {**copy.deepcopy(documents[1]), "_id": bson.ObjectId()}
    with opened(ours) as client:
        client["smi"].image_CT.insert_many([*documents[:3], other, again, {"_id": bson.ObjectId(), "header": {}}])
        # Written by SmiServices as OTHER, whatever its modality.
        client["smi"].image_OTHER.insert_one(documents[3])

    # Headers are written, then objects.
    append = tables.append

    def killed(frame, zones, zone, name, *arguments, **options):
        if name == "object":
            raise Killed
        return append(frame, zones, zone, name, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(tables, "append", killed)
        with pytest.raises(Killed):
            job("mongo-import", ours, imported.run, "smi")
    report = job("mongo-import", ours, imported.run, "smi")
    assert report.counts == {"seen": 7, "written": 0, "unchanged": 6, "skipped_known_from_file": 0, "quarantined": 1}
    assert report.quarantined == {"no_path": 1}
    assert [row["locator"].startswith("mongodb:smi.image_CT/") for row in rows(spark, ours, "quarantine")] == [True]
    objects = {row["locator"]: row for row in rows(spark, ours, "object")}
    assert set(objects) == {"b/1", "b/2", "a%25%21", "mr"}
    assert {(row["status"], row["sha256"], row["file_mtime_ns"]) for row in objects.values()} == {("imported", None, None)}
    instances = rows(spark, ours, "header_instance")
    assert sorted(row["conflict"] for row in instances) == [False, False, False, True, True]
    assert all(row["content_sha256"].startswith("document:") and row["transfer_syntax_uid"] is None for row in instances)
    # Delta is the record of these too.
    assert {name: len(there) for name, there in everything(ours).items()} == {"image_CT": 4, "image_MR": 1, "series": 2}
    with pytest.raises(ConfigError, match="our own documents"):
        job("mongo-import", ours, imported.run, "headers")

    # As if its modality had been another one when it was first written: the document moves.
    with opened(ours) as client:
        (moving,) = client["headers"].image_MR.find()
        client["headers"].image_OTHER.insert_one(moving)
        client["headers"].image_MR.delete_one({"_id": moving["_id"]})
    job("catalogue", ours, catalogue.run)
    assert {row["status"] for row in rows(spark, ours, "object")} == {"catalogued"}
    assert not any(row["conflict"] or row["content_sha256"].startswith("document:") for row in rows(spark, ours, "header_instance"))
    found = {name: there for name, there in everything(ours).items() if there}
    for one in (one for house_ in (mine, found) for name in ("image_CT", "image_MR") for one in house_[name].values()):
        one["header"].pop("MessageHeader")  # of the run
    assert found == mine
    report = job("mongo-import", ours, imported.run, "smi")
    assert report.counts == {"seen": 7, "written": 0, "unchanged": 0, "skipped_known_from_file": 6, "quarantined": 1}

    with opened(ours) as client:
        client["headers"].image_CT.insert_one({"_id": bson.ObjectId()})
    with pytest.raises(InputError, match="not ours, and nothing was changed"):
        job("mongo-rebuild", ours, parity.rebuild)
