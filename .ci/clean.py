"""Reads `viommu replay --json` on standard input and fails unless it reports so many traces, each one compared whole
and without a mismatch."""

import json
import sys

reports = [json.loads(line) for line in sys.stdin]
wrong = []
for report in reports:
    seen = report.get("translations")
    if seen is None:
        wrong.append(f"{report['trace']}: no translations: {report.get('refused')}")
        continue
    print(f"   {report['trace']}: {seen['matched']} of {seen['checked']} matched, {seen['stage2_faults']} stage-2 faults")
    if seen["mismatched"] != 0:
        wrong.append(f"{report['trace']}: {seen['mismatched']} mismatched")
    if seen["checked"] != seen["records"] * report["vms"]:
        wrong.append(f"{report['trace']}: {seen['checked']} checked of {seen['records']} records x {report['vms']} VMs")
    if seen["matched"] + seen["stage2_faults"] != seen["checked"]:
        wrong.append(f"{report['trace']}: matched + stage2_faults is not checked")
if len(reports) != int(sys.argv[1]):
    wrong.append(f"{len(reports)} traces reported, {sys.argv[1]} given")
if wrong:
    sys.exit("\n".join(wrong))
