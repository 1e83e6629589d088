#!/bin/bash
read -r feature < feature.txt
if [ "$feature" != works ]; then
  echo "the feature is $feature" >&2
  exit 1
fi
