"""Keys and pseudonyms.

One master key per ``key_id`` lives in ``identifiable/keys/<key_id>.key`` (32 random bytes, mode 0600). Everything else is derived from
it by HKDF-SHA256 (RFC 5869) with the purpose as ``info``: the zone-wide key, one key per project, the object key. Executors get a
:class:`KeyRef`, a place and a purpose, and read the file themselves: key bytes never travel in a plan, a setting, an argument or a log.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from pictures_spark.errors import NotPermittedError
from pictures_spark.zones import Zones


@cache
def _master(path: str) -> bytes:
    file = Path(path)
    if not file.is_file():
        raise NotPermittedError("the pseudonymisation key is missing from the identifiable zone; run `pictures keys init` once")
    if file.stat().st_mode & 0o077:
        raise NotPermittedError("the pseudonymisation key can be read by others; set its mode to 0600")
    key = file.read_bytes()
    if len(key) != 32:
        raise NotPermittedError("the pseudonymisation key is not 32 bytes long; restore it from its backup")
    return key


@cache
def _derive(path: str, purpose: str) -> bytes:
    extracted = hmac.digest(b"pictures-spark", _master(path), "sha256")
    return hmac.digest(extracted, purpose.encode() + b"\x01", "sha256")


@dataclass(frozen=True)
class KeyRef:
    """Where a key is and what it is for; safe to send to executors."""

    path: str
    key_id: str
    purpose: str

    def bytes(self) -> bytes:
        """The derived 32-byte key, read on the machine that needs it.

        Raises
        ------
        NotPermittedError
            The key file is missing, too open, or damaged.
        """
        return _derive(self.path, self.purpose)


def key_ref(zones: Zones, key_id: str, purpose: str) -> KeyRef:
    """Refer to a derived key. ``purpose`` is ``deidentified``, ``object`` or ``project:<name>``.

    Raises
    ------
    ZoneViolationError
        The role may not read the identifiable zone.
    """
    return KeyRef(str(zones.path("identifiable", "keys", f"{key_id}.key")), key_id, purpose)


def init_key(zones: Zones, key_id: str) -> bool:
    """Make the master key if it is not there; True where it was made. An existing key is never touched."""
    path = zones.path("identifiable", "keys", f"{key_id}.key", mode="write")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(32))
    return True


@lru_cache(64)
def _started(key: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """The inner and outer hash of HMAC-SHA-256 after the key (RFC 2104): to copy them costs less than to begin anew."""
    block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
    return hashlib.sha256(bytes(byte ^ 0x36 for byte in block)), hashlib.sha256(bytes(byte ^ 0x5C for byte in block))


def _keyed(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256 of many messages under one key."""
    begun, ended = _started(key)
    inner, outer = begun.copy(), ended.copy()
    inner.update(message)
    outer.update(inner.digest())
    return outer.digest()


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """Keyed pseudonym of an identifier: 32 hex digits of HMAC-SHA-256 over its kind and value.

    ``kind`` (patient, study, series, image, accession, event, stay, report, frame_of_reference, object) keeps equal strings of different
    meaning apart. At 10^10 values the chance of any collision in 128 bits is about 10^-19.
    """
    return _keyed(key, f"{kind}\x1f{value}".encode())[:16].hex()


def pseudonymous_uid(key: bytes, uid: str) -> str:
    """Keyed UID in the ``2.25.`` form of PS3.5 B.2, at most 44 characters."""
    number = int.from_bytes(_keyed(key, f"uid\x1f{uid}".encode())[:16], "big")
    return f"2.25.{number or 1}"


def date_shift_days(key: bytes, patient_id: str, limit: int) -> int:
    """Days by which every date of a patient moves in a project: keyed, in [-limit, limit], never 0."""
    number = int.from_bytes(hmac.digest(key, f"shift\x1f{patient_id}".encode(), "sha256")[:8], "big")
    shift = number % (2 * limit) - limit
    return shift if shift < 0 else shift + 1


def pseudonym_udf(ref: KeyRef, kind: str) -> Callable:
    """A Spark function from a string column to its pseudonyms; null stays null. Runs on executors."""
    import pandas as pd
    from pyspark.sql.functions import pandas_udf

    def convert(values: pd.Series) -> pd.Series:
        key = ref.bytes()
        return values.map(lambda value: pseudonym(key, kind, value), na_action="ignore").astype(object)

    # Annotations are set here because pandas is imported inside, so that a doctor without pandas can still speak.
    convert.__annotations__ = {"values": pd.Series, "return": pd.Series}
    udf: Callable = pandas_udf("string")(convert)  # type: ignore[call-overload]
    return udf


def fingerprint(*parts: str) -> str:
    """SHA-256 over parts, hex; for input fingerprints, never for identifiers."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
