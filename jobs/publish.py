"""spark-submit jobs/publish.py --conf-file conf/local.yaml - the same as `pictures publish`."""

import sys

from pictures_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
