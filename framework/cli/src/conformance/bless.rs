//! The table of a document, written anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use viommu_conformance::{Memory, Seen, Software, all, kernel_column, run as run_rows, table, with_table};

pub(super) fn run(document: &Path, seen: Option<&Path>, memory: &Memory) -> Result<ExitCode, String> {
    let named = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(document).map_err(|error| named(document, &error))?;
    let rows = all();
    let kernel = match seen {
        None => kernel_column(&rows, &text),
        Some(path) => {
            let json = fs::read_to_string(path).map_err(|error| named(path, &error))?;
            let seen: Vec<Seen> = serde_json::from_str(&json).map_err(|error| named(path, &error))?;
            seen.into_iter().map(|seen| (seen.id, seen.got)).collect()
        }
    };
    let verdicts = run_rows(&rows, &Software, memory);
    let here: BTreeMap<_, _> = verdicts.into_iter().map(|verdict| (verdict.row.id.to_owned(), verdict.got)).collect();
    fs::write(document, with_table(&text, &table(&rows, &here, &kernel))).map_err(|error| named(document, &error))?;
    println!("{}: {} rows", document.display(), rows.len());
    Ok(ExitCode::SUCCESS)
}
