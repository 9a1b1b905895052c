"""Keys are private files; pseudonyms are keyed, stable and tell kinds and projects apart."""

import hashlib
import hmac
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures_spark.errors import NotPermittedError, ZoneViolationError
from pictures_spark.keys import date_shift_days, init_key, key_ref, pseudonym, pseudonymous_uid
from pictures_spark.zones import Zones

KEY, OTHER = b"k" * 32, b"o" * 32


def hkdf(master: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 for one block, written from the RFC."""
    prk = hmac.new(salt, master, hashlib.sha256).digest()
    return hmac.new(prk, info + bytes([1]), hashlib.sha256).digest()


def test_the_key_is_made_once_private_and_never_overwritten(config):
    zones = Zones(config, "identifiable")
    assert init_key(zones, "k1")
    path = zones.path("identifiable", "keys", "k1.key")
    before = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(before) == 32
    assert not init_key(zones, "k1")
    assert path.read_bytes() == before


def test_derivation_is_rfc_5869(config):
    zones = Zones(config, "identifiable")
    init_key(zones, "k1")
    master = zones.path("identifiable", "keys", "k1.key").read_bytes()
    assert key_ref(zones, "k1", "project:demo").bytes() == hkdf(master, b"pictures-spark", b"project:demo")
    assert key_ref(zones, "k1", "project:demo").bytes() != key_ref(zones, "k1", "project:other").bytes()


def test_a_reference_carries_no_key_bytes(config):
    zones = Zones(config, "identifiable")
    init_key(zones, "k1")
    ref = key_ref(zones, "k1", "deidentified")
    key = ref.bytes()
    assert key not in pickle.dumps(ref)
    assert zones.path("identifiable", "keys", "k1.key").read_bytes() not in pickle.dumps(ref)
    assert key.hex() not in repr(ref)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused(config, mode):
    zones = Zones(config, "identifiable")
    init_key(zones, "k1")
    os.chmod(zones.path("identifiable", "keys", "k1.key"), mode)  # noqa: PTH101
    with pytest.raises(NotPermittedError, match="0600"):
        key_ref(zones, "k1", "deidentified").bytes()


def test_a_missing_or_damaged_key_is_one_sentence(config):
    zones = Zones(config, "identifiable")
    with pytest.raises(NotPermittedError, match="keys init"):
        key_ref(zones, "k1", "deidentified").bytes()
    init_key(zones, "k2")
    zones.path("identifiable", "keys", "k2.key").write_bytes(b"short")
    with pytest.raises(NotPermittedError, match="32 bytes"):
        key_ref(zones, "k2", "deidentified").bytes()


def test_only_roles_of_the_identifiable_zone_reach_a_key(config):
    for role in ("deidentified", "counter", "project", "synthesiser"):
        with pytest.raises(ZoneViolationError):
            key_ref(Zones(config, role, "demo"), "k1", "deidentified")


@given(st.text(), st.text())
def test_pseudonyms_differ_by_value_kind_and_key(value, other):
    mine = pseudonym(KEY, "patient", value)
    assert mine == pseudonym(KEY, "patient", value)
    assert len(mine) == 32
    assert int(mine, 16) >= 0
    assert mine != pseudonym(KEY, "study", value)
    assert mine != pseudonym(OTHER, "patient", value)
    assert (mine == pseudonym(KEY, "patient", other)) == (value == other)


@given(st.text(alphabet="0123456789.", min_size=1, max_size=64))
def test_uids_have_the_2_25_form(uid):
    made = pseudonymous_uid(KEY, uid)
    assert made.startswith("2.25.")
    assert len(made) <= 64
    assert not made[5:].startswith("0")
    assert 0 < int(made[5:]) < 2**128
    assert made != pseudonymous_uid(OTHER, uid)


@given(st.text(), st.integers(1, 3650))
def test_dates_always_move_and_never_too_far(patient, limit):
    assert 1 <= abs(date_shift_days(KEY, patient, limit)) <= limit


def test_every_shift_in_range_occurs():
    assert {date_shift_days(KEY, str(n), 3) for n in range(500)} == {-3, -2, -1, 1, 2, 3}


@given(key=st.binary(min_size=1, max_size=100), value=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_pseudonyms_are_hmac(key, value):
    """Whatever is kept between two of them: the same as Python's own HMAC says."""
    digest = hmac.digest(key, f"study\x1f{value}".encode(), "sha256")
    assert pseudonym(key, "study", value) == digest[:16].hex()
    number = int.from_bytes(hmac.digest(key, f"uid\x1f{value}".encode(), "sha256")[:16], "big")
    assert pseudonymous_uid(key, value) == f"2.25.{number or 1}"
