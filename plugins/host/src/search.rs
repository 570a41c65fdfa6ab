//! Where plugins are looked for.

use std::path::{Path, PathBuf};

/// Folders in which plugins are looked for, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SearchPath {
    folders: Vec<PathBuf>,
}

impl SearchPath {
    /// Environment variable with more folders, separated by ':'.
    pub const VARIABLE: &'static str = "VIOMMU_PLUGIN_PATH";
    /// Where a package installs plugins.
    pub const SYSTEM: &'static str = "/usr/lib/viommu/plugins";

    /// These folders and no other.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut path = Self::default();
        for folder in folders {
            if !path.folders.contains(&folder) {
                path.folders.push(folder);
            }
        }
        path
    }

    /// Beside the binary, its `deps/` (cargo's place for libraries; also seen from cargo's `examples/`), the folders
    /// of `$VIOMMU_PLUGIN_PATH`, `/usr/lib/viommu/plugins`.
    pub fn standard() -> Self {
        let binary = std::env::current_exe().ok();
        let variable = std::env::var_os(Self::VARIABLE).unwrap_or_default();
        Self::from_parts(binary.as_deref().and_then(Path::parent), std::env::split_paths(&variable))
    }

    fn from_parts(beside: Option<&Path>, variable: impl Iterator<Item = PathBuf>) -> Self {
        let mut folders = Vec::new();
        if let Some(beside) = beside {
            folders.extend([beside.to_path_buf(), beside.join("deps")]);
            if let (true, Some(profile)) = (beside.ends_with("examples"), beside.parent()) {
                folders.push(profile.join("deps"));
            }
        }
        folders.extend(variable.filter(|folder| !folder.as_os_str().is_empty()));
        folders.push(Self::SYSTEM.into());
        Self::new(folders)
    }

    /// The folders, in order.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The file name of the plugin `name`: `arm-smmuv3` is in `libarm_smmuv3_plugin.so`.
    pub fn file_name(name: &str) -> String {
        format!("lib{}_plugin.so", name.replace('-', "_"))
    }

    /// Every plugin file in the folders, by folder and then by name. Of files of one name only the first counts.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = Vec::new();
        for folder in &self.folders {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            let mut here: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            here.sort();
            for file in here {
                let Some(name) = file.file_name().and_then(|name| name.to_str()) else { continue };
                let plugin = name.starts_with("lib") && name.ends_with("_plugin.so");
                if plugin && !files.iter().any(|first| first.file_name() == file.file_name()) {
                    files.push(file);
                }
            }
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_binary_deps_variable_system() {
        let path =
            SearchPath::from_parts(Some(Path::new("/b")), ["/v1", "", "/b", "/v2"].map(PathBuf::from).into_iter());
        assert_eq!(path.folders(), ["/b", "/b/deps", "/v1", "/v2", SearchPath::SYSTEM].map(PathBuf::from));
        let example = SearchPath::from_parts(Some(Path::new("/t/debug/examples")), std::iter::empty());
        assert!(example.folders().contains(&PathBuf::from("/t/debug/deps")));
    }

    #[test]
    fn a_dash_in_a_name_is_an_underscore_in_its_file() {
        assert_eq!(SearchPath::file_name("arm-smmuv3"), "libarm_smmuv3_plugin.so");
    }
}
