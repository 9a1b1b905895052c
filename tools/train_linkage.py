"""Train the weights of schemas/linkage/model.json anew.

    python tools/train_linkage.py [--conf-file FILE] [--people 30000] [--to schemas/linkage/model.json]

Learns from headers that an identifier has linked: header and register row are then one person, however the name was typed (m), and pairs
at random are two (u). With ``--conf-file`` from the house of these settings, after `pictures link`; without, from synthetic people of
another seed than those that the quality is measured on. What is compared stays as the model has it. The weights of ``number`` stay too:
a header that was linked by its number has none that is wrong.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from pictures_spark import tables
from pictures_spark.config import Config, load_config
from pictures_spark.job import run_job
from pictures_spark.linkage import evidence, history, link, probabilistic
from pictures_spark.resources import schemas_dir
from pictures_spark.session import open_session
from pictures_spark.zones import Zones

SEED, PAIRS = 3, 3e7
LEAST = 1e-6


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conf-file", type=Path)
    parser.add_argument("--people", type=int, default=30_000)
    parser.add_argument("--to", type=Path, default=schemas_dir() / "linkage" / "model.json")
    arguments = parser.parse_args()
    if arguments.conf_file:
        trained = train(load_config(arguments.conf_file))
    else:
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
        import linkage

        home = Path(".cache/benchmarks/train_linkage").resolve()
        config = linkage.house(home, arguments.people, SEED)
        run_job("link", config, "identifiable", link.run)
        trained = train(config)
        shutil.rmtree(home)
    arguments.to.write_text(json.dumps(trained, indent=1) + "\n", encoding="utf-8")


def train(config: Config) -> dict:
    """The stored model with weights learned from a house's exact links."""
    zones = Zones(config, "identifiable")
    spark = open_session(config, zones)
    rules = evidence.rules()
    header, series, person, crosswalk = (
        tables.read(spark, zones, "identifiable", name) for name in ("header_instance", "header_series", "person", "crosswalk")
    )
    seen = link.images(header, series, rules)
    links = history.current(crosswalk).where("method IN ('exact', 'alias')").select("evidence_id", "upi")
    folder = zones.path("identifiable", "scratch", "train", mode="write")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    labelled = probabilistic.headers(seen.withColumn("number", seen.number.substr(1, 0)))
    labelled = labelled.withColumnsRenamed({"unique_id": "evidence_id"}).join(links, "evidence_id")
    labelled.withColumnsRenamed({"evidence_id": "unique_id"}).write.parquet(str(folder / probabilistic.HEADERS))
    probabilistic.register(person.where("current"), rules).write.parquet(str(folder / probabilistic.REGISTER))
    connection = probabilistic.connect(folder)
    # The truth is a column of both for training, and of neither for linking.
    connection.execute("ALTER TABLE register ADD COLUMN upi VARCHAR")
    connection.execute("UPDATE register SET upi = people.upi FROM people WHERE people.unique_id = register.unique_id")
    untrained = json.loads(json.dumps(probabilistic.model()))
    fixed = {c["output_column_name"]: c for c in untrained["comparisons"] if c["output_column_name"] == "number"}
    untrained["comparisons"] = [c for c in untrained["comparisons"] if c["output_column_name"] not in fixed]
    for level in (level for comparison in untrained["comparisons"] for level in comparison["comparison_levels"]):
        level.pop("m_probability", None)
        level.pop("u_probability", None)
    learning = probabilistic.linker(connection, untrained)
    learning.training.estimate_u_using_random_sampling(max_pairs=PAIRS, seed=SEED)
    learning.training.estimate_m_from_label_column("upi")
    found = learning.misc.save_model_to_json()
    learned = {c["output_column_name"]: c["comparison_levels"] for c in found["comparisons"]}
    trained = json.loads(json.dumps(probabilistic.model()))
    for comparison in trained["comparisons"]:
        for level, new in zip(comparison["comparison_levels"], learned.get(comparison["output_column_name"], []), strict=False):
            if level.get("is_null_level"):
                continue
            # A level that no pair had would rule a person out for good, or in; so it says nothing.
            level["u_probability"] = round(max(new.get("u_probability") or 0.0, LEAST), 8)
            level["m_probability"] = round(max(new.get("m_probability") or level["u_probability"], LEAST), 8)
    shutil.rmtree(folder)
    return trained


if __name__ == "__main__":
    main()
