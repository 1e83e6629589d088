#!/bin/bash
# suite_test.sh CASES SECONDS [ignores]: runs the cases of its shard, each of which takes so many seconds, and reports them.
cases=$1 seconds=$2 total=${TEST_TOTAL_SHARDS:-1} index=${TEST_SHARD_INDEX:-0}
if [ "${3:-}" = ignores ]; then
  total=1 index=0
elif [ -n "${TEST_SHARD_STATUS_FILE:-}" ]; then
  touch "$TEST_SHARD_STATUS_FILE"
fi
report=
for ((case = 0; case < cases; case++)); do
  ((case % total == index)) || continue
  sleep "$seconds"
  echo "case $case"
  report+="<testcase classname=\"Suite\" name=\"case$case\" time=\"$seconds.0\"></testcase>"
done
echo "<testsuites><testsuite name=\"Suite\">$report</testsuite></testsuites>" > "$XML_OUTPUT_FILE"
