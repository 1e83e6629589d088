#!/bin/bash
sleep 1
now=$(date +%s)
echo "now $now, ready at ${READY_AT:?}"
[ "$now" -ge "$READY_AT" ]
