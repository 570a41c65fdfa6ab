//! Named conformance checks: does a plugin keep what the contract of `viommu-plugin` promises?
//!
//! ```text
//!   conformance!(Vendor, "lib") ─► linked table ─┐                  ┌─► facts, frontend, codec, model
//!                                  .so ──────────┼─► Check::run ────┤
//!   viommu plugins check ─► child process ───────┘    (Samples)     └─► driver ─► Machine (the plugin's own model)
//!   viommu plugins --json ─► Capabilities::of ─────────────────────────────────────────┘
//! ```
//!
//! ```
//! use viommu_plugin_check::{Check, Samples};
//! use viommu_plugin_host::Plugin;
//!
//! let plugin = Plugin::linked::<mock_plugin::Mock>();
//! let samples = Samples::generic(&plugin, 1)?;
//! assert_eq!(Check::RewriteIsPure.run(&plugin, &samples), Ok(()));
//! # Ok::<(), viommu_plugin_check::Verdict>(())
//! ```
//!
//! A check judges from outside and knows no vendor; with sample commands of a real guest it judges more.

#![forbid(unsafe_code)]

pub mod bench;
mod capabilities;
mod check;
mod child;
mod codec;
mod driver;
mod facts;
mod frontend;
mod kernel;
mod machine;
mod model;
pub mod proof;
mod random;
mod samples;

pub use capabilities::{Capabilities, Interfaces};
pub use check::{Check, Verdict};
pub use child::{EXIT_FAILED, EXIT_SKIPPED, TestStatus, in_child};
pub use random::Random;
pub use samples::Samples;

use std::path::PathBuf;
use viommu_plugin_host::Plugin;

/// Runs every check in this process and prints how each ended; a report of those that failed, `Ok` if none did.
///
/// # Errors
/// One line a failed check: name, what it checks, what was wrong.
pub fn run_all(plugin: &Plugin, samples: &Samples) -> Result<(), String> {
    let mut report = String::new();
    for check in Check::ALL {
        match check.run(plugin, samples) {
            Ok(()) => println!("{}: ok", check.name()),
            Err(Verdict::Skipped(why)) => println!("{}: skipped, {why}", check.name()),
            Err(Verdict::Failed(why)) => {
                report += &format!("{}: {} But: {why}\n", check.name(), check.description());
            }
        }
    }
    if report.is_empty() { Ok(()) } else { Err(format!("seed {}\n{report}", samples.seed)) }
}

/// Where cargo leaves the `.so` of a crate that a test depends on: beside the test.
///
/// # Panics
/// If the running program has no path.
pub fn beside_this_test(library: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.with_file_name(format!("lib{library}.so"))
}

/// Tests that run every check on a vendor, linked and from its `.so`.
///
/// `conformance!(ArmSmmuv3, "arm_smmuv3_plugin")`; a third argument makes the [`Samples`]:
/// `fn(&Plugin, seed: u64) -> Result<Samples, Verdict>`.
#[macro_export]
macro_rules! conformance {
    ($vendor:ty, $library:literal) => {
        $crate::conformance!($vendor, $library, $crate::Samples::generic);
    };
    ($vendor:ty, $library:literal, $samples:expr) => {
        #[test]
        fn the_linked_table_conforms() {
            let plugin = $crate::host::Plugin::linked::<$vendor>();
            let samples = $samples(&plugin, 1).expect("samples");
            $crate::run_all(&plugin, &samples).unwrap_or_else(|report| panic!("{report}"));
        }

        #[test]
        fn the_shared_object_conforms() {
            let path = $crate::beside_this_test($library);
            let plugin = $crate::host::Plugin::load(&path).unwrap_or_else(|error| panic!("{error}"));
            let samples = $samples(&plugin, 1).expect("samples");
            $crate::run_all(&plugin, &samples).unwrap_or_else(|report| panic!("{report}"));
        }
    };
}

/// What [`conformance!`] needs of the host.
#[doc(hidden)]
pub use viommu_plugin_host as host;
