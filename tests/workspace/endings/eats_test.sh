#!/bin/bash
# Needs more memory than its target allows.
echo "printed before the limit"
x=$(head -c 400000000 /dev/zero | tr "\0" x)
echo "$x"
