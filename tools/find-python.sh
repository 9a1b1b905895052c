# Print the first Python on PATH that this project runs on (3.11 or 3.12); fail with one sentence where there is none.
for python in ${PYTHON:-} python3.12 python3.11 python3 python; do
  if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
    echo "$python"
    exit 0
  fi
done
echo "setup: Python 3.11 or 3.12 is needed and neither is on PATH; install one, or run make PYTHON=/path/to/python3.11" >&2
exit 10
