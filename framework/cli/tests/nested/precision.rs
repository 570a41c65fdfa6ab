//! An invalidation removes what it names, and no more than the architecture lets it: what a guest's TLB keeps on its own
//! IOMMU, it keeps under nesting.

use crate::run::{Line, OTHERS, arm, command, replay};
use serde_json::Value;

fn bare(traces: &[String]) -> Vec<Line> {
    let output = command(&["--bare"], traces).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| Line(serde_json::from_str::<Value>(line).unwrap())).collect()
}

/// Attach, bypass and CFGI flush no TLB; a reset does, on both sides.
#[test]
fn nested_hits_are_those_of_the_guest_s_own_iommu() {
    let traces: Vec<_> =
        arm().into_iter().chain(["vtd73-boot", "vtd73-churn", "vtd73-ats-strict"].map(String::from)).collect();
    let (nested, bare) = (replay(&["--model", "inline"], &traces), bare(&traces));
    nested.is_clean();
    assert_eq!(nested.lines.len(), bare.len());
    for (nested, bare) in nested.lines.iter().zip(&bare) {
        for counter in ["/tlb/hits", "/tlb/misses"] {
            assert_eq!(nested.count(counter), bare.count(counter), "{counter} of {nested:?}\n{bare:?}");
        }
        assert!(nested.count("/tlb/hits") > 0, "{nested:?}");
    }
}

/// A shadow has no hits of its own kind to compare: what it holds is the framework's, and the hardware flushes with the
/// host's precision. What it must not lose is what no command named: nearly all hits of the guest's own IOMMU.
#[test]
fn shadow_keeps_nearly_all_hits_of_the_guest_s_own_iommu() {
    let traces: Vec<_> = OTHERS.into_iter().filter(|name| name.starts_with("amd73-")).map(String::from).collect();
    let (shadow, bare) = (replay(&["--model", "inline"], &traces), bare(&traces));
    shadow.is_clean();
    for (shadow, bare) in shadow.lines.iter().zip(&bare) {
        let [shadow, bare] = [shadow, bare].map(|line| line.count("/tlb/s2_hits"));
        assert!(shadow <= bare && shadow * 100 >= bare * 98, "{shadow} hits, bare {bare}");
    }
}

/// The comparison would see it: with invalidations that remove the same of two guests, there are fewer hits.
#[test]
fn what_is_removed_too_much_is_missed() {
    let traces: Vec<_> = arm().into_iter().chain(["vtd73-boot", "vtd73-churn"].map(String::from)).collect();
    let (exact, wide) = (replay(&["--vms", "2"], &traces), replay(&["--vms", "2", "--inject", "widen"], &traces));
    exact.is_clean();
    wide.is_clean();
    let lost = |(exact, wide): (&Line, &Line)| exact.count("/tlb/hits") - wide.count("/tlb/hits");
    let lower = exact.lines.iter().zip(&wide.lines).map(lost).filter(|lost| *lost > 0).count();
    // Two guests at different places of one recording do not always have the same addresses in use.
    assert!(lower + 2 >= traces.len(), "{lower} of {} recordings lose hits", traces.len());
}
