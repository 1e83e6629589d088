#!/bin/bash
# Flaky: in one of four runs the mail server (a random number stands for it) hangs up, whatever the inputs are.
byte=$(od -An -N1 -tu1 /dev/urandom)
if ((byte % 4 == 0)); then
  echo "mail server: connection reset by peer" >&2
  exit 1
fi
