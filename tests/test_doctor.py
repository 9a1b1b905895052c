"""The doctor refuses what was not tried, and says what to do."""

import pytest

from pictures_spark import doctor, jars
from pictures_spark.errors import ChecksFailedError


@pytest.mark.parametrize(("version", "well"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((3, 13), False)])
def test_only_python_3_11_and_3_12(version, well):
    assert (doctor.check_python(version).remedy is None) == well


def java(tmp_path, version):
    program = tmp_path / "bin" / "java"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\necho '    java.specification.version = {version}' >&2\n")
    program.chmod(0o755)
    return str(tmp_path)


@pytest.mark.parametrize(("version", "well"), [("1.8", False), ("11", False), ("17", True), ("21", False)])
def test_only_java_17(tmp_path, version, well):
    finding = doctor.check_java(java(tmp_path, version))
    assert finding.found == version
    assert (finding.remedy is None) == well


def test_a_machine_without_java_is_told_so(tmp_path):
    assert "install Java 17" in doctor.check_java(str(tmp_path)).remedy


def test_a_damaged_jar_is_found(tmp_path):
    name, *rest = jars.declared_jars()
    (tmp_path / name).write_bytes(b"half a jar")
    assert jars.damaged(tmp_path) == [name, *rest]


def test_the_jars_in_use_are_the_declared_ones():
    assert jars.damaged(jars.spark_jars_dir()) == []


def test_a_missing_key_and_its_remedy_are_named(config, capsys):
    with pytest.raises(ChecksFailedError, match="1 of 7"):
        doctor.run(config)
    assert "pictures keys init" in capsys.readouterr().out
    doctor.init_keys(config)
    doctor.run(config)
    assert "!!" not in capsys.readouterr().out.split("already")[-1]


def test_a_zone_root_that_is_a_file_is_named(config):
    config.home.mkdir(parents=True, exist_ok=True)
    (config.home / "deidentified").write_text("")
    assert "deidentified" in doctor.check_zones(config).found
