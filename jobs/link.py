"""spark-submit jobs/link.py --conf-file conf/local.yaml - the same as `pictures link`."""

import sys

from pictures_spark.cli import main

if __name__ == "__main__":
    sys.exit(main(["link", *sys.argv[1:]]))
