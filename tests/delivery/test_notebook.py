"""The analyst's notebook runs on a delivery, finds damage, and is stored without outputs."""

import hashlib
from datetime import timedelta
from pathlib import Path

import nbformat
import numpy as np
import pyarrow as pa
import pytest
from instances import dicom_bytes, instance
from located import new_task, write
from nbclient import NotebookClient

from pictures_spark.delivery import package

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_open_a_package.ipynb"


@pytest.fixture
def delivery(tmp_path):
    """Two series of two people, one image withheld, one dispensing 30 days before the scan."""
    task = new_task(tmp_path)
    rows = []
    for number, conflict in ((1, False), (2, False), (3, True)):
        about = {"SOPInstanceUID": f"1.2.3.4.{number}", "SeriesInstanceUID": f"1.2.3.{number}"}
        data = dicom_bytes(instance(np.full((8, 8), number, np.uint16), RescaleSlope="1", RescaleIntercept="-1024", **about))
        (tmp_path / "archive" / f"{number}.dcm").write_bytes(data)
        rows.append({"path": f"{number}.dcm", "content_sha256": hashlib.sha256(data).hexdigest(), "sop_uid": f"1.2.3.4.{number}",
                     "series_uid": f"1.2.3.{number}", "subject_id": f"p{number}", "conflict": conflict})  # fmt: skip
    lines = write(task, *rows)
    folder = tmp_path / "staging"
    manifest = pa.Table.from_pylist(lines).drop_columns("fresh")
    person, scan = lines[0]["patient_id"], lines[0]["scan_date"]
    event = {"event_id": "e1", "patient_id": person, "kind": "dispensing", "system": "bnf", "code": "0208020V0AAAAAA",
             "date": scan - timedelta(30), "value_std": None, "unit_std": None}  # fmt: skip
    patients = [{"patient_id": person, "sex": "F", "death_date": None}]
    package.write_table(manifest, folder, package.MANIFEST, "image_uid")
    package.write_table(pa.Table.from_pylist([event]), folder, package.EVENTS, "event_id")
    package.write_table(pa.Table.from_pylist(patients), folder, package.PATIENTS, "patient_id")
    about = {"delivery": "d", "project": "demo", "policy": "default 1", "withheld": package.withheld_reasons(manifest)}
    package.write_papers(folder, about, manifest, events=1, patients=1)
    return folder


def executed(folder, tmp_path, monkeypatch):
    """The notebook after a run, in a kernel of this environment that writes below the test's folder only."""
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path / "kernel"))
    monkeypatch.setenv("PICTURES_DELIVERY", str(folder))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    return notebook


def printed(notebook):
    """Everything that the cells show as text."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs), outputs


def test_the_notebook_opens_a_delivery(delivery, tmp_path, monkeypatch):
    text, outputs = printed(executed(delivery, tmp_path, monkeypatch))
    assert "7 files, all as they were delivered" in text
    assert "2 images of 2 people in 2 series" in text
    assert "conflict" in text
    assert "-30  dispensing" in text
    assert "from 90 days before to 30 days after the first scan: 1 events" in text
    assert any("image/png" in output.get("data", {}) for output in outputs)


def test_the_notebook_stops_at_a_damaged_file(delivery, monkeypatch):
    next(delivery.rglob("*.dcm")).write_bytes(b"damaged")
    monkeypatch.setenv("PICTURES_DELIVERY", str(delivery))
    setup, check, *_ = (cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code")
    names: dict = {}
    exec(setup, names)
    with pytest.raises(AssertionError, match="1 files are damaged"):
        exec(check, names)


def test_no_outputs_are_stored():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


def test_it_needs_nothing_but_what_an_analyst_has():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    lines = [line.split()[1].split(".")[0] for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines()
             if line.startswith(("import ", "from "))]  # fmt: skip
    assert set(lines) <= {"hashlib", "os", "pathlib", "matplotlib", "pandas", "pydicom"}
