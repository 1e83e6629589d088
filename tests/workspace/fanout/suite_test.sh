#!/bin/bash
# Runs twelve cases, or those of its shard, and reports them. Each takes a second, or what --each says.
total=${TEST_TOTAL_SHARDS:-1}
index=${TEST_SHARD_INDEX:-0}
fails=0
each=1.0
for argument; do
  case $argument in
    --ignore) total=1 index=0 ignores=yes ;;
    --fail=*) fails=${argument#--fail=} ;;
    --each=*) each=${argument#--each=} ;;
  esac
done
if [ -z "$ignores" ] && [ -n "$TEST_SHARD_STATUS_FILE" ]; then
  touch "$TEST_SHARD_STATUS_FILE"
fi

code=0
cases=
for ((case = 0; case < 12; case++)); do
  ((case % total == index)) || continue
  sleep "$each"
  echo "case $case"
  echo "$case" > "$TEST_UNDECLARED_OUTPUTS_DIR/case-$case.txt"
  failure=
  if ((case == fails && fails > 0)); then
    failure='<failure message="it is seven"/>'
    code=3
  fi
  cases+="<testcase classname=\"Suite\" name=\"case$case\" time=\"$each\">$failure</testcase>"
done
echo "<testsuites><testsuite name=\"Suite\">$cases</testsuite></testsuites>" > "$XML_OUTPUT_FILE"
exit $code
