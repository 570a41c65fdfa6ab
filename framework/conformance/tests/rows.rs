//! Every row on the software iommufd.

use viommu_conformance::{Memory, Software, all, run};

#[test]
fn the_software_iommufd_keeps_every_object_rule() {
    let memory = Memory::new(200 << 20).unwrap();
    let failed: Vec<_> = run(&all(), &Software, &memory)
        .iter()
        .filter(|verdict| !verdict.passed())
        .map(|verdict| {
            let row = verdict.row;
            format!("{} {}\n  expected {}\n  got      {}\n", row.id, row.stimulus, row.expected, verdict.got)
        })
        .collect();
    assert!(failed.is_empty(), "{} rows failed:\n{}", failed.len(), failed.concat());
}
