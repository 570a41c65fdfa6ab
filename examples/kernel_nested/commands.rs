//! The `viommu` command on this kernel: what it says of the lab's machine, its rows, its random sequences.

use crate::checks::Checks;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use viommu_examples::Story;

/// What `viommu conformance --json` says of a row.
const ROW: [&str; 3] = ["id", "expected", "got"];
/// Rows that there are at least.
const ROWS: usize = 170;

/// `viommu probe`, of the kernel and of devices, for people and for programs.
pub(crate) fn probe(viommu: &Path, devices: &[&str], checks: &mut Checks) -> Story {
    let (ended, said) = text(Command::new(viommu).arg("probe").output()?)?;
    checks.same("viommu probe ends with 0", ended, Some(0));
    checks.holds("it has all commands", said.contains("22 of the 22 commands"), &said);
    let first = devices.first().ok_or("no device")?;
    checks.holds("it says which device could be asked", said.contains(&format!("--device {first}")), &said);

    let named: Vec<_> = devices.iter().flat_map(|device| ["--device", device]).collect();
    let (ended, said) = text(Command::new(viommu).arg("probe").args(&named).output()?)?;
    show(&said);
    checks.same("viommu probe of the devices ends with 0", ended, Some(0));
    for device in devices {
        checks.holds(format_args!("it reports on {device}"), said.contains(device), &said);
    }
    let (ended, said) = text(Command::new(viommu).args(["probe", "--json"]).args(&named).output()?)?;
    println!("# {}", said.trim_end());
    checks.same("viommu probe --json ends with 0", ended, Some(0));
    probed(&serde_json::from_str(&said)?, devices, checks);
    Ok(())
}

/// What is true of the lab's machine, whatever found it out: an SMMUv3 with two stages, range invalidation and 44 bits of
/// addresses, without substreams, ATS, dirty tracking and CMDQV.
fn probed(json: &Value, devices: &[&str], checks: &mut Checks) {
    let report = &json["report"];
    let commands: Vec<_> = report["commands"].as_array().into_iter().flatten().collect();
    let there = commands.iter().filter(|command| command["there"] == true).count();
    checks.same("probe: 22 commands, all there", (commands.len(), there), (22, 22));
    checks.same("probe: the kernel lacks nothing", &report["lacks"], &Value::Array(vec![]));
    let asked =
        (report["devices"].as_array().map_or(0, Vec::len), json["facts"]["devices"].as_array().map_or(0, Vec::len));
    checks.same("probe: every device was asked", asked, (devices.len(), devices.len()));
    for (at, device) in devices.iter().enumerate() {
        let (report, facts) = (&report["devices"][at], &json["facts"]["devices"][at]);
        let mut same = |what: &str, is: &Value, should_be: Value| {
            checks.same(format_args!("probe of {device}: {what}"), is, &should_be);
        };
        same("its name", &report["path"], (*device).into());
        same("no problem", &report["problem"], Value::Null);
        same("an Arm SMMUv3", &report["iommu"], "Arm SMMUv3".into());
        same("nests through a vIOMMU", &report["nesting"]["how"], "through_a_viommu".into());
        same("of Arm's type and no other", &report["viommu_types"], vec!["arm_smmuv3"].into());
        same("no AMD", &facts["hw_info"]["4"]["outcome"], "EOPNOTSUPP".into());
        same("no VT-d", &facts["hw_info"]["1"]["outcome"], "EOPNOTSUPP".into());
        same("no PASIDs", &report["pasid_bits"], 0.into());
        same("no HW queues", &report["hw_queues"], Value::Null);
        same("no dirty tracking", &report["dirty_tracking"]["here"], false.into());
        same("no ATS", &report["ats"], "no".into());
        same("no errata", &report["errata"], Value::Array(vec![]));
        let libvirt = [
            ("accel", "yes", Some("on")),
            ("cmdqv", "no", None),
            ("ats", "no", None),
            ("ril", "yes", Some("on")),
            ("ssidSize", "no", None),
            ("oas", "yes", Some("44")),
        ];
        for (n, (name, can, value)) in libvirt.into_iter().enumerate() {
            let property = &report["libvirt"][n];
            let is = Value::from(vec![property["name"].clone(), property["can"].clone(), property["value"].clone()]);
            same(&format!("libvirt's {name}: {can}"), &is, vec![Some(name), Some(can), value].into());
        }
        same("a parent, a vIOMMU, a vdevice can be had", &facts["vdevice"]["1"], "ok".into());
        same("and an event queue", &facts["veventq"]["viommu 0x1, type 1"], "ok".into());
        same("nothing stays allocated", &facts["left"], Value::Array(vec![]));
    }
}

/// `viommu conformance --json`: every row as it is expected.
pub(crate) fn rows(viommu: &Path, checks: &mut Checks) -> Story {
    let output = Command::new(viommu).args(["conformance", "--kernel", "/dev/iommu", "--json"]).output()?;
    let (ended, said) = text(output)?;
    // docs/conformance.md is blessed from this line.
    println!("{}", said.trim_end());
    checks.same("viommu conformance ends with 0", ended, Some(0));
    seen(&serde_json::from_str(&said)?, checks);
    Ok(())
}

fn seen(rows: &Value, checks: &mut Checks) {
    let rows: Vec<_> = rows.as_array().into_iter().flatten().collect();
    checks.holds("no row of conformance is left out", rows.len() >= ROWS, format_args!("{} rows", rows.len()));
    for row in rows {
        let [id, expected, got] = ROW.map(|field| row[field].as_str().unwrap_or("nothing"));
        checks.same(format_args!("conformance {id}"), got, expected);
    }
}

/// Sequences that one process runs.
const AT_ONCE: u64 = 5000;

/// `viommu conformance --sequences`: the software iommufd does as the kernel does, step by step.
pub(crate) fn sequences(viommu: &Path, count: u64, seed: u64, checks: &mut Checks) -> Story {
    for first in (0..count).step_by(usize::try_from(AT_ONCE)?) {
        let here = AT_ONCE.min(count - first);
        let mut command = Command::new(viommu);
        command.args(["conformance", "--kernel", "/dev/iommu", "--sequences", &here.to_string()]);
        command.args(["--seed", &seed.to_string(), "--first", &first.to_string()]);
        let (ended, said) = text(command.output()?)?;
        show(&said);
        let verdict = said.lines().last().unwrap_or_default();
        let wanted = format!("conformance: {here} sequences of seed {seed}, ");
        checks.holds(
            format_args!(
                "{here} random sequences from {first} of seed {seed}: the software iommufd does as the kernel"
            ),
            ended == Some(0) && verdict.starts_with(&wanted) && verdict.ends_with(", 0 differ"),
            format_args!("{ended:?}: {verdict}"),
        );
    }
    Ok(())
}

/// What a command ended with, and its standard output.
fn text(output: Output) -> Story<(Option<i32>, String)> {
    std::io::stderr().write_all(&output.stderr)?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

/// As comments, which nobody counts.
fn show(said: &str) {
    said.lines().for_each(|line| println!("# {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: [&str; 2] = ["/dev/vfio/devices/vfio0", "/dev/vfio/devices/vfio1"];

    fn failed(judge: impl FnOnce(&mut Checks)) -> Vec<String> {
        let mut checks = Checks::default();
        judge(&mut checks);
        assert!(checks.ok > 0);
        checks.failed
    }

    /// What the lab's machine said (letter K).
    fn kept() -> Value {
        serde_json::from_str(include_str!("probed.json")).unwrap()
    }

    #[test]
    fn a_probe_that_says_something_else_is_noticed() {
        assert_eq!(failed(|checks| probed(&kept(), &DEVICES, checks)), Vec::<String>::new());
        for place in [
            "/report/commands/21/there",
            "/report/lacks",
            "/report/devices/0/problem",
            "/report/devices/0/iommu",
            "/report/devices/1/nesting/how",
            "/report/devices/1/viommu_types/0",
            "/report/devices/0/pasid_bits",
            "/report/devices/0/hw_queues",
            "/report/devices/0/dirty_tracking/here",
            "/report/devices/0/ats",
            "/report/devices/0/libvirt/0/can",
            "/report/devices/1/libvirt/5/value",
            "/facts/devices/0/hw_info/4/outcome",
            "/facts/devices/0/left",
        ] {
            let mut other = kept();
            *other.pointer_mut(place).unwrap() = "something else".into();
            assert_eq!(failed(|checks| probed(&other, &DEVICES, checks)).len(), 1, "{place}");
        }
        let mut fewer = kept();
        fewer["report"]["devices"].as_array_mut().unwrap().pop();
        assert!(!failed(|checks| probed(&fewer, &DEVICES, checks)).is_empty());
    }

    #[test]
    fn a_row_that_differs_or_is_left_out_is_noticed() {
        let row = |n: usize, got: &str| serde_json::json!({ "id": format!("C1.{n}"), "expected": "ok", "got": got });
        let rows = |count, got| Value::from((0..count).map(|n| row(n, got)).collect::<Vec<_>>());
        assert_eq!(failed(|checks| seen(&rows(ROWS, "ok"), checks)), Vec::<String>::new());
        assert_eq!(failed(|checks| seen(&rows(ROWS - 1, "ok"), checks)).len(), 1);
        let mut one = rows(ROWS, "ok");
        one[7]["got"] = "EINVAL".into();
        assert_eq!(failed(|checks| seen(&one, checks)), ["conformance C1.7: \"EINVAL\", not \"ok\""]);
    }
}
