"""Where an archive may lie, and one sentence for whatever is no such place."""

import pytest

from pictures_spark.errors import ConfigError
from pictures_spark.roots import defaults, local_path, root_at, root_of
from pictures_spark.zones import Zones

# given, scheme, location
PLACES = [
    ("/archive/", "file", "/archive"),
    ("/", "file", "/"),
    ("file:///archive/2015%20%23a", "file", "/archive/2015 #a"),
    ("file://localhost/archive", "file", "/archive"),
    ("s3a://scans/raw/", "s3", "s3a://scans/raw"),
    ("s3://scans", "s3", "s3://scans"),
    ("hdfs://namenode:8020/archive", "hdfs", "hdfs://namenode:8020/archive"),
    ("hdfs:///archive", "hdfs", "hdfs:///archive"),
]


@pytest.mark.parametrize(("given", "scheme", "location"), PLACES)
def test_places(given, scheme, location):
    root = root_at(given)
    assert (root.scheme, root.location) == (scheme, location)
    assert root_of(given) == root
    assert root_of(root) is root


def test_bucket_and_prefix():
    assert root_at("s3://scans/a/b/").place == ("scans", "a/b")
    assert root_at("s3a://scans").place == ("scans", "")
    assert root_at("hdfs:///archive/a").place == ("", "archive/a")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("gs://scans/raw", "zones.archive: scheme gs is none of file, hdfs, s3, s3a"),
        ("s3a:///raw", "zones.archive: a URI of scheme s3a needs a bucket"),
        ("s3://", "zones.archive: a URI of scheme s3 needs a bucket"),
        ("hdfs://namenode/", "zones.archive: a URI of scheme hdfs needs a path"),
        ("file://elsewhere/archive", "zones.archive: a file URI needs an absolute path on this machine"),
    ],
)
def test_what_is_no_place_is_one_sentence(given, says):
    with pytest.raises(ConfigError, match=says) as caught:
        root_at(given)
    assert "\n" not in str(caught.value)


def test_settings_left_out_have_the_declared_defaults():
    root = root_at("s3://scans", {"threads": 3})
    assert (root.threads, root.range_bytes, root.attempts, root.timeout_seconds) == (3, 4 << 20, 5, 60)
    assert {name: getattr(root, name) for name in defaults()} == defaults() | {"threads": 3}


def test_a_role_that_may_not_read_the_archive_gets_no_root(config):
    config.values["zones"]["archive"] = "s3a://scans/raw"
    config.values["remote"] = {"endpoint": "http://127.0.0.1:1"}
    root = Zones(config, "identifiable").archive()
    assert (root.location, root.endpoint) == ("s3a://scans/raw", "http://127.0.0.1:1")
    with pytest.raises(Exception, match="role publisher may not read zone archive"):
        Zones(config, "publisher").archive()
    with pytest.raises(ConfigError, match="zone archive is at a s3a URI"):
        Zones(config, "identifiable").path("archive")


def test_a_file_uri_is_a_path_for_every_zone(config):
    assert local_path("/a%20b") == "/a%20b"
    config.values["zones"]["archive"] = f"file://{config.home}/with%20space"
    assert Zones(config, "identifiable").path("archive") == config.home / "with space"
