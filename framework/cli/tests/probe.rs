//! `viommu probe` as a command: exit codes, JSON, and what it says before it touches a device.

#![forbid(unsafe_code)]

use serde_json::Value;
use std::process::{Command, Output};

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_viommu")).arg("probe").args(arguments).output().expect("viommu runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_host_without_an_iommufd_ends_with_2_and_says_what_to_do() {
    for json in [&[][..], &["--json"]] {
        let output = probe(&[&["--iommu", "/nonexistent/iommu"], json].concat());
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        assert!(said.contains("There is no /nonexistent/iommu") && said.contains("CONFIG_IOMMUFD"), "{said}");
    }
    let output = probe(&["--iommu", "/nonexistent/iommu", "--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&json["report"]["state"], &json["facts"]["open"]), (&"no_iommufd".into(), &"ENOENT".into()));
}

#[test]
fn a_file_that_is_no_iommufd_is_noticed_and_no_device_is_touched() {
    let output = probe(&["--iommu", "/dev/null", "--device", "/nonexistent/vfio0", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/dev/null is no iommufd"), "{}", text(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&json["facts"]["commands"]["DESTROY"], &json["facts"]["devices"]),
        (&"ENOTTY".into(), &Value::Array(vec![]))
    );
}

#[test]
fn facts_of_another_host_can_be_reported_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let kept = folder.path().join("facts.json");
    let kept_name = kept.display().to_string();
    let first = probe(&["--iommu", "/dev/null", "--json"]);
    std::fs::write(&kept, &first.stdout).expect("it can be written");
    let again = probe(&["--facts", &kept_name, "--json"]);
    assert_eq!((again.status.code(), text(&again.stdout)), (first.status.code(), text(&first.stdout)));
    // A kernel that has the commands after all.
    let better = text(&first.stdout).replace("ENOTTY", "EINVAL");
    std::fs::write(&kept, better).expect("it can be written");
    let told = probe(&["--facts", &kept_name]);
    assert_eq!(told.status.code(), Some(0));
    assert!(text(&told.stdout).contains("22 of the 22 commands"), "{}", text(&told.stdout));

    std::fs::write(&kept, "{}").expect("it can be written");
    let wrong = probe(&["--facts", &kept_name]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("missing field"), "{}", text(&wrong.stderr));
    assert_eq!(probe(&["--facts", &kept_name, "--device", "x"]).status.code(), Some(2), "the one or the other");
}

#[test]
fn help_says_what_happens_to_a_device() {
    // Lines end where the terminal's width ends them.
    let help = text(&probe(&["--help"]).stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for words in ["bound to the iommufd", "without being attached", "vfio-pci may reset it", "Exit status: 0"] {
        assert!(help.contains(words), "{words}: {help}");
    }
}
