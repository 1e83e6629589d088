#!/bin/bash
# Three cases that share a directory, in any order; "reads" passes only behind "writes".
state=$TEST_TMPDIR/state
mkdir -p "$state"
writes() { echo 1 > "$state/value"; }
reads() { [ -e "$state/value" ] || { echo "reads: there is no value, the order was: $order" >&2; return 1; }; }
idles() { :; }

order=$(printf '%s\n' writes reads idles | shuf --random-source=/dev/urandom | tr '\n' ' ')
code=0
cases=
for case in $order; do
  failure=
  "$case" || { code=1; failure='<failure message="there is no value"/>'; }
  cases+="<testcase classname=\"Order\" name=\"$case\">$failure</testcase>"
done
echo "<testsuites><testsuite name=\"Order\">$cases</testsuite></testsuites>" > "$XML_OUTPUT_FILE"
exit $code
