"""The whole job on a small archive: counts, tables and documents add up; re-runs, changes and kills leave them right."""

import shutil
import zipfile

import pyarrow as pa
import pytest
import s3
from archive import instances
from houses import only_chaos, settings
from small_archive import House, fill, image, run

from pictures_spark import tables
from pictures_spark.dicom import catalogue, mongodb
from pictures_spark.dicom.containers import read_object
from pictures_spark.dicom.scan import pack, scan
from pictures_spark.dicom.storing import Storing, split_series
from pictures_spark.dicom.structures import Headers
from pictures_spark.dicom.templates import rebuild
from pictures_spark.errors import InputError, NotPermittedError, QuarantineLimitError
from pictures_spark.job import Job
from pictures_spark.keys import init_key
from pictures_spark.report import Report
from pictures_spark.zones import Zones


@pytest.fixture(scope="module")
def made(tmp_path_factory, _session):
    """A house that was catalogued once, undisturbed."""
    config = settings(tmp_path_factory.mktemp("made"), catalogue={"quarantine_limit": 0.5, "batch_bytes": 1 << 20})
    (config.home / "archive").mkdir()
    fill(config.home / "archive")
    init_key(Zones(config, "identifiable"), "k1")
    return House(config, _session, run(config))


@pytest.mark.spark
def test_counts_and_reasons(made):
    assert made.report.counts == {
        "seen": 16,
        "written": 10,
        "unchanged": 0,
        "quarantined": 4,
        "skipped_dicomdir": 1,
        "skipped_no_file": 1,
    }
    assert made.report.quarantined == {"not_dicom": 2, "truncated": 1, "archive_corrupt": 1}
    details = {k: v for k, v in made.report.details.items() if k != "seconds" and not k.startswith("task_")}
    assert details == {
        "mongodb_documents": 9,
        "mongodb_series": 2,
        "files": 13,
        "containers": 2,
        "members": 5,
        "waived": 0,
        "reading_tasks": 9,
        "instances": 9,
        "conflicts": 2,
        "duplicates": 1,
        "mongodb_too_large": 0,
    }


@pytest.mark.spark
def test_every_header_is_rebuilt_exactly_and_every_object_read_back(made):
    templates = {row["template_id"]: row for row in made.rows("header_series")}
    instances = {row["content_sha256"]: row for row in made.rows("header_instance")}
    objects = made.rows("object", "status = 'catalogued'")
    assert len(objects) == 10
    for row in objects:
        data = read_object(str(made.archive), *(row[name] for name in ("path", "offset", "length", "compression", "sha256")))
        record, instance = scan(data), instances[row["sha256"]]
        assert pack(rebuild(templates[instance["template_id"]]["elements"], instance["differences"])) == pack(record.elements)
        assert {name: instance[name] for name in record.columns} == record.columns
        assert instance["has_pixels"]
    # Template and differences are smaller than the headers: the series of eight has few templates.
    assert len(templates) < len(instances)


@pytest.mark.spark
def test_one_uid_with_two_contents_is_a_conflict_on_both(made):
    rows = sorted(made.rows("header_instance", "sop_uid = '1.2.826.1.1.1'"), key=lambda row: row["patient_name"])
    assert [row["conflict"] for row in rows] == [True, True]
    # By locator, 2015/06/1.dcm comes before 2015/copy.dcm and 2015/other content.
    assert {row["document_id"] for row in rows} == {"1.2.826.1.1.1", f"1.2.826.1.1.1#{rows[1]['content_sha256'][:16]}"}
    first = next(row for row in rows if row["document_id"] == "1.2.826.1.1.1")
    (holder,) = made.rows("object", f"object_id = '{first['object_id']}'")
    assert holder["locator"] == "2015/06/1.dcm"
    assert sum(row["conflict"] for row in made.rows("header_instance")) == 2


@pytest.mark.spark
def test_documents_are_those_of_the_headers(made):
    found = made.documents()
    assert {name: len(documents) for name, documents in found.items()} == {"image_MR": 7, "image_CT": 1, "image_OTHER": 1, "series": 2}
    places = {row["object_id"]: row for row in made.rows("object")}
    for row in made.rows("header_instance"):
        place = places[row["object_id"]]
        data = read_object(str(made.archive), *(place[name] for name in ("path", "offset", "length", "compression")))
        expected = mongodb.document(
            scan(data).elements, row["document_id"], row["conflict"], place["locator"], place["size"], row["run_id"]
        )
        document = found[mongodb.collection(row["modality"])][row["document_id"]]
        assert document == expected
        assert list(document) == list(expected)
    # By locator, 2015/06/1.dcm is the first of the series of eight SOP instances.
    first = scan((made.archive / "2015" / "06" / "1.dcm").read_bytes()).elements
    assert found["series"]["1.2.826.1.1"] == mongodb.series_document(first, "1.2.826.1.1", "2015/06/1.dcm", 7)
    assert found["series"]["1.2.826.1.1"]["header"] == {"DirectoryPath": "2015/06", "ImagesInSeries": 7}


@pytest.mark.spark
def test_an_unchanged_archive_is_left_alone(made):
    before = made.versions()
    report = run(made.config)
    assert made.versions() == before
    assert report.counts == made.report.counts | {"written": 0, "unchanged": 10}
    assert report.quarantined == made.report.quarantined


def test_a_house_without_a_key_is_told_so_before_anything_is_planned(tmp_path):
    config = settings(tmp_path)
    (config.home / "archive").mkdir()
    with pytest.raises(NotPermittedError, match="keys init"):
        catalogue.run(Job("catalogue", config, Zones(config, "identifiable"), Report("catalogue")))


@pytest.mark.spark
def test_too_much_in_quarantine_is_said_each_time(made):
    strict = settings(made.config.home, catalogue={"quarantine_limit": 0.2, "batch_bytes": 1 << 20})
    with pytest.raises(QuarantineLimitError, match="4 of 16 inputs"):
        run(strict)
    assert {row["attempts"] for row in made.rows("quarantine")} == {1}


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.mark.spark
@pytest.mark.chaos
@only_chaos
def test_a_run_that_is_killed_anywhere_is_finished_by_the_next(made, tmp_path, monkeypatch):
    house = House(settings(tmp_path / "house", catalogue={"quarantine_limit": 0.5, "batch_bytes": 1 << 20}), made.spark)
    house.archive.mkdir()
    fill(house.archive)
    shutil.copytree(made.config.home / "identifiable" / "keys", house.config.home / "identifiable" / "keys")
    allowed = 0

    def counted(action):
        def write(*arguments, **options):
            nonlocal allowed
            if allowed == 0:
                raise Killed
            allowed -= 1
            return action(*arguments, **options)

        return write

    for module, name in ((tables, "append"), (tables, "merge"), (tables, "remove"), (catalogue.documents, "write")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    # After the plan; in the first batch after templates and instances, then after documents and quarantine (a first merge is an append
    # too), then after its objects.
    for allowed in (1, 2, 3, 3):  # noqa: B007 - counted() counts it down
        with pytest.raises(Killed):
            run(house.config)
    allowed = 100
    report = run(house.config)
    assert report.counts == made.report.counts
    for name in ("object", "header_series", "header_instance", "quarantine"):
        assert house.lasting(name) == made.lasting(name), name
    assert len({row["run_id"] for row in house.rows("object")}) == 1
    assert {k: set(v) for k, v in house.documents().items()} == {k: set(v) for k, v in made.documents().items()}


def without_marks(rows):
    """Rows without what differs from run to run, and from disk to store."""
    passing = {"run_id", "first_seen", "last_seen", "file_mtime_ns", "file_etag"}
    return sorted(repr(sorted((k, v) for k, v in row.items() if k not in passing)) for row in rows)


@pytest.mark.spark
@pytest.mark.chaos
@only_chaos
def test_the_same_archive_in_s3_makes_the_same_tables_and_costs_its_listing_again(made, tmp_path):
    keys = tmp_path / "credentials"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    with s3.running() as server:
        server.upload(made.archive, "raw/")
        remote = {"endpoint": server.endpoint, "region": "us-east-1", "credentials_file": str(keys), "attempts": 2}
        sections = {"catalogue": {"quarantine_limit": 0.5, "batch_bytes": 1 << 20}, "zones": {"archive": f"s3a://{server.bucket}/raw"}}
        house = House(settings(tmp_path / "house", **sections, remote=remote), made.spark)
        shutil.copytree(made.config.home / "identifiable" / "keys", house.config.home / "identifiable" / "keys")
        server.forget()
        report = run(house.config)
        # A pipe is nothing that a store can hold.
        assert report.counts == made.report.counts | {"seen": 15, "skipped_no_file": 0}
        assert report.quarantined == made.report.quarantined
        for name in ("header_series", "header_instance", "quarantine"):
            assert without_marks(house.rows(name)) == without_marks(made.rows(name)), name
        assert without_marks(house.rows("object")) == without_marks(made.rows("object", "path <> 'pipe'"))
        assert {k: set(v) for k, v in house.documents().items()} == {k: set(v) for k, v in made.documents().items()}
        assert (report.details["round_trips"], report.rates["round_trips_per_file"]) == (12, 1.0)
        assert {n for (method, key), n in server.asked.items() if key} == {1}
        assert {method for method, _ in server.asked} == {"GET"}

        # The same bytes written again are the same version; other bytes are not.
        server.put("raw/ct", (made.archive / "ct").read_bytes())
        before = house.versions()
        server.forget()
        assert run(house.config).counts["unchanged"] == 10
        assert house.versions() == before
        assert {key for _, key in server.asked} == {""}

        server.put("raw/2015/06/2.dcm", image(2, PatientName="New^Name"))
        server.put("raw/throttled", image(8))
        server.client.delete_object(Bucket=server.bucket, Key="raw/cut.zip")
        server.faults["raw/throttled"] = s3.unavailable
        server.forget()
        report = run(house.config)
        assert server.asked == {("GET", ""): server.asked["GET", ""], ("GET", "raw/2015/06/2.dcm"): 1, ("GET", "raw/throttled"): 2}
        assert report.counts == {"seen": 15, "written": 1, "unchanged": 9, "quarantined": 4, "skipped_dicomdir": 1, "skipped_no_file": 0}
        assert report.quarantined == {"not_dicom": 2, "truncated": 1, "unreadable": 1}
        assert {row["status"] for row in house.rows("object", "path = 'cut.zip'")} == {"vanished"}
        logged = "".join(path.read_text() for path in (house.config.home / "reports").glob("*.json"))
        assert "raw/" not in logged
        assert "throttled" not in logged


@pytest.mark.spark
@pytest.mark.chaos
@only_chaos
def test_changes_are_followed(made, tmp_path):
    """Last, because it changes the house."""
    archive = made.archive
    (archive / "2015" / "06" / "1.dcm").unlink()  # its content lives on in copy.dcm
    (archive / "2015" / "06" / "2.dcm").write_bytes(image(2, PatientName="New^Name"))
    (archive / "cut.dcm").write_bytes(image(7))
    (archive / "ct").write_bytes(b"no longer an image")
    with zipfile.ZipFile(archive / "z.zip", "w") as container:
        container.writestr("IM/3", image(3))
    (archive / "t.tar.gz").unlink()
    report = run(made.config)
    assert report.counts == {
        "seen": 11,
        "written": 3,
        "unchanged": 3,
        "quarantined": 3,
        "skipped_dicomdir": 1,
        "skipped_no_file": 1,
    }
    objects = {row["locator"]: row for row in made.rows("object")}
    vanished = {place for place, row in objects.items() if row["status"] == "vanished"}
    assert vanished == {"2015/06/1.dcm", "z.zip!IM/4", "z.zip!readme", "t.tar.gz", "t.tar.gz!IM/5", "t.tar.gz!IM/6"}
    held = {row["locator"]: row["reason"] for row in made.rows("quarantine")}
    assert held == {"notes.txt": "not_dicom", "cut.zip": "archive_corrupt", "ct": "not_dicom"}
    by_id = {row["object_id"]: row for row in objects.values()}
    instances = made.rows("header_instance")
    first = next(row for row in instances if row["document_id"] == "1.2.826.1.1.1")
    assert by_id[first["object_id"]]["locator"] == "2015/copy.dcm"
    # Headers of what vanished or was overwritten stay: nine, the new content of 2, and 7.
    assert len(instances) == 11
    assert [row["conflict"] for row in instances if row["sop_uid"] == "1.2.826.1.1.2"] == [True, True]
    documents = made.documents()
    assert documents.pop("series")["1.2.826.1.1"]["header"] == {"DirectoryPath": "2015/06", "ImagesInSeries": 8}
    found = {key: document for collection in documents.values() for key, document in collection.items()}
    assert len(found) == 11
    assert found["1.2.826.1.1.1"]["header"]["DicomFilePath"] == "2015/copy.dcm"
    assert found["1.2.826.1.1.2"]["conflict"] is True
    assert report.details["mongodb_documents"] == 11


@pytest.mark.spark
def test_an_archive_that_is_not_mounted_changes_nothing(made, monkeypatch):
    before = made.versions()
    monkeypatch.setattr(catalogue, "list_archive", lambda root: [])
    with pytest.raises(InputError, match="see that it is mounted"):
        run(made.config)
    made.archive.rename(made.archive.with_name("away"))
    with pytest.raises(InputError, match="does not exist"):
        run(made.config)
    made.archive.with_name("away").rename(made.archive)
    assert made.versions() == before


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_templates_do_not_depend_on_how_the_files_were_cut(chunk):
    files = [data for _, data in instances(90, seed=8)]
    names = ("sop_uid", "content_sha256", "study_uid", "series_uid", "modality", "template_id", "differences", "elements", "instance_count")

    def split_in(size):
        rows = []
        for start in range(0, len(files), size):
            headers = Headers()
            order, columns = Storing().columns([headers.read(data) for data in files[start : start + size]])
            found = {name: column.to_pylist() for name, column in columns.items()} | {"content_sha256": [f"{start + i}" for i in order]}
            rows += [{name: found[name][row] for name in found} for row in range(len(order))]
        made = []
        for series in sorted({row["series_uid"] for row in rows}):
            mine = [row for row in rows if row["series_uid"] == series]
            bases = {row["base_id"]: row["base"] for row in mine if row["base"] is not None}
            group = [{**row, "base": None} for row in mine]
            group += [{"series_uid": series, "base_id": i, "base": base} for i, base in bases.items()]
            needed = [*names[:5], "base_id", "lines", "base"]
            table = pa.Table.from_pylist(group, pa.schema([(name, pa.string()) for name in needed]))
            made += split_series(list(names))(table).drop_columns("content_sha256").to_pylist()
        return made

    assert split_in(chunk) == split_in(90)
