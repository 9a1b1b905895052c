"""spark-submit jobs/records.py --conf-file conf/local.yaml - the same as `pictures records`."""

import sys

from pictures_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["records", *sys.argv[1:]]))
