//! The recordings kept in the repository read to their end.

use std::path::Path;
use viommu_trace::{Record, Scan, Trace, Vendor};

#[test]
fn every_recording_in_the_repository_is_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces");
    let mut recordings = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "zst") {
            continue;
        }
        let mut trace = Trace::open(&path).unwrap();
        let header = trace.header().clone();
        let vendor = match header.name.split_once("73-") {
            Some(("arm", _)) => Vendor::ARM_SMMUV3,
            Some(("amd", _)) => Vendor::AMD_VI,
            Some(("vtd", _)) => Vendor::INTEL_VTD,
            _ => panic!("{}", path.display()),
        };
        assert_eq!(header.vendor, vendor, "{}", path.display());
        assert_eq!(header.npcache_cleared(), header.name == "amd73-lazy", "{}", path.display());
        assert!(path.to_string_lossy().contains(&header.name) && !header.devices.is_empty());
        while let Some(entry) = trace.next().unwrap() {
            if let Record::Mem { gpa, bytes, .. } = entry.record {
                assert!(header.in_ram(gpa, bytes.len() as u64), "record {}: {gpa:#x}", entry.number);
            }
        }
        recordings += 1;
    }
    assert!(recordings > 0);
}

/// The counts are those that the recordings' own tools print for this one.
#[test]
fn a_boot_has_the_counts_its_recorder_counted() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces/arm73-boot.gtrace.zst");
    let scan = Scan::open(path).unwrap();
    assert_eq!(scan.translations, 317);
    assert_eq!(scan.streams.len(), 7);
    let id = |offset| scan.first_reads.iter().find(|read| read.offset == offset).unwrap().value;
    assert_eq!((id(0), id(4)), (0x0d44_101b, 0x0273_0010));
}
