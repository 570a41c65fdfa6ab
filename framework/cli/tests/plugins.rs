//! `viommu plugins` from outside: the list, a plugin that conforms, one that does not, one that crashes.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Output};

fn viommu(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_viommu"));
    command.args(args).env("VIOMMU_PLUGIN_PATH", folder).output().expect("viommu runs")
}

fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// Builds the C plugin of plugins/host's tests; `false`, with a word about it, if there is no C compiler.
fn build(library: &Path, definitions: &[&str]) -> bool {
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no C compiler `cc`");
        return false;
    }
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-shared", "-fPIC", "-I"]).arg(plugins.join("sdk/include")).args(definitions);
    let built = command.arg(plugins.join("host/tests/c/codec.c")).arg("-o").arg(library).status().expect("cc runs");
    assert!(built.success());
    true
}

#[test]
fn the_list_has_what_is_there_and_why_the_rest_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("libbroken_plugin.so"), "words").expect("it can be written");
    let output = viommu(folder.path(), &["plugins", "--json"]);
    assert!(output.status.success());
    let all = lines(&output);
    let arm = all.iter().find(|line| line["name"] == "arm-smmuv3").expect("cargo built the plugin");
    assert_eq!((&arm["abi"], &arm["vendor"]), (&"2.3".into(), &1.into()));
    assert_eq!(arm["parts"], serde_json::json!(["frontend", "codec", "driver", "model"]));
    // Cargo's folder may have plugins of an older ABI, which are broken too.
    let ours =
        |line: &&serde_json::Value| line["path"].as_str().is_some_and(|path| path.ends_with("libbroken_plugin.so"));
    let broken = all.iter().find(ours).expect("the broken one is listed");
    assert_eq!(broken["broken"], "not an ELF shared library");

    let table = String::from_utf8(viommu(folder.path(), &["plugins"]).stdout).expect("text");
    assert!(table.starts_with("NAME") && table.contains("arm-smmuv3") && table.contains("broken: "), "{table}");
}

#[test]
fn a_plugin_that_conforms_passes_every_check() {
    let nowhere = Path::new("/nowhere");
    let output = viommu(nowhere, &["plugins", "check", "arm-smmuv3", "--json", "--seed", "7"]);
    let all = lines(&output);
    assert!(all.len() > 20);
    for line in &all {
        assert_eq!(line["result"], "ok", "{line}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_plugin_that_fails_or_crashes_is_a_result() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (definitions, result) in [(&[][..], "failed"), (&["-DCRASH"][..], "crashed")] {
        let library = folder.path().join(format!("lib{result}_plugin.so"));
        if !build(&library, definitions) {
            return;
        }
        let output = viommu(folder.path(), &["plugins", "check", &library.display().to_string(), "--json"]);
        assert_eq!(output.status.code(), Some(1));
        let all = lines(&output);
        assert!(all.iter().any(|line| line["result"] == result), "{all:?}");
    }
}

#[test]
fn a_plugin_that_is_not_there_is_bad_input() {
    let output = viommu(Path::new("/nowhere/special"), &["plugins", "check", "no-such"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("/nowhere/special/libno_such_plugin.so"), "{text}");
}
