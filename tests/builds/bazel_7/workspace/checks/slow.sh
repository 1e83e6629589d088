#!/bin/bash
# Ignores the polite request to end.
trap '' TERM
echo "printed before the timeout"
while :; do sleep 1; done
