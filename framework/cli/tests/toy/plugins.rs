//! The two plugins, each built once.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// A folder of this test's own in cargo's target folder.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// The plugin in C; `None`, with a word about it, if there is no C compiler.
pub(crate) fn toy_c() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if Command::new("cc").arg("--version").output().is_err() {
            eprintln!("SKIPPED: no C compiler `cc`: the plugin in C is neither built nor checked");
            return None;
        }
        let library = scratch("toy-c").join("libtoy_plugin.so");
        let mut sources: Vec<PathBuf> = std::fs::read_dir(examples().join("toy-c"))
            .expect("the example is there")
            .map(|file| file.expect("it can be listed").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
            .collect();
        sources.sort();
        let output = Command::new("cc")
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-I"])
            .arg(examples().join("../plugins/sdk/include"))
            .args(sources)
            .arg("-o")
            .arg(&library)
            .output()
            .expect("cc runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(library)
    });
    built.as_deref()
}

/// The plugin in Rust.
pub(crate) fn toy_rust() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = scratch("toy-rust");
        let output = Command::new(env!("CARGO"))
            .args(["build", "--offline", "--locked", "--manifest-path"])
            .arg(examples().join("toy-rust/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        target.join("debug/libtoy_plugin.so")
    })
}

/// Both, as far as they can be built.
pub(crate) fn both() -> impl Iterator<Item = &'static Path> {
    toy_c().into_iter().chain([toy_rust()])
}

/// Runs viommu.
pub(crate) fn viommu<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_viommu")).args(arguments).output().expect("viommu runs")
}

/// The lines of JSON that it printed.
pub(crate) fn lines(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}
