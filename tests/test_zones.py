"""Who may touch what: the whole table of roles, and the ways out of a zone."""

import itertools

import pytest

from pictures_spark.errors import ConfigError, ZoneViolationError
from pictures_spark.resources import load_schema
from pictures_spark.zones import Zones

# By hand from DESIGN section 1, so that a slip in schemas/roles.yaml shows here.
MAY = {
    "synthesiser": {("archive", "read"), ("archive", "write"), ("extracts", "read"), ("extracts", "write")},
    "identifiable": {("archive", "read"), ("extracts", "read"), ("identifiable", "read"), ("identifiable", "write")},
    "publisher": {("identifiable", "read"), ("deidentified", "read"), ("deidentified", "write"), ("governance", "append")},
    "deidentified": {("deidentified", "read"), ("deidentified", "write"), ("governance", "read"), ("governance", "append")},
    "counter": {("deidentified", "read"), ("governance", "read"), ("governance", "append")},
    "extractor": {
        ("archive", "read"),
        ("identifiable", "read"),
        ("deidentified", "read"),
        ("project", "read"),
        ("project", "write"),
        ("governance", "append"),
    },
    "auditor": {("governance", "read")},
    "project": {("project", "read")},
}
ALL_ZONES = ("archive", "extracts", "identifiable", "deidentified", "project", "governance")


def test_every_declared_role_is_known_here():
    assert set(load_schema("roles.yaml")) == set(MAY)


@pytest.mark.parametrize(("role", "zone", "mode"), list(itertools.product(MAY, ALL_ZONES, ("read", "write", "append"))))
def test_a_role_may_do_exactly_what_its_row_says(config, role, zone, mode):
    zones = Zones(config, role, "demo")
    if (zone, mode) in MAY[role]:
        assert zones.path(zone, "x", mode=mode).name == "x"
        assert zones.table(zone, "t", mode).endswith("/tables/t")
    else:
        for use in (lambda: zones.path(zone, "x", mode=mode), lambda: zones.table(zone, "t", mode), lambda: zones.root(zone, mode)):
            with pytest.raises(ZoneViolationError, match=f"role {role} may not {mode} zone {zone}"):
                use()


@pytest.mark.parametrize("parts", [("..", "identifiable", "keys"), ("a", "..", "..", "x"), ("/etc/passwd",)])
def test_a_path_may_not_leave_its_zone(config, parts):
    with pytest.raises(ZoneViolationError, match="leaves zone deidentified"):
        Zones(config, "counter").path("deidentified", *parts)


def test_a_link_may_not_lead_out_of_a_zone(config):
    outside = config.home / "identifiable"
    outside.mkdir(parents=True)
    (config.home / "deidentified").mkdir()
    (config.home / "deidentified" / "innocent").symlink_to(outside)
    with pytest.raises(ZoneViolationError, match="links"):
        Zones(config, "counter").path("deidentified", "innocent", "keys")


@pytest.mark.parametrize("project", [None, "", "..", "a/b", "Demo", "a b", "../other", "x" * 64])
def test_a_project_has_a_plain_name(config, project):
    with pytest.raises(ConfigError, match="project name"):
        Zones(config, "extractor", project)


def test_no_role_reaches_another_project(config):
    root = Zones(config, "extractor", "demo").root("project")
    assert root.endswith("/projects/demo")
    with pytest.raises(ZoneViolationError):
        Zones(config, "extractor", "demo").path("project", "..", "other")
    with pytest.raises(ZoneViolationError):
        Zones(config, "extractor", "demo").root("projects")


def test_an_unknown_role_is_refused(config):
    with pytest.raises(ConfigError, match="role 'root' is not declared"):
        Zones(config, "root")


def test_a_remote_zone_has_tables_but_no_paths(config):
    config.values["zones"]["deidentified"] = "s3a://bucket/deidentified"
    zones = Zones(config, "counter")
    assert zones.table("deidentified", "series") == "s3a://bucket/deidentified/tables/series"
    with pytest.raises(ConfigError, match="s3a URI"):
        zones.path("deidentified", "x")


def test_nobody_may_rewrite_the_governance_zone():
    assert not any("write" in modes for role in load_schema("roles.yaml").values() for zone, modes in role.items() if zone == "governance")


def test_the_governance_zone_has_a_place_where_the_settings_do_not_say(config):
    del config.values["zones"]["governance"]
    assert Zones(config, "auditor").path("governance") == config.home / "governance"
