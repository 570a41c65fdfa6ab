//! Every way in which loading can fail has its own words, and the process lives on. A plugin may be written in C.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use viommu_plugin::{Classes, HostIds, Register, Stop};
use viommu_plugin_host::{CallError, LoadError, Plugin, SearchPath};

/// Builds a C plugin with these definitions; `None`, with a word about it, if there is no C compiler.
fn build(folder: &Path, source: &str, definitions: &[&str]) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if Command::new("cc").arg("--version").output().is_err() {
        eprintln!("SKIPPED: no C compiler `cc`");
        return None;
    }
    let library = folder.join("libc_plugin.so");
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I"])
        .arg(root.join("../sdk/include"))
        .args(definitions.iter().map(|definition| format!("-D{definition}")))
        .args([root.join("tests/c").join(source).as_path(), Path::new("-o"), &library])
        .output()
        .expect("cc runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(library)
}

fn load_error(path: &Path) -> LoadError {
    Plugin::load(path).expect_err("this is no plugin")
}

/// Where cargo leaves the mock's `.so`: beside this test.
fn beside_this_test() -> SearchPath {
    let test = std::env::current_exe().expect("a test has a path");
    SearchPath::new([test.parent().expect("it is in a folder").to_path_buf()])
}

#[test]
fn a_vendor_is_the_same_linked_and_loaded() {
    let linked = Plugin::linked::<mock_plugin::Mock>();
    let loaded = Plugin::find("mock", &beside_this_test()).expect("cargo built the mock's library");
    assert!(linked.info().path.is_none());
    assert!(loaded.info().path.as_deref().is_some_and(|path| path.ends_with("libmock_plugin.so")));
    let mut facts = loaded.info().clone();
    facts.path = None;
    assert_eq!(&facts, linked.info());
    assert_eq!(facts.parts, ["frontend", "codec", "driver", "model"]);
}

#[test]
fn not_found_lists_every_place() {
    let search = SearchPath::new(["/nowhere/a", "/nowhere/b"].map(PathBuf::from));
    let error = Plugin::find("no-such", &search).expect_err("there is none");
    let text = error.to_string();
    assert!(matches!(error, LoadError::NotFound { .. }));
    for place in ["/nowhere/a/libno_such_plugin.so", "/nowhere/b/libno_such_plugin.so"] {
        assert!(text.contains(place), "{text}");
    }
    assert!(matches!(Plugin::find("./no-such.so", &search), Err(LoadError::NotFound { .. })));
}

#[test]
fn a_file_that_is_no_library() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = folder.path().join("text.so");
    for content in ["", "x", "not a library, just words\n"] {
        std::fs::write(&text, content).expect("it can be written");
        assert!(matches!(load_error(&text), LoadError::NotElf { .. }), "{content:?}");
    }
    std::fs::write(&text, b"\x7fELF and then nothing that makes sense").expect("it can be written");
    assert!(matches!(load_error(&text), LoadError::Open { .. }));
    assert!(matches!(load_error(folder.path()), LoadError::Open { .. }));
}

#[test]
fn a_library_that_is_no_plugin() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let empty = folder.path().join("empty.c");
    std::fs::write(&empty, "int nothing;\n").expect("it can be written");
    let Some(path) = build(folder.path(), &empty.display().to_string(), &[]) else { return };
    let error = load_error(&path);
    assert!(matches!(error, LoadError::NoSymbol { .. }), "{error}");
    assert!(error.to_string().contains("viommu_plugin_entry"));
}

#[test]
fn a_plugin_of_another_abi_or_with_a_hole() {
    let refused = |definition: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        build(folder.path(), "codec.c", &[definition]).map(|path| load_error(&path))
    };
    let Some(major) = refused("ABI=1") else { return };
    assert!(matches!(major, LoadError::WrongMajor { found: 1, ours: 2, .. }), "{major}");
    let short = refused("SIZE=64").expect("there is a compiler");
    assert!(matches!(short, LoadError::ShortTable { found: 64, .. }), "{short}");
    let hole = refused("DESTROY=NULL").expect("there is a compiler");
    assert!(matches!(hole, LoadError::MissingSlot { slot: "codec_destroy", .. }), "{hole}");
    for name in ["NAME={NULL,0}", "NAME={\"Upper\",5}", "NAME={\"\\377\\376\",2}"] {
        let bad = refused(name).expect("there is a compiler");
        assert!(matches!(bad, LoadError::BadFact { .. }), "{name}: {bad}");
    }
}

#[test]
fn a_plugin_in_c_offers_one_part() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A newer minor version has a longer table: what this host does not know is not looked at.
    let longer = "SIZE=sizeof(struct ViommuPluginEntry)+64";
    let Some(path) = build(folder.path(), "codec.c", &[longer]) else { return };
    let plugin = Plugin::load(&path).expect("it is a plugin");
    assert_eq!((plugin.info().name.as_str(), plugin.info().abi_minor), ("c-codec", 7));
    assert_eq!(plugin.info().parts, ["codec"]);
    assert_eq!(plugin.frontend(&[]).err(), Some(CallError::Missing { slot: "frontend_create" }));

    let refusal = plugin.codec(&[Register::default()]).expect_err("it takes no registers");
    assert!(matches!(&refusal, CallError::Refused(why) if (why.errno, why.text.as_str()) == (22, "no")), "{refusal}");

    let codec = plugin.codec(&[]).expect("it takes no registers");
    let ids = HostIds { tag: 1, streams: &[], domains: &[] };
    let done = codec.rewrite(&[7, 7, 1, 7], Classes::NONE, ids, &mut []).expect("it rewrites");
    assert_eq!((done.taken, done.hints, done.stop), (2, 2, Stop::SYNC));
    assert_eq!(codec.opcode_name(1), Ok(Some("SYNC")));
    assert_eq!(codec.opcode_name(9), Ok(None));
    for wrong in [
        codec.opcode_name(2).err(),
        codec.opcode(&[256]).err(),
        codec.configuration(&[0]).err(),
        codec.entry_key(&[0]).err(),
    ] {
        assert!(matches!(wrong, Some(CallError::OutOfRange { .. })), "{wrong:?}");
    }
    let unsupported = codec.describe(&[0], &mut Default::default());
    assert!(matches!(unsupported, Err(CallError::Refused(why)) if why.errno == 95));
}

#[test]
fn the_search_path_lists_plugins() {
    let files = beside_this_test().files();
    assert!(files.iter().any(|file| file.ends_with("libmock_plugin.so")), "{files:?}");
}
