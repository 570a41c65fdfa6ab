//! Rows run, and what was seen, for people and programs.

use super::{Args, opened};
use std::process::ExitCode;
use viommu_conformance::{Memory, Row, Seen, Verdict, all, vendors};

pub(super) fn run(args: &Args, memory: &Memory) -> Result<ExitCode, String> {
    // A kernel has its own vendor's driver: rows about vendors bring theirs.
    let about_vendors = if args.kernel.is_none() { vendors() } else { Vec::new() };
    let rows = all().into_iter().chain(about_vendors);
    let chosen: Vec<Row> = rows.filter(|row| matches(args.rows.as_bytes(), row.id.as_bytes())).collect();
    if chosen.is_empty() {
        return Err(format!("no row is like {}", args.rows));
    }
    let open = opened(args, memory)?;
    let verdicts = viommu_conformance::run(&chosen, &*open, memory);
    let passed = verdicts.iter().filter(|verdict| verdict.passed()).count();
    let skipped = verdicts.iter().filter(|verdict| verdict.skipped()).count();
    let failed = verdicts.len() - passed - skipped;
    if args.json {
        let seen: Vec<_> = verdicts.iter().map(Seen::from).collect();
        println!("{}", serde_json::to_string(&seen).map_err(|error| error.to_string())?);
    } else {
        for verdict in verdicts.iter().filter(|verdict| args.all || !verdict.passed()) {
            show(verdict);
        }
        let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} not here") };
        println!("conformance: {} rows, {passed} passed, {failed} failed{skipped}", verdicts.len());
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(verdict: &Verdict) {
    let Row { id, stimulus, expected, .. } = verdict.row;
    let word = match (verdict.passed(), verdict.skipped()) {
        (true, _) => "ok",
        (_, true) => "-",
        _ => "FAILED",
    };
    println!("{id:<6} {word:<6} {stimulus}\n         expected  {expected}");
    if !verdict.passed() {
        println!("         got       {}", verdict.got);
    }
}

/// Whether a name is like a pattern, in which `*` stands for anything and `?` for one character.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        (Some((b'?', pattern)), Some((_, name))) => matches(pattern, name),
        (Some((wanted, pattern)), Some((here, name))) => wanted == here && matches(pattern, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let yes = [("*", "C6.1"), ("C6.*", "C6.23"), ("C6.2?", "C6.23"), ("C*3", "C6.23"), ("C7.1", "C7.1")];
        let no = [("C6.*", "C7.1"), ("C6.2?", "C6.2"), ("C7.1", "C7.13"), ("", "C1.1")];
        assert!(yes.iter().all(|(pattern, name)| matches(pattern.as_bytes(), name.as_bytes())));
        assert!(!no.iter().any(|(pattern, name)| matches(pattern.as_bytes(), name.as_bytes())));
    }
}
