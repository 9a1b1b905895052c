"""spark-submit jobs/extract.py COHORT --project NAME --conf-file conf/local.yaml - the same as `pictures extract`."""

import sys

from pictures_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["extract", *sys.argv[1:]]))
