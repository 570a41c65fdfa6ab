//! The tables of a document, written anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use viommu_conformance::{
    Memory, Seen, Software, all, kernel_column, run as run_rows, table, vendor_table, vendors, with_table,
};

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
    let vendors = vendors();
    let here: BTreeMap<_, _> = [run_rows(&rows, &Software, memory), run_rows(&vendors, &Software, memory)]
        .into_iter()
        .flatten()
        .map(|verdict| (verdict.row.id.to_owned(), verdict.got))
        .collect();
    let text = with_table(&text, &table(&rows, &here, &kernel));
    let text = with_table(&text, &vendor_table(&vendors, &here));
    fs::write(document, text).map_err(|error| named(document, &error))?;
    println!("{}: {} rows", document.display(), rows.len() + vendors.len());
    Ok(ExitCode::SUCCESS)
}
