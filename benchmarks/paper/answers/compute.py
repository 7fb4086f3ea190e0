"""Machines, versions and time, from the records."""

import json
from collections import Counter, defaultdict


def compute(records):
    """Return lines about the machines, versions and time behind the numbers."""
    machines, versions, seconds = Counter(), Counter(), defaultdict(dict)
    for record in records:
        provenance = record["provenance"]
        if record["kind"] == "choice":  # made from scores, which takes nothing
            continue
        place = provenance["compute"]
        machines[f"{place['device']} on {place['machine']}, {place['threads']} threads"] += 1
        versions[", ".join(f"{name} {version}" for name, version in sorted(provenance["versions"].items()))] += 1
        own, spent = seconds[record["kind"]], record["result"].get("seconds", 0)
        what = _trajectory(record)
        own[what] = max(spent, own.get(what, 0))
    lines = [f"{what}: {count} records" for what, count in [*machines.most_common(), *versions.most_common()]]
    spent = {kind: sum(parts.values()) / 3600 for kind, parts in sorted(seconds.items())}
    times = [f"{_WORDS.get(kind, kind)} {hours:.1f} h" for kind, hours in spent.items() if hours]
    return [*lines, f"time in the records: {', '.join(times)}"]


def _trajectory(record):
    """What takes its time once: the points of one trajectory each include all the time up to them."""
    if record["kind"] != "distilled":
        return record["key"]
    return json.dumps(record["identity"]["trajectory"], sort_keys=True)


_WORDS = {"distilled": "distillation", "student": "students", "artifact": "teachers"}
