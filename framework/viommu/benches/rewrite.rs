//! What a vendor's `rewrite` costs for a batch of 64 page invalidations, beside Arm's in the same run: the plugin call
//! alone, through the C table, medians of interleaved rounds; and beside a copy of the same bytes.
//!
//! `cargo bench -p viommu --bench rewrite` (add `-- --quick` for a short run).

use amd_vi::AmdVi;
use arm_smmuv3::ArmSmmuv3;
use intel_vtd::IntelVtd;
use std::hint::black_box;
use std::time::Instant;
use viommu::plugin::{Classes, HostIds, NO_TAG, Stop};
use viommu_plugin_check::Samples;
use viommu_plugin_host::{Codec, Plugin};

/// Commands of a batch.
const BATCH: usize = 64;
/// Host tag of the guest, and of its domain 1.
const TAG: u32 = 7;

/// One vendor's codec with a batch for it.
struct Vendor {
    name: String,
    codec: Codec,
    guest: Vec<u64>,
    host: Vec<u64>,
    rounds: Vec<f64>,
    copies: Vec<f64>,
}

impl Vendor {
    /// `command` is one page invalidation of a guest that was shown what the plugin's own hardware offers.
    fn new(plugin: &Plugin, command: &[u64]) -> Self {
        let registers = Samples::generic(plugin, 1).expect("the plugin's own hardware").registers;
        let codec = plugin.codec(&registers).expect("codec");
        let guest = command.repeat(BATCH);
        let mut vendor = Self {
            name: plugin.info().name.clone(),
            codec,
            host: vec![0; guest.len()],
            guest,
            rounds: Vec::new(),
            copies: Vec::new(),
        };
        assert_eq!(vendor.rewrite(), BATCH, "{}: a command of the batch is not rewritten", vendor.name);
        vendor
    }

    /// How many commands came out.
    fn rewrite(&mut self) -> usize {
        let ids = HostIds { tag: TAG, streams: &[], domains: &[NO_TAG, TAG] };
        let done = self.codec.rewrite(black_box(&self.guest), Classes::NONE, ids, &mut self.host).expect("rewrite");
        if done.stop == Stop::END { done.written as usize } else { 0 }
    }

    fn round(&mut self, repeat: usize) {
        let start = Instant::now();
        for _ in 0..repeat {
            black_box(self.rewrite());
        }
        self.rounds.push(start.elapsed().as_nanos() as f64 / repeat as f64);
        let start = Instant::now();
        for _ in 0..repeat {
            black_box(&mut self.host).copy_from_slice(black_box(&self.guest));
        }
        self.copies.push(start.elapsed().as_nanos() as f64 / repeat as f64);
    }
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (rounds, repeat) = if quick { (11, 2_000) } else { (41, 20_000) };
    // TLBI_NH_VA of ASID 1; INVALIDATE_IOMMU_PAGES of domain 1, GN, PASID 0; PASID-IOTLB of DID 1, page-selective.
    let mut vendors = [
        Vendor::new(&Plugin::linked::<ArmSmmuv3>(), &[0x0001_0042_0000_0012, 0x7000]),
        Vendor::new(&Plugin::linked::<AmdVi>(), &[0x3000_0001_0000_0000, 0x7004]),
        Vendor::new(&Plugin::linked::<IntelVtd>(), &[0x0001_0036, 0x7000, 0, 0]),
    ];
    for _ in 0..rounds {
        vendors.iter_mut().for_each(|vendor| vendor.round(repeat));
    }
    println!("{:<24} {:>12} {:>12} {:>12}", "rewrite, batch 64", "ns", "of Arm's", "of a copy");
    let arm = median(&mut vendors[0].rounds);
    for vendor in &mut vendors {
        let (own, copy) = (median(&mut vendor.rounds), median(&mut vendor.copies));
        println!("{:<24} {own:>12.1} {:>12.2} {:>12.1}", vendor.name, own / arm, own / copy);
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
