//! The C header is what the Rust types say, and C compiles it.
//!
//! `VIOMMU_BLESS=1 cargo test -p viommu-plugin --test header` writes it anew.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn header_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include/viommu_plugin.h")
}

fn generate() -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        include_guard: Some("VIOMMU_PLUGIN_H".into()),
        header: Some(
            "/* The contract between viommu and a plugin, for plugins in C. Generated from plugins/sdk/src by\n * \
             `VIOMMU_BLESS=1 cargo test -p viommu-plugin --test header`; the Rust documentation says more. */"
                .into(),
        ),
        trailer: Some("extern const struct ViommuPluginEntry viommu_plugin_entry;".into()),
        cpp_compat: true,
        usize_is_size_t: true,
        line_length: 120,
        style: cbindgen::Style::Tag,
        documentation_style: cbindgen::DocumentationStyle::C,
        export: cbindgen::ExportConfig {
            prefix: Some("Viommu".into()),
            include: vec![
                "PluginEntry".into(),
                "Actions".into(),
                "KeyKind".into(),
                "EventOwner".into(),
                "GuestTraits".into(),
                "Nesting".into(),
                "InvalidateTarget".into(),
            ],
            ..Default::default()
        },
        ..Default::default()
    };
    let files = [
        "abi.rs",
        "abi/callbacks.rs",
        "abi/entry.rs",
        "codec.rs",
        "driver.rs",
        "frontend.rs",
        "interface.rs",
        "kernel.rs",
        "model.rs",
        "vendor.rs",
    ];
    let builder = files.iter().fold(cbindgen::Builder::new(), |builder, file| builder.with_src(source.join(file)));
    let bindings = builder.with_config(config).generate().expect("cbindgen reads the sources");
    let mut text = Vec::new();
    bindings.write(&mut text);
    String::from_utf8(text).expect("cbindgen writes text")
}

#[test]
fn the_header_is_up_to_date() {
    let generated = generate();
    if std::env::var_os("VIOMMU_BLESS").is_some() {
        std::fs::write(header_path(), &generated).expect("the header can be written");
    }
    let committed = std::fs::read_to_string(header_path()).unwrap_or_default();
    let differs = committed.lines().zip(generated.lines()).find(|(old, new)| old != new);
    assert!(
        committed == generated,
        "include/viommu_plugin.h is out of date, first at {differs:?}: run with VIOMMU_BLESS=1"
    );
}

#[test]
fn c_compiles_the_header_and_agrees_on_sizes() {
    use viommu_plugin::abi::{GuestMemoryCalls, HardwareCalls, HostIdTable, ModelHostCalls, ModelSetup, PluginEntry};
    use viommu_plugin::*;
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no C compiler `cc`");
        return;
    }
    let mut source = String::from("#include <viommu_plugin.h>\n");
    macro_rules! sizes {
        ($($name:ident)*) => {$(
            source += &format!("_Static_assert(sizeof(struct Viommu{0}) == {1}, \"{0}\");\n", stringify!($name), size_of::<$name>());
        )*};
    }
    sizes!(PluginEntry GuestMemoryCalls HardwareCalls ModelHostCalls HostIdTable ModelSetup Register Effects GuestQueue
        Rewritten Configuration EntryKey DriverInfo HostInvalidation QueueFault HostEvent Request Answer CacheStats
        ShadowRange GuestMapping Walked VirtualInterface HwQueueRequest KernelFacts KernelEntries KernelEvent Message);
    source +=
        "_Static_assert(ViommuStop_ORDER == 3 && ViommuClasses_ATC == 4 && ViommuABI_MAJOR == 2, \"constants\");\n";
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("header.c");
    std::fs::write(&file, source).expect("the source can be written");
    let include = header_path();
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I"])
        .args([include.parent().expect("it is in a folder"), &file])
        .output()
        .expect("cc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
