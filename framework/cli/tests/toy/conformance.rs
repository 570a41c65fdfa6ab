//! Every conformance check on each, as `viommu plugins check PATH` runs them.

use crate::plugins::{both, lines, viommu};
use viommu_plugin_check::{Capabilities, Check};
use viommu_plugin_host::Plugin;

/// Checks of what Linux's iommufd says of a vendor: it knows no toy.
const ABOUT_LINUX: &str = "kernel-";

#[test]
fn each_passes_every_check_and_none_is_skipped_but_those_about_linux() {
    for path in both() {
        let path = path.to_str().expect("a path of text");
        let output = viommu(["plugins", "check", path, "--json", "--seed", "5"]);
        let all = lines(&output);
        assert_eq!(all.len(), Check::ALL.len());
        for line in &all {
            let about_linux = line["check"].as_str().is_some_and(|check| check.starts_with(ABOUT_LINUX));
            assert_eq!(line["result"], if about_linux { "skipped" } else { "ok" }, "{path}: {line}");
        }
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn each_says_of_itself_what_the_manual_says() {
    for path in both() {
        let can = Capabilities::of(&Plugin::load(path).expect("it is a plugin")).expect("it answers");
        assert_eq!((can.info.streams, can.info.first_tag, can.info.last_tag), (4096, 1, 0xffff), "{path:?}");
        assert_eq!((can.info.modes, can.info.ats, can.info.ipa_bits), (1, 1, 48), "{path:?}");
        assert_eq!((can.domains, can.saves, can.covers, can.interfaces), (false, true, true, None), "{path:?}");
    }
}
