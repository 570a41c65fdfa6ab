//! What can go wrong between viommu and a plugin.

use std::path::PathBuf;
use viommu_plugin::Refusal;

/// Why a plugin could not be loaded. The process lives on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No file of that name in any place of the search path.
    #[error("plugin {name:?} not found; looked for {}", list(.looked))]
    NotFound {
        /// The name or path asked for.
        name: String,
        /// Every file that was looked for, in order.
        looked: Vec<PathBuf>,
    },
    /// The file is not a shared library.
    #[error("{}: not an ELF shared library", .path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read, or the system's loader refused it.
    #[error("{}: cannot be loaded: {cause}", .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// A shared library, but not a plugin.
    #[error("{}: not a viommu plugin: no symbol `viommu_plugin_entry`", .path.display())]
    NoSymbol {
        /// The file.
        path: PathBuf,
    },
    /// Built for another ABI.
    #[error("{}: plugin ABI {found}, this viommu speaks {ours}", .path.display())]
    WrongMajor {
        /// The file.
        path: PathBuf,
        /// The plugin's major version.
        found: u32,
        /// The host's.
        ours: u32,
    },
    /// The table ends before the slots that every plugin of this ABI has.
    #[error("{}: plugin table of {found} bytes is too short, ABI {major}.0 has {needed}", .path.display())]
    ShortTable {
        /// The file.
        path: PathBuf,
        /// `size` of the plugin's table.
        found: u32,
        /// Size of the table of minor version 0.
        needed: u32,
        /// The ABI's major version.
        major: u32,
    },
    /// A part of the plugin can be created but lacks a slot.
    #[error("{}: slot {slot} is missing", .path.display())]
    MissingSlot {
        /// The file.
        path: PathBuf,
        /// Name of the slot.
        slot: &'static str,
    },
    /// A fixed fact makes no sense.
    #[error("{}: {what}", .path.display())]
    BadFact {
        /// The file.
        path: PathBuf,
        /// Which, and what is wrong with it.
        what: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let all: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    if all.is_empty() { "nothing: the search path is empty".into() } else { all.join(", ") }
}

/// Why a call into a plugin failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The plugin panicked in this call. Its instance is dead from now on.
    #[error("the plugin panicked in {slot}")]
    Panicked {
        /// Name of the slot.
        slot: &'static str,
    },
    /// The instance panicked in an earlier call and answers no more.
    #[error("the plugin's instance is dead: it panicked in an earlier call")]
    Dead,
    /// The plugin answered something that cannot be.
    #[error("the plugin's {slot} answered out of range: {what}")]
    OutOfRange {
        /// Name of the slot.
        slot: &'static str,
        /// What is out of range.
        what: &'static str,
    },
    /// The plugin cannot do what it was asked, and says why.
    #[error("{0}")]
    Refused(Refusal),
    /// The plugin has no such slot.
    #[error("the plugin has no {slot}")]
    Missing {
        /// Name of the slot.
        slot: &'static str,
    },
    /// The host's own callback panicked while the plugin called it.
    #[error("the host's callback {callback} panicked while the plugin was in {slot}")]
    Callback {
        /// Name of the slot.
        slot: &'static str,
        /// Name of the callback.
        callback: &'static str,
    },
}

impl CallError {
    /// The uAPI's positive errno for it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Refused(refusal) => refusal.errno,
            Self::Missing { .. } => Refusal::EOPNOTSUPP,
            _ => Refusal::EIO,
        }
    }
}
