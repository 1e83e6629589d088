#!/bin/bash
# Never ends by itself.
echo "printed before the timeout"
while :; do sleep 1; done
