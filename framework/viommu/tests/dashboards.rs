//! Dashboards and docs name the metrics there are: what they say is read, not believed.

use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use viommu::metrics::{ALL, Kind};

/// Every label of `metrics.rs`, and the two that Prometheus adds.
const LABELS: &[&str] = &["vendor", "mode", "change", "class", "fault", "shard", "kind", "instance", "job"];
/// Words of PromQL that stand where a name could: operators and modifiers, and aggregations (`sum by (..)`).
const KEYWORDS: &[&str] = &[
    "by",
    "without",
    "and",
    "or",
    "unless",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "offset",
    "bool",
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "topk",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names in a PromQL expression that are neither functions, keywords nor labels: its metrics.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut names = BTreeSet::new();
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let end = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
            rest = &rest[end..];
        } else if c == '$' {
            let variable = rest[1..].trim_start_matches('{').trim_start_matches(is_name);
            rest = variable.strip_prefix('}').unwrap_or(variable);
        } else if is_name(c) {
            let after = rest.trim_start_matches(is_name);
            let name = &rest[..rest.len() - after.len()];
            let function = after.trim_start().starts_with('(');
            if !function && !c.is_ascii_digit() && !KEYWORDS.contains(&name) && !LABELS.contains(&name) {
                names.insert(name.to_owned());
            }
            rest = after;
        } else {
            rest = &rest[c.len_utf8()..];
        }
    }
    names
}

/// The metrics of every expression and variable query in a dashboard.
fn metrics_in(dashboard: &Value, found: &mut BTreeSet<String>) {
    match dashboard {
        Value::Object(fields) => {
            for (field, value) in fields {
                match (field.as_str(), value) {
                    ("expr" | "query" | "definition", Value::String(text)) if text != "prometheus" => {
                        found.extend(metrics_of(text));
                    }
                    (_, value) => metrics_in(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| metrics_in(value, found)),
        _ => {}
    }
}

fn unknown(names: &BTreeSet<String>) -> Vec<&str> {
    names.iter().map(String::as_str).filter(|name| !ALL.iter().any(|(known, ..)| known == name)).collect()
}

fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn json_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            json_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
}

#[test]
fn every_metric_of_every_dashboard_exists() {
    let mut files = Vec::new();
    json_files(&root().join("dashboards"), &mut files);
    assert!(!files.is_empty(), "no dashboards");
    for file in files {
        let mut names = BTreeSet::new();
        metrics_in(&read(&file), &mut names);
        assert!(!names.is_empty(), "{} names no metric", file.display());
        assert!(unknown(&names).is_empty(), "{} names {:?}", file.display(), unknown(&names));
    }
}

#[test]
fn the_overview_shows_every_metric() {
    let mut names = BTreeSet::new();
    metrics_in(&read(&root().join("dashboards/grafana/viommu-overview.json")), &mut names);
    let missing: Vec<_> = ALL.iter().map(|&(name, ..)| name).filter(|&name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn an_unknown_name_is_noticed() {
    for (field, text, expected) in [
        ("expr", "sum by (vendor) (rate(viommu_commands_total{class=\"tlb\"}[5m]))", None),
        ("expr", "rate(viommu_doorbells_total{instance=~\"$instance\"}[$__rate_interval]) * 2.5 > bool 1", None),
        ("expr", "viommu_objects{kind=\"viommu_no_metric\"} or ceil(viommu_shard_depth)", None),
        ("query", "label_values(viommu_objects, instance)", None),
        ("expr", "sum(rate(viommu_command_total[5m]))", Some("viommu_command_total")),
        ("expr", "viommu_objects / on (kind) other_metric", Some("other_metric")),
        ("expr", "sum by (clas) (viommu_objects)", Some("clas")),
        ("query", "label_values(viommu_object, instance)", Some("viommu_object")),
    ] {
        let dashboard = serde_json::json!({ "panels": [{ "targets": [{ field: text }] }] });
        let mut names = BTreeSet::new();
        metrics_in(&dashboard, &mut names);
        assert_eq!(unknown(&names), Vec::from_iter(expected), "{text}");
    }
}

#[test]
fn the_docs_list_exactly_the_metrics_there_are() {
    let page = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| viommu_"));
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split('|').map(str::trim).collect()).collect();
    let listed: Vec<_> = rows.iter().map(|cells| (cells[1], cells[2], cells[3])).collect();
    let kind = |kind| if kind == Kind::Counter { "counter" } else { "gauge" };
    let expected: Vec<_> = ALL.iter().map(|&(name, of, help)| (name, kind(of), help)).collect();
    assert_eq!(listed, expected, "docs/metrics.md and metrics.rs differ");
    for cells in rows {
        let labels = cells[4].split(", ").filter(|label| !label.is_empty());
        labels.for_each(|label| assert!(LABELS.contains(&label), "{}: label {label}", cells[1]));
    }
}
