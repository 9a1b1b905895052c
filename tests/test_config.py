"""Settings: all faults at once, one sentence each, YAML's traps disarmed."""

import pytest
import yaml

from pictures_spark.config import load_config
from pictures_spark.errors import ConfigError
from pictures_spark.resources import conf_dir, load_yaml


def test_the_shipped_settings_are_valid():
    for path in sorted(conf_dir().glob("*.yaml")):
        if path.name != "jars.yaml":
            load_config(path)


def test_all_faults_are_reported_together(tmp_path):
    values = load_yaml(conf_dir() / "local.yaml")
    values["keys"]["key_id"] = "NOT VALID"
    values["synth"]["people"] = 1
    values["zonez"] = {}
    path = tmp_path / "conf.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for part in ("keys.key_id", "synth.people", "zonez"):
        assert part in str(caught.value)


def test_a_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="does not exist: give one with --conf-file"):
        load_config(tmp_path / "none.yaml")


def test_broken_yaml_names_its_line(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_text("home: x\nzones: [\n")
    with pytest.raises(ConfigError, match=r"not valid YAML \(line 3\)"):
        load_config(path)


def test_a_uri_is_kept_out_of_the_settings(tmp_path):
    values = load_yaml(conf_dir() / "local.yaml")
    values["mongodb"] = {"mode": "uri", "database": "headers"}
    path = tmp_path / "conf.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="uri_env or uri_file"):
        load_config(path)


def test_no_and_yes_are_words_and_dates_are_text(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("a: no\nb: yes\nc: on\nd: true\ne: 2020-01-31\n")
    assert load_yaml(path) == {"a": "no", "b": "yes", "c": "on", "d": True, "e": "2020-01-31"}


@pytest.mark.parametrize("content", [b"\xff\xfeh\x00", b"home: caf\xe9\n"])
def test_settings_that_are_no_text_are_told(tmp_path, content):
    path = tmp_path / "conf.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read, or is not UTF-8 text"):
        load_config(path)
