//! The table of `docs/conformance.md`: row, expectation, and what was seen where.

use crate::row::{Row, Verdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A row that was run, for programs.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Seen {
    /// The row's number.
    pub id: String,
    /// What was expected.
    pub expected: String,
    /// What was seen.
    pub got: String,
}

impl From<&Verdict> for Seen {
    fn from(verdict: &Verdict) -> Self {
        Self { id: verdict.row.id.into(), expected: verdict.row.expected.into(), got: verdict.got.clone() }
    }
}

/// What stands in the place of what was seen if that is what was expected.
const AS_EXPECTED: &str = "=";
/// What stands there if it was not run.
const NOT_RUN: &str = "-";

/// The lines of the table of rows that no kernel judges: what was seen in this process, by row number.
pub fn vendor_table(rows: &[Row], here: &BTreeMap<String, String>) -> String {
    let mut lines = String::from("| row | stimulus | expected | in-process |\n|---|---|---|---|\n");
    for row in rows {
        let (stimulus, expected) = (escaped(row.stimulus), escaped(row.expected));
        lines.push_str(&format!("| {} | {stimulus} | {expected} | {} |\n", row.id, cell(row, here)));
    }
    lines
}

/// What was seen of a row.
fn cell(row: &Row, seen: &BTreeMap<String, String>) -> String {
    match seen.get(row.id) {
        Some(got) if got == row.expected => AS_EXPECTED.into(),
        Some(got) => escaped(got),
        None => NOT_RUN.into(),
    }
}

/// The table's lines: what was seen in this process and on a kernel, by row number.
pub fn table(rows: &[Row], here: &BTreeMap<String, String>, kernel: &BTreeMap<String, String>) -> String {
    let mut lines = String::from("| row | stimulus | expected | in-process | kernel |\n|---|---|---|---|---|\n");
    for row in rows {
        let (stimulus, expected) = (escaped(row.stimulus), escaped(row.expected));
        lines.push_str(&format!(
            "| {} | {stimulus} | {expected} | {} | {} |\n",
            row.id,
            cell(row, here),
            cell(row, kernel)
        ));
    }
    lines
}

/// The kernel's column of a document with such a table.
pub fn kernel_column(rows: &[Row], document: &str) -> BTreeMap<String, String> {
    let mut column = BTreeMap::new();
    for row in rows {
        let start = format!("| {} |", row.id);
        let line = document.lines().find(|line| line.starts_with(&start));
        let cell = line.and_then(|line| line.trim_end_matches(" |").rsplit(" | ").next());
        match cell {
            Some(AS_EXPECTED) => column.insert(row.id.into(), row.expected.into()),
            Some(NOT_RUN) | None => None,
            Some(other) => column.insert(row.id.into(), other.replace("\\|", "|")),
        };
    }
    column
}

/// The document with this table in the place of the one that has the same head.
pub fn with_table(document: &str, table: &str) -> String {
    let is_row = |line: &&str| line.starts_with('|');
    let head = table.lines().next();
    let before: Vec<_> = document.lines().take_while(|line| Some(*line) != head).collect();
    let after: Vec<_> = document.lines().skip(before.len()).skip_while(is_row).collect();
    let mut text = before.join("\n");
    text.push('\n');
    text.push_str(table);
    for line in after {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Cells end at bars.
fn escaped(words: &str) -> String {
    words.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_goes_into_a_document_and_its_kernel_column_comes_out() {
        let rows: Vec<_> = crate::all().into_iter().filter(|row| row.id.starts_with("C3.1")).collect();
        let mut kernel: BTreeMap<_, _> = rows.iter().map(|row| (row.id.to_owned(), row.expected.to_owned())).collect();
        kernel.insert("C3.11".into(), "POLLIN|POLLOUT".into());
        kernel.remove("C3.12");
        let empty = table(&[], &BTreeMap::new(), &kernel);
        let head = empty.lines().next().unwrap_or_default();
        let first = with_table(
            &format!("# Title\n\n| other |\n\n{head}\n| older |\n\nEnd.\n"),
            &table(&rows, &BTreeMap::new(), &kernel),
        );
        assert!(first.starts_with("# Title\n\n| other |\n\n| row |") && first.ends_with("|\n\nEnd.\n"), "{first}");
        assert_eq!(kernel_column(&rows, &first), kernel);
        assert_eq!(with_table(&first, &table(&rows, &BTreeMap::new(), &kernel)), first);
    }

    #[test]
    fn every_row_has_a_number_of_its_own() {
        let rows = [crate::all(), crate::vendors()].concat();
        let numbers: std::collections::BTreeSet<_> = rows.iter().map(|row| row.id).collect();
        assert_eq!(numbers.len(), rows.len());
    }
}
