#!/usr/bin/env python3
"""What users.py counted, in words: counted.py FILE"""
import json
import sys

with open(sys.argv[1]) as file:
    counts = json.load(file)
failed = {answer: count for answer, count in counts.items() if not answer.startswith("Welcome")}
total, bad = sum(counts.values()), sum(failed.values())
why = f" ({', '.join(sorted(failed))}: {100 * bad / total:.2f} %)" if bad else ""
print(f"{total} answers, {bad} failed{why}")
