"""spark-submit jobs/publish.py --conf-file conf/local.yaml - the same as `pictures publish`."""

import sys

# This folder comes first on the path, and its select.py would stand in for Python's own module of that name.
sys.path = [folder for folder in sys.path if folder != __file__.rpartition("/")[0]]

from pictures_spark.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
