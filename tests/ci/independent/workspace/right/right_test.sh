#!/bin/sh
word=$(cat right/word.txt)
echo "right says $word"
grep -qx "$word" common/sorted.txt
