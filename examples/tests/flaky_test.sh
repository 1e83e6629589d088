#!/bin/bash
# What no input says decides: the kernel's random numbers stand for a race, a port, a clock.
byte=$(od -An -N1 -tu1 /dev/urandom)
if ((byte % 2)); then
  echo "connection reset by peer" >&2
  exit 1
fi
