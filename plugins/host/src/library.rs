//! From a file to a table. The only place that knows libloading.
//!
//! UNSAFETY: loading a library runs its constructors; what it exports under our symbol's name is taken to be a table.
#![expect(unsafe_code)]

use crate::LoadError;
use crate::table::Table;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::io::Read;
use std::path::Path;
use viommu_plugin::abi::PluginEntry;

/// Loads the library at `path` and reads its table. The library stays mapped, whatever comes of it.
pub(crate) fn load(path: &Path) -> Result<Table, LoadError> {
    let open = |cause: String| LoadError::Open { path: path.into(), cause };
    // A path without '/' would be looked for in the system's own folders.
    let full = path.canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            LoadError::NotFound { name: path.display().to_string(), looked: vec![path.into()] }
        }
        _ => open(error.to_string()),
    })?;
    if !is_elf(&full).map_err(|error| open(error.to_string()))? {
        return Err(LoadError::NotElf { path: path.into() });
    }
    // SAFETY: a plugin is trusted code: whoever put it on the search path lets it run in this process.
    let library = unsafe { Library::open(Some(&full), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|error| open(error.to_string()))?;
    // SAFETY: the symbol's address is only taken, not used as anything yet.
    let symbol = unsafe { library.get::<*const PluginEntry>(PluginEntry::SYMBOL.as_bytes()) };
    let table = match symbol.map(|symbol| *symbol) {
        Err(_) => Err(LoadError::NoSymbol { path: path.into() }),
        Ok(symbol) if symbol.is_null() => Err(LoadError::NoSymbol { path: path.into() }),
        // SAFETY: by its name the symbol is a plugin's table, and the library stays mapped (next line).
        Ok(symbol) => unsafe { Table::read(symbol, Some(path)) },
    };
    // Threads and thread-locals of a library may outlive its last handle: it is never unmapped.
    std::mem::forget(library);
    table
}

fn is_elf(path: &Path) -> std::io::Result<bool> {
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(4).read_to_end(&mut head)?;
    Ok(head == *b"\x7fELF")
}
