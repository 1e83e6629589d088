#!/bin/sh
word=$(cat apart/word.txt)
echo "apart says $word"
[ "$word" != wrong ]
