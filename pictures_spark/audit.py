"""The audit chain: what was read, frozen and delivered, by whom and what for, in a file that is only ever added to.

Each event is one line of JSON in ``governance/audit.jsonl``. It holds the hash of the event before it, so an edited, removed, moved or
inserted line breaks the chain from there on. That the end was not cut off shows by a head (number and hash of an event) that is kept
elsewhere: reports of jobs and manifests hold one, and whoever reviews writes one down.

A writer holds a lock, adds its line in one write and waits until the disk has it; only then is anything shown. A writer that was killed
in the middle leaves a torn line. It is never removed: the next event closes it and names its hash.
"""

import fcntl
import hashlib
import json
import os
import pwd
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pictures_spark.config import Config
from pictures_spark.errors import ChecksFailedError, ConfigError, NotPermittedError
from pictures_spark.report import utc_now
from pictures_spark.zones import Zones

ZONE = "governance"
AUDIT = "audit.jsonl"
GENESIS = "0" * 64
_TORN = b"\x18"  # ASCII CANCEL: JSON has no such byte, so a closed torn line never reads as an event
_BLOCK = 1 << 16
_LONG_NUMBER = re.compile(r"\d(?:[ -]?\d){6,}")
_HEAD = re.compile(r"(\d+):([0-9a-f]{64})")


@dataclass(frozen=True)
class Head:
    """The newest event of a chain: how many there are, and its hash."""

    count: int
    hash: str

    def __str__(self) -> str:
        return f"{self.count}:{self.hash}"


EMPTY = Head(0, GENESIS)


def parse_head(text: str) -> Head:
    """A head as it is printed.

    Raises
    ------
    ConfigError
        It is none.

    Examples
    --------
    >>> parse_head("0:" + "0" * 64) == EMPTY
    True
    """
    found = _HEAD.fullmatch(text.strip())
    if found is None:
        raise ConfigError("a head of the audit chain is a number, a colon and 64 hex digits, as `pictures audit head` prints it")
    return Head(int(found[1]), found[2])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a chain: nobody else adds to it meanwhile.

    Raises
    ------
    NotPermittedError
        This account may not write there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except PermissionError:
        raise NotPermittedError("this account may not use the governance zone: ask through one that may, or have rights given") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def append(path: Path, *events: dict[str, Any]) -> Head:
    """Add events to a chain, all or (of those that a killed process leaves) the first ones, and wait until they are on disk."""
    with locked(path):
        return append_locked(path, *events)


def append_locked(path: Path, *events: dict[str, Any]) -> Head:
    """The same for a caller that holds the lock."""
    new = not path.exists()
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        head, torn, closed = _end(handle)
        data = b"" if closed else _TORN + b"\n"
        for event in events:
            body = event | ({"torn": torn} if torn else {})
            torn = []
            after = Head(head.count + 1, _hash(head, body))
            data += _canonical({"n": after.count, "previous": head.hash, "hash": after.hash} | body) + b"\n"
            head = after
        while data:
            data = data[os.write(handle, data) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        _sync(path.parent)
    return head


def read(path: Path) -> list[dict[str, Any]]:
    """The events of a chain in order, as they were given, without a check of the chain."""
    found = []
    for line in _lines(path):
        if not line.endswith(_TORN):
            event = _event(line)
            if event is not None:
                found.append({name: value for name, value in event.items() if name not in ("n", "previous", "hash", "torn")})
    return found


def verify(path: Path, heads: Iterable[Head] = ()) -> tuple[Head, list[str]]:
    """Recompute a chain.

    Parameters
    ----------
    heads : heads that were kept elsewhere; each must be in the chain.

    Returns
    -------
    The chain's head as far as it holds, and every fault: nothing is wrong where there is none.
    """
    head, faults, torn, hashes = EMPTY, [], [], {0: GENESIS}
    for number, line in enumerate(_lines(path), start=1):
        if line.endswith(_TORN):
            torn.append(hashlib.sha256(line[:-1]).hexdigest())
            continue
        event = _event(line)
        if event is None:
            faults.append(f"line {number} is no event")
            break
        body = {name: value for name, value in event.items() if name not in ("n", "previous", "hash")}
        if event.get("n") != head.count + 1 or event.get("previous") != head.hash:
            faults.append(f"line {number} does not follow event {head.count}: an event was removed, inserted or moved")
            break
        if event.get("hash") != _hash(head, body) or _canonical(event) != line:
            faults.append(f"event {head.count + 1} was changed")
            break
        if body.get("torn", []) != torn:
            faults.append(f"a line before event {head.count + 1} was changed or removed")
            break
        torn = []
        head = Head(head.count + 1, event["hash"])
        hashes[head.count] = head.hash
    if not faults and torn:
        faults.append("the last line was marked as torn by nobody")
    for kept in sorted(set(heads), key=lambda kept: kept.count):
        if kept.count > head.count and not faults:
            faults.append(f"the chain ends with event {head.count}, but event {kept.count} was there: its end was cut off")
        elif kept.count <= head.count and hashes[kept.count] != kept.hash:
            faults.append(f"event {kept.count} is not the one that was there: the chain was written anew")
    return head, faults


def record(zones: Zones, action: str, **said: Any) -> Head:
    """Add an event to the house's audit chain.

    Parameters
    ----------
    action : ``count``, ``freeze``, ``extract`` and so on.
    said : what else the event says; never an identifier. None is left out.
    """
    event = {"at": utc_now().isoformat(), "who": account(), "role": zones.role, "action": action}
    return append(zones.path(ZONE, AUDIT, mode="append"), event | {name: value for name, value in said.items() if value is not None})


def account() -> str:
    """The account that this process runs as, as the machine and not the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def plain_purpose(text: str) -> str:
    """A purpose that may be written down.

    Raises
    ------
    ConfigError
        It is empty, too long, or holds a number that may be somebody's.
    """
    purpose = " ".join(text.split())
    if not 3 <= len(purpose) <= 300 or _LONG_NUMBER.search(purpose):
        raise ConfigError("a purpose is 3 to 300 characters, kept for ever: name the project and the reason, nobody, and no long number")
    return purpose


def run(action: str, config: Config, heads: list[str]) -> None:
    """``pictures audit head | verify | list``.

    Raises
    ------
    ChecksFailedError
        The chain does not hold.
    """
    path = Zones(config, "auditor").path(ZONE, AUDIT)
    if action == "list":
        for event in read(path):
            print(_canonical(event).decode())
        return
    kept = [parse_head(head) for head in heads] + _reported(Path(config.location(config["reports"])))
    head, faults = verify(path, kept)
    if faults:
        raise ChecksFailedError("the audit chain does not hold: " + "; ".join(faults))
    print(f"{head.count} events, and {len(kept)} heads from elsewhere agree" if action == "verify" else head)


def _reported(folder: Path) -> list[Head]:
    """Heads that reports of jobs hold."""
    found = []
    for path in folder.glob("*.json"):
        try:
            details = json.loads(path.read_text(encoding="utf-8")).get("details", {})
        except ValueError:
            continue  # a report that a killed job did not finish
        if "audit" in details:
            found.append(parse_head(details["audit"]))
    return found


def _end(handle: int) -> tuple[Head, list[str], bool]:
    """Head of an open chain, hashes of the torn lines after it, and whether the file's last line is closed."""
    size = os.fstat(handle).st_size
    data, at = b"", size
    while at > 0:
        step = min(at, max(_BLOCK, len(data)))
        at -= step
        data = os.pread(handle, step, at) + data
        lines = data.split(b"\n")
        # The first piece may be the end of a line that begins further back.
        whole = lines if at == 0 else lines[1:]
        *finished, rest = whole if whole else [data]
        torn = [hashlib.sha256(rest).hexdigest()] if rest else []
        for line in reversed(finished):
            if line.endswith(_TORN):
                torn.insert(0, hashlib.sha256(line[:-1]).hexdigest())
                continue
            event = _event(line)
            if event is None or not isinstance(event.get("n"), int) or not isinstance(event.get("hash"), str):
                raise ChecksFailedError("the last event of a chain in the governance zone cannot be read: run `pictures audit verify`")
            return Head(event["n"], event["hash"]), torn, not rest
        if at == 0:
            return EMPTY, torn, not rest
    return EMPTY, [], True


def _lines(path: Path) -> list[bytes]:
    """Closed lines; one that was torn at the very end is not there until somebody closes it."""
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _canonical(event: dict[str, Any]) -> bytes:
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _hash(before: Head, body: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical({"n": before.count + 1, "previous": before.hash, "body": body})).hexdigest()


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
