#!/bin/sh
word=$(cat left/word.txt)
echo "left says $word"
grep -qx "$word" common/sorted.txt
