//! A unit with a history against one without: after the right invalidation both answer alike, whatever was cached.

use crate::machine::*;
use intel_vtd::model::RemappingUnit;
use intel_vtd::spec::descriptors::{DeviceTlbInv, IotlbInv, PasidIotlbInv};
use intel_vtd::spec::registers::offset;
use proptest::prelude::*;
use viommu_plugin::{Answer, Model, ModelConfig, Request};

const BASE: u64 = 0x4000_0000;
const PAGES: u64 = 8;
/// Device 1: first stage. Device 2: second stage. Device 3: nested. Each in the domain of its number.
const DEVICES: u32 = 3;

/// A page of a device changes, and the guest says so.
#[derive(Debug, Clone)]
struct Change {
    device: u32,
    page: u64,
    /// `None`: unmapped.
    output: Option<u64>,
    read_only: bool,
    /// AM of the invalidation; above 3 the whole domain or PASID.
    mask: u8,
    /// What devices look at before the change.
    looks: u32,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = (1..=DEVICES, 0..PAGES, proptest::option::weighted(0.6, 0..64u64), any::<bool>(), 0..6u8, any::<u32>());
    let one = one.prop_map(|(device, page, output, read_only, mask, looks)| Change {
        device,
        page,
        output,
        read_only,
        mask,
        looks,
    });
    proptest::collection::vec(one, 1..40)
}

fn answers(unit: &mut RemappingUnit) -> Vec<Answer> {
    let ask = |stream, page: u64| Request { stream, pasid: NO_PASID, iova: BASE + (page << 12), access: 2, flags: 0 };
    let requests: Vec<Request> =
        (1..=DEVICES).flat_map(|stream| (0..PAGES).map(move |page| ask(stream, page))).collect();
    let mut answers = vec![Answer::default(); requests.len()];
    unit.translate(&requests, &mut answers);
    // Where an answer came from is the difference that may be.
    answers.iter_mut().for_each(|answer| answer.flags = 0);
    answers
}

/// Lives through `changes`; how many wrong answers there were.
fn live(changes: &[Change], atc: bool, announced: bool) -> usize {
    let mut m = Machine::with(&[], atc, 0);
    let (mut fs, mut ss, mut below) = (m.first_stage(4), m.second_stage(4), m.second_stage(4));
    let mut over = m.first_stage(4);
    // Device 3's guest-physical addresses are physical ones: the second stage is 1 GiB leaves.
    for gigabyte in 0..8u64 {
        below.map(&m.memory, gigabyte << 30, gigabyte << 30, 3, SS_RW);
    }
    m.device(1, first(1, &fs));
    m.device(2, second(2, &ss));
    m.device(3, nested(3, &over, &below));
    let mut wrong = 0;
    for change in changes {
        for page in (0..PAGES).filter(|page| change.looks >> page & 1 != 0) {
            for stream in 1..=DEVICES {
                m.ask(stream, BASE + (page << 12));
            }
        }
        let tables = match change.device {
            1 => &mut fs,
            2 => &mut ss,
            _ => &mut over,
        };
        let bits = match (change.device, change.read_only) {
            (2, false) => SS_RW,
            (2, true) => SS_RO,
            (_, false) => FS_RW,
            (_, true) => FS_RO,
        };
        let leaf = tables.entry(&m.memory, BASE + (change.page << 12), 1);
        m.memory.put(leaf, &[change.output.map_or(0, |output| 0x8000_0000 | output << 12 | bits)]);
        if announced {
            let (domain, page) = (change.device as u16, (BASE >> 12) + change.page);
            let (granularity, mask) = if change.mask > 3 { (2, 0) } else { (3, change.mask) };
            m.invalidate(if change.device == 2 {
                let command = IotlbInv::new().with_granularity(granularity).with_domain_id(domain);
                command.with_address(page).with_address_mask(mask).words()
            } else {
                let command = PasidIotlbInv::new().with_granularity(granularity).with_domain_id(domain);
                command.with_address(page).with_address_mask(mask).words()
            });
            m.invalidate(DeviceTlbInv::new().with_source_id(change.device as u16).with_address(page).words());
        }
        let config = ModelConfig { atc, ..ModelConfig::default() };
        let mut fresh = RemappingUnit::new(Box::new(m.memory.clone()), config).unwrap();
        fresh.mmio_write(offset::RTADDR, 8, ROOT | 1 << 10);
        fresh.mmio_write(offset::GCMD, 4, 3 << 30);
        wrong += answers(&mut m.unit).iter().zip(&answers(&mut fresh)).filter(|(old, new)| old != new).count();
    }
    wrong
}

#[test]
fn history_does_not_matter_to_a_guest_that_announces_its_changes() {
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    let unannounced = std::cell::Cell::new(0);
    proptest::test_runner::TestRunner::new(config)
        .run(&(changes(), any::<bool>()), |(changes, atc)| {
            prop_assert_eq!(live(&changes, atc, true), 0);
            unannounced.set(unannounced.get() + live(&changes, atc, false));
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    eprintln!("wrong answers of guests that announce nothing: {}", unannounced.get());
    assert!(unannounced.get() > 100, "only {} wrong answers of guests that announce nothing", unannounced.get());
}
