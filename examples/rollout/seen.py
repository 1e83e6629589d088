#!/usr/bin/env python3
"""What came of one rollout, on a line: `kiln rollout show ID --json` on its standard input, with what users were answered.

    seen.py FIRST USERS.json   ends with 1 where a rollout that was reverted had touched more than its FIRST targets
"""
import json
import sys
from datetime import datetime

it = json.load(sys.stdin)
first = int(sys.argv[1])
with open(sys.argv[2]) as file:
    counts = json.load(file)
lost = sum(count for answer, count in counts.items() if answer.startswith("lost"))
failed = sum(count for answer, count in counts.items() if answer[:1].isdigit() and answer[3:4] == " ")
took = datetime.fromisoformat(it["updated"]) - datetime.fromisoformat(it["started"])
print(f"  {it['release']}: {it['phase'].replace('_', ' ')} after {took.seconds} s, {it['changed']} of {it['targets']} hosts had it")
if it["why"]:
    print(f"  because {it['why']}; reverted within {it['reverted_s']} s of that")
print(f"  users: {sum(counts.values())} requests, {failed} were answered with an error, {lost} were not answered")
print(f"  {json.dumps(counts)}")
sys.exit(it["phase"] == "rolled_back" and it["changed"] > first)
