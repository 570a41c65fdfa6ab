//! docs/vendors.md says what the plugins say of themselves. `VIOMMU_BLESS=1 cargo test -p viommu-cli --test vendors` writes
//! the table anew.

#![forbid(unsafe_code)]

use serde_json::Value;
use std::path::Path;
use std::process::Command;

const VENDORS: [&str; 4] = ["arm-smmuv3", "tegra-vcmdq", "amd-vi", "intel-vtd"];
const BEGIN: &str = "<!-- generated: begin -->\n";
const END: &str = "<!-- generated: end -->\n";

type Cell = fn(&Value) -> String;

/// What is asked, and how the answer reads.
const ROWS: [(&str, Cell); 14] = [
    ("parts", |said| words(&said["parts"])),
    ("guests are", |said| words(&said["can"]["modes"])),
    ("device caches (ATS)", |said| yes(&said["can"]["ats"])),
    ("tags of the hardware", |said| number(&said["can"]["tags"])),
    ("a guest has", |said| {
        let many = said["can"]["guest_domains"].as_bool() == Some(true);
        if many { "a tag for each of its domains" } else { "one tag" }.to_owned()
    }),
    ("streams", |said| number(&said["can"]["streams"])),
    ("stage-2 input", |said| format!("{} bits", said["can"]["ipa_bits"])),
    ("smallest stage-2 page", |said| format!("{} KiB", said["can"]["page_bytes"].as_u64().unwrap_or(0) >> 10)),
    ("guests can move (save, restore)", |said| yes(&said["can"]["save_restore"])),
    ("names what a smaller host lacks", |said| yes(&said["can"]["covers"])),
    ("on Linux's /dev/iommu", |said| said["can"]["kernel"]["nesting"].as_str().unwrap_or("no").replace('_', " ")),
    ("queues that guests drive themselves", |said| words(&said["can"]["interfaces"]["hw_queues"])),
    ("guests with such queues", |said| number(&said["can"]["interfaces"]["count"])),
    ("streams in their commands", |said| number(&said["can"]["interfaces"]["streams"])),
];

fn words(list: &Value) -> String {
    let words: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if words.is_empty() { "no".to_owned() } else { words.join(", ").replace('_', " ") }
}

fn yes(value: &Value) -> String {
    if value.as_bool() == Some(true) { "yes" } else { "no" }.to_owned()
}

fn number(value: &Value) -> String {
    match value.as_u64() {
        None => "no".to_owned(),
        Some(4096..) => format!("2^{}", ((value.as_u64().unwrap_or(0) + 1) as f64).log2().floor() as u32),
        Some(number) => number.to_string(),
    }
}

/// What every plugin beside the binary says.
fn said() -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_viommu")).args(["plugins", "--json"]).output().expect("viommu runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let of =
        |name: &&str| all.iter().find(|said| said["name"] == **name).unwrap_or_else(|| panic!("no {name}: {text}"));
    VENDORS.iter().map(of).cloned().collect()
}

fn table(said: &[Value]) -> String {
    let mut table = format!("| | {} |\n|---|{}\n", VENDORS.join(" | "), "---|".repeat(VENDORS.len()));
    for (what, cell) in ROWS {
        let cells: Vec<String> = said.iter().map(cell).collect();
        table += &format!("| {what} | {} |\n", cells.join(" | "));
    }
    table
}

#[test]
fn the_document_says_what_the_plugins_say() {
    let said = said();
    for plugin in &said {
        assert!(plugin["can"].is_object(), "{plugin}");
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vendors.md");
    let text = std::fs::read_to_string(&path).expect("docs/vendors.md");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (now, after) = rest.split_once(END).expect("where the table ends");
    let right = table(&said);
    if std::env::var_os("VIOMMU_BLESS").is_some() {
        std::fs::write(&path, [before, BEGIN, &right, END, after].concat()).expect("it can be written");
        return;
    }
    assert_eq!(now, right, "docs/vendors.md is out of date: run with VIOMMU_BLESS=1");
}

#[test]
fn a_plugin_that_says_something_else_would_be_noticed() {
    let mut said = said();
    let right = table(&said);
    said[0]["can"]["ats"] = (said[0]["can"]["ats"] != true).into();
    assert_ne!(table(&said), right);
}
