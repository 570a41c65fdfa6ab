//! `viommu plugins`: what is on the search path, and whether a plugin keeps its contract.

mod said;

use said::Said;
use serde::Serialize;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use viommu_plugin_check::{Check, Samples, TestStatus, Verdict, in_child};
use viommu_plugin_host::{LoadError, Plugin, SearchPath};

/// Arguments of `viommu plugins`.
#[derive(clap::Args)]
pub(crate) struct PluginsArgs {
    /// One JSON object a line: a plugin, or a check
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<PluginsCommand>,
}

#[derive(clap::Subcommand)]
enum PluginsCommand {
    /// Run each conformance check on a plugin, in a child process; exit 1 if one fails
    Check(CheckArgs),
}

#[derive(clap::Args)]
struct CheckArgs {
    /// A name on the search path, or a path (a value with '/')
    plugin: String,
    /// Seed of everything random in the checks
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run this check here, as the child of another `check`
    #[arg(long, hide = true, value_name = "CHECK")]
    here: Option<String>,
}

/// Exit code for bad input.
const BAD_INPUT: u8 = 2;

/// Runs `viommu plugins`.
pub(crate) fn run(args: PluginsArgs) -> ExitCode {
    match args.command {
        None => list(&SearchPath::standard(), args.json),
        Some(PluginsCommand::Check(check)) => match &check.here {
            Some(name) => check_here(&check, name),
            None => check_all(&check, args.json),
        },
    }
}

/// A line of the list.
#[derive(Serialize)]
struct Listed {
    path: PathBuf,
    #[serde(flatten)]
    found: Found,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Found {
    Plugin {
        name: String,
        vendor: u32,
        version: String,
        abi: String,
        parts: Vec<&'static str>,
        #[serde(flatten)]
        said: Option<Box<Said>>,
    },
    Broken {
        broken: String,
    },
}

/// What is on the path; if `ask`, with what each plugin says of itself.
fn listed(path: PathBuf, ask: bool) -> Listed {
    let found = match Plugin::load(&path) {
        Ok(plugin) => {
            let info = plugin.info();
            Found::Plugin {
                name: info.name.clone(),
                vendor: info.vendor,
                version: info.version.clone(),
                abi: format!("{}.{}", info.abi_major, info.abi_minor),
                parts: info.parts.clone(),
                said: ask.then(|| Box::new(Said::of(&plugin))),
            }
        }
        Err(error) => Found::Broken { broken: reason(&error, &path) },
    };
    Listed { path, found }
}

/// An error's words without the path, which stands beside them.
fn reason(error: &LoadError, path: &Path) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text).to_owned()
}

fn list(search: &SearchPath, json: bool) -> ExitCode {
    let all: Vec<Listed> = search.files().into_iter().map(|path| listed(path, json)).collect();
    if json {
        print!("{}", lines(&all));
        return ExitCode::SUCCESS;
    }
    if all.is_empty() {
        let folders: Vec<_> = search.folders().iter().map(|folder| folder.display().to_string()).collect();
        eprintln!("no plugins in {}", folders.join(", "));
        return ExitCode::SUCCESS;
    }
    let mut rows = vec![["NAME", "VENDOR", "VERSION", "ABI", "PARTS", "PATH"].map(String::from)];
    for Listed { path, found } in &all {
        if let Found::Plugin { name, vendor, version, abi, parts, .. } = found {
            let vendor = format!("{vendor:#x}");
            rows.push([
                name.clone(),
                vendor,
                version.clone(),
                abi.clone(),
                parts.join(","),
                path.display().to_string(),
            ]);
        }
    }
    print!("{}", table(&rows));
    for Listed { path, found } in &all {
        if let Found::Broken { broken } = found {
            println!("broken: {}: {broken}", path.display());
        }
    }
    ExitCode::SUCCESS
}

/// One JSON object a line.
fn lines<T: Serialize>(all: &[T]) -> String {
    // Strings and numbers only: nothing here can fail to be JSON.
    all.iter().filter_map(|one| serde_json::to_string(one).ok()).fold(String::new(), |text, line| text + &line + "\n")
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(width).map(|(cell, width)| format!("{cell:width$}")).collect();
        // Writing into a String does not fail.
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// A line of `check`.
#[derive(Serialize)]
struct Checked<'a> {
    plugin: &'a str,
    check: &'static str,
    result: String,
    reason: &'a str,
}

fn check_all(args: &CheckArgs, json: bool) -> ExitCode {
    let plugin = match Plugin::find(&args.plugin, &SearchPath::standard()) {
        Ok(plugin) => plugin,
        Err(error) => {
            eprintln!("viommu: {error}");
            return BAD_INPUT.into();
        }
    };
    let binary = match std::env::current_exe() {
        Ok(binary) => binary,
        Err(error) => {
            eprintln!("viommu: cannot start a child: {error}");
            return BAD_INPUT.into();
        }
    };
    let name = &plugin.info().name;
    // By its path: the child is to check the very file that was found.
    let path = plugin.info().path.as_ref().and_then(|path| path.canonicalize().ok()).unwrap_or_default();
    let mut failures = 0;
    for check in Check::ALL {
        let mut child = std::process::Command::new(&binary);
        child.args(["plugins", "check"]).arg(&path).args(["--seed", &args.seed.to_string(), "--here", check.name()]);
        let status = in_child(&mut child).unwrap_or_else(|error| TestStatus::Crashed(format!("not started: {error}")));
        failures += u32::from(status.is_failure());
        if json {
            let (result, reason) = (status.word().to_lowercase(), status.reason());
            print!("{}", lines(&[Checked { plugin: name, check: check.name(), result, reason }]));
        } else {
            println!("{:<8} {:<36} {}", status.word(), check.name(), check.description());
            if !status.reason().is_empty() {
                println!("{:<8} {}", "", status.reason());
            }
        }
    }
    if !json {
        println!("{name}: {failures} of {} checks failed (seed {})", Check::ALL.len(), args.seed);
    }
    if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// In the child: one check, in this process.
fn check_here(args: &CheckArgs, name: &str) -> ExitCode {
    let Some(check) = Check::from_name(name) else {
        eprintln!("viommu: no check is called {name:?}");
        return BAD_INPUT.into();
    };
    let outcome = Plugin::find(&args.plugin, &SearchPath::standard())
        .map_err(|error| Verdict::Failed(error.to_string()))
        .and_then(|plugin| check.run(&plugin, &Samples::generic(&plugin, args.seed)?));
    Check::report(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["NAME", "ABI"], ["arm-smmuv3", "1.0"]].map(|row| row.map(String::from));
        assert_eq!(table(&rows), "NAME        ABI\narm-smmuv3  1.0\n");
    }

    #[test]
    fn a_reason_does_not_repeat_the_path() {
        let error = LoadError::NotElf { path: "/x.so".into() };
        assert_eq!(reason(&error, Path::new("/x.so")), "not an ELF shared library");
    }
}
