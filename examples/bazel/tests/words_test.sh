#!/bin/bash
# Each shard checks its share of the files: every word begins with the letter of its directory.
set -eu
touch "${TEST_SHARD_STATUS_FILE:-/dev/null}"
index=${TEST_SHARD_INDEX:-0} total=${TEST_TOTAL_SHARDS:-1} n=0 checked=0
for file in "$1"/by-letter/*/words.txt; do
  if [ $((n++ % total)) -eq "$index" ]; then
    letter=$(basename "$(dirname "$file")")
    if grep -v "^$letter" "$file"; then
      echo "words in $file that do not begin with $letter" >&2
      exit 1
    fi
    checked=$((checked + 1))
  fi
done
echo "shard $index of $total checked $checked of $n files"
[ "$checked" -gt 0 ]
