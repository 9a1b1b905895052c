"""The audit chain: any change shows, writers do not get in each other's way, and a killed writer loses and hides nothing."""

import json
import multiprocessing
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pictures_spark import audit
from pictures_spark.audit import EMPTY, Head
from pictures_spark.cli import main
from pictures_spark.errors import ChecksFailedError, ConfigError, NotPermittedError, ZoneViolationError
from pictures_spark.zones import Zones


def chain(folder, n=6):
    """A chain of n events with a torn line in it, and the head after each event."""
    path = folder / "audit.jsonl"
    heads = []
    for i in range(n):
        if i == n // 2:
            with path.open("ab") as file:
                file.write(b'{"action":"cou')
        heads.append(audit.append(path, {"action": "count", "i": i, "text": "naïve \n line"}))
    return path, heads


def test_events_come_back_in_order_and_the_chain_holds(tmp_path):
    path, heads = chain(tmp_path)
    assert [event["i"] for event in audit.read(path)] == list(range(6))
    assert audit.verify(path, heads) == (heads[-1], [])
    assert [head.count for head in heads] == list(range(1, 7))
    assert audit.verify(tmp_path / "none.jsonl") == (EMPTY, [])


@given(data=st.data())
def test_any_change_to_the_file_shows(data, tmp_path_factory):
    path, heads = chain(tmp_path_factory.mktemp("chain"))
    lines = path.read_bytes().split(b"\n")[:-1]
    kind = data.draw(st.sampled_from(["edit", "byte", "delete", "move", "copy", "cut", "cut_bytes", "insert", "rewrite"]))
    place = data.draw(st.integers(0, len(lines) - 1))
    match kind:
        case "edit":
            event = json.loads(next(line for line in lines[place:] + lines if not line.endswith(b"\x18")))
            event["i"] = event["i"] + 1
            lines[place] = json.dumps(event, sort_keys=True, separators=(",", ":")).encode()
        case "byte":
            at = data.draw(st.integers(0, len(lines[place]) - 1))
            flipped = lines[place][at] ^ (1 << data.draw(st.integers(0, 6)))
            lines[place] = lines[place][:at] + bytes([flipped]) + lines[place][at + 1 :]
        case "delete":
            del lines[place]
        case "move":
            other = data.draw(st.integers(0, len(lines) - 1).filter(lambda i: i != place))
            lines[place], lines[other] = lines[other], lines[place]
        case "copy":
            lines.insert(place, lines[data.draw(st.integers(0, len(lines) - 1))])
        case "cut":
            lines = lines[:place]
        case "insert":
            lines.insert(place, b"{}")
        case "rewrite":
            # Somebody with the code makes a whole chain of other events: only a head kept elsewhere tells.
            path.unlink()
            for i in range(6):
                audit.append(path, {"action": "count", "i": i + 1})
            lines = path.read_bytes().split(b"\n")[:-1]
    content = b"\n".join(lines) + b"\n" if lines else b""
    if kind == "cut_bytes":
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    path.write_bytes(content)
    assert audit.verify(path, [heads[-1]])[1] != []


def test_an_end_that_was_cut_off_shows_by_a_head_that_was_kept(tmp_path):
    path, heads = chain(tmp_path)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join(lines[:2]) + b"\n")
    assert audit.verify(path) == (heads[1], [])
    assert audit.verify(path, heads[:2]) == (heads[1], [])
    assert audit.verify(path, heads)[1][0] == "the chain ends with event 2, but event 3 was there: its end was cut off"
    assert audit.verify(path, [Head(1, "0" * 64)])[1] == ["event 1 is not the one that was there: the chain was written anew"]


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_a_writer_that_was_killed_leaves_a_line_that_the_next_one_closes(tmp_path, kept):
    """The process is really killed, in the middle of its write."""
    path = tmp_path / "audit.jsonl"
    first = audit.append(path, {"action": "freeze"})
    program = f"""
import os, signal
from pathlib import Path
from pictures_spark import audit
true_write = os.write
def torn(handle, data):
    true_write(handle, data[: {kept} if {kept} >= 0 else len(data) - 1])
    os.kill(os.getpid(), signal.SIGKILL)
os.write = torn
audit.append(Path({str(path)!r}), {{"action": "count", "torn_event": 1}})
"""
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    left = path.read_bytes()
    assert audit.verify(path, [first]) == (first, [])
    last = audit.append(path, {"action": "extract"})
    assert audit.verify(path, [first, last]) == (last, [])
    assert path.read_bytes().startswith(left)  # nothing was taken away
    assert [event["action"] for event in audit.read(path)] == ["freeze", "extract"]


def test_two_killed_writers_in_a_row_and_one_killed_while_it_closed_a_line(tmp_path):
    path = tmp_path / "audit.jsonl"
    audit.append(path, {"i": 0})
    with path.open("ab") as file:
        file.write(b'{"i":1\x18\n{"i":2')
    assert audit.verify(path)[1] == ["the last line was marked as torn by nobody"]
    last = audit.append(path, {"i": 3})
    assert audit.verify(path) == (last, [])
    with path.open("ab") as file:
        file.write(b"torn\x18")
    last = audit.append(path, {"i": 4}, {"i": 5})
    assert audit.verify(path, [last]) == (last, [])
    assert [event["i"] for event in audit.read(path)] == [0, 3, 4, 5]


def test_an_event_longer_than_what_is_read_at_once(tmp_path):
    path = tmp_path / "audit.jsonl"
    for size in (10, 200_000, 10, 70_000):
        last = audit.append(path, {"text": "x" * size})
    assert audit.verify(path) == (last, [])
    assert last.count == 4


def _write(path, who, n):
    for i in range(n):
        audit.append(path, {"who": who, "i": i})


def test_writers_at_the_same_time_make_one_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, who, 20)) for who in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    head, faults = audit.verify(path)
    assert (head.count, faults) == (80, [])
    for who in range(4):
        assert [event["i"] for event in audit.read(path) if event["who"] == who] == list(range(20))


def test_a_damaged_end_is_not_built_upon(tmp_path):
    path, _ = chain(tmp_path)
    with path.open("ab") as file:
        file.write(b"rubbish\n")
    with pytest.raises(ChecksFailedError, match="run `pictures audit verify`"):
        audit.append(path, {"action": "count"})


@pytest.mark.parametrize("text", ["", "x", "y" * 301, "for CHI 0311461236", "phone 01382 1234 567"])
def test_a_purpose_names_nobody_by_a_number(text):
    with pytest.raises(ConfigError, match="a purpose is 3 to 300 characters"):
        audit.plain_purpose(text)


def test_a_purpose_is_one_line():
    assert audit.plain_purpose("feasibility,\n project 2026-12") == "feasibility, project 2026-12"


def test_an_event_says_who_when_and_in_which_role_and_nothing_that_is_not_said(config):
    zones = Zones(config, "counter")
    head = audit.record(zones, "count", purpose=None, counts={"units": 5})
    (event,) = audit.read(zones.path("governance", "audit.jsonl"))
    assert head.count == 1
    assert set(event) == {"at", "who", "role", "action", "counts"}
    assert (event["who"], event["role"], event["action"]) == (audit.account(), "counter", "count")
    assert oct((config.home / "governance" / "audit.jsonl").stat().st_mode & 0o777) == "0o600"
    for role in ("project", "auditor", "synthesiser"):
        with pytest.raises(ZoneViolationError):
            audit.record(Zones(config, role, "demo"), "count")


def test_the_command_verifies_against_heads_from_elsewhere(config, capsys):
    zones = Zones(config, "counter")
    heads = [audit.record(zones, "count", i=i) for i in range(3)]
    arguments = ["--conf-file", str(config.path)]
    reports = config.home / "reports"
    reports.mkdir()
    (reports / "select-1.json").write_text(json.dumps({"details": {"audit": str(heads[1])}}))
    (reports / "torn.json").write_text("{")
    assert main(["audit", "head", *arguments]) == 0
    assert capsys.readouterr().out == f"{heads[-1]}\n"
    assert main(["audit", "verify", "--head", str(heads[2]), *arguments]) == 0
    assert capsys.readouterr().out == "3 events, and 2 heads from elsewhere agree\n"
    assert main(["audit", "list", *arguments]) == 0
    assert [json.loads(line)["i"] for line in capsys.readouterr().out.splitlines()] == [0, 1, 2]

    path = config.home / "governance" / "audit.jsonl"
    path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")
    assert main(["audit", "verify", *arguments]) == 13
    assert "the chain ends with event 1, but event 2 was there: its end was cut off" in capsys.readouterr().err
    assert main(["audit", "verify", "--head", "nonsense", *arguments]) == 10


def test_an_account_that_may_not_write_there_is_told_so(config, monkeypatch):
    def refused(*_, **__):
        raise PermissionError

    monkeypatch.setattr(audit.os, "open", refused)
    with pytest.raises(NotPermittedError, match="this account may not use the governance zone"):
        audit.record(Zones(config, "counter"), "count")


def test_the_account_is_the_machines_and_not_the_environments(monkeypatch):
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("USER", "somebody-else")
    assert audit.account() != "somebody-else"
