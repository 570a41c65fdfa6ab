//! Hardware that refills its caches unasked, between any two commands: what the host does in the right order holds, and
//! what is in the wrong order shows, which it would not on friendly hardware.

mod machine;

use machine::{Guest, Machine, RAM, RAM_BYTES, TARGET, VIRTUAL, command, now, ram_mapping};
use viommu::backend::Objects;
use viommu::backend::direct::{DirectOptions, ModelMode, Speculated};
use viommu::plugin::{Classes, ModelConfig, Status};

const HALF: u64 = RAM_BYTES / 2;
const SEEDS: std::ops::Range<u64> = 0..16;
/// Where the entry of [`VIRTUAL`] is in a guest's RAM.
const LEAF: u64 = 0x2000 + (VIRTUAL >> 21) * 8;

/// Every kind of hardware, hostile by every seed.
fn hostile(options: DirectOptions) -> impl Iterator<Item = Machine> {
    let kinds = |seed| [(ModelMode::Inline, false), (ModelMode::Inline, true), (ModelMode::Delayed { seed }, true)];
    SEEDS.flat_map(move |seed| kinds(seed).map(|(mode, atc)| (seed, mode, atc))).map(move |(seed, mode, atc)| {
        println!("seed {seed}, {mode:?}, ATC {atc}");
        let machine = Machine::with(mode, ModelConfig { atc, ..Default::default() }, options.clone());
        machine.model.speculate(seed);
        machine
    })
}

fn unmap_virtual(m: &Machine, guest: &Guest) {
    m.memory.store(guest.host + LEAF, 0).unwrap();
}

#[test]
fn memory_taken_from_stage_2_stays_gone() {
    for m in hostile(DirectOptions::default()) {
        let guest = m.guest(0);
        m.translate(&guest);
        for _ in 0..4 {
            assert_eq!(m.dma(&guest, VIRTUAL).output, guest.host + HALF);
            now(m.direct.ioas_unmap(guest.ioas, TARGET, HALF)).unwrap();
            m.put_and_wait(&guest, &[], Classes::NONE).unwrap();
            assert_eq!((m.dma(&guest, VIRTUAL).status, m.dma(&guest, VIRTUAL).stage), (Status::FAULT, 2));
            now(m.direct.ioas_map(guest.ioas, ram_mapping(guest.host, HALF))).unwrap();
        }
    }
}

/// The device's entry changes while the hardware keeps reading it, and so does what the TLB has of it.
#[test]
fn an_attach_is_all_that_counts_behind_it() {
    for m in hostile(DirectOptions::default()) {
        let (guest, other) = (m.guest(0), m.guest(1));
        m.translate(&other);
        for _ in 0..4 {
            let hwpt = m.translate(&guest);
            assert_eq!(m.dma(&guest, VIRTUAL).output, guest.host + HALF);
            now(m.direct.attach(guest.device, guest.viommu.bypass)).unwrap();
            assert_eq!(m.dma(&guest, RAM).output, guest.host);
            assert_eq!(m.dma(&guest, VIRTUAL).status, Status::FAULT);
            now(m.direct.attach(guest.device, guest.viommu.abort)).unwrap();
            assert_eq!(m.dma(&guest, RAM).status, Status::ABORT);
            assert_eq!(m.dma(&guest, VIRTUAL).status, Status::ABORT);
            now(m.direct.destroy(hwpt)).unwrap();
            assert_eq!(m.dma(&other, VIRTUAL).output, other.host + HALF);
        }
    }
}

/// A tag that one guest had is another's: nothing of the first is left under it.
#[test]
fn a_tag_is_given_on_without_its_translations() {
    for m in hostile(DirectOptions { tag_limit: Some(1), ..Default::default() }) {
        let mut tags = Vec::new();
        for number in 0..3 {
            let guest = m.guest(number);
            let hwpt = m.translate(&guest);
            assert_eq!(m.dma(&guest, VIRTUAL).output, guest.host + HALF);
            now(m.direct.attach(guest.device, guest.viommu.bypass)).unwrap();
            assert_eq!(m.dma(&guest, RAM).output, guest.host);
            tags.push(guest.viommu.tag);
            now(m.direct.detach(guest.device)).unwrap();
            for id in [hwpt, guest.vdevice, guest.device, guest.viommu.id, guest.parent, guest.ioas] {
                now(m.direct.destroy(id)).unwrap();
            }
            assert_eq!(m.dma_of(guest.stream, RAM).status, Status::ABORT);
        }
        assert!(tags.iter().all(|tag| *tag == tags[0]), "{tags:?}");
    }
}

/// How many seeds see the old translation after `act`, which should have made it go, out of [`SEEDS`].
fn stale(atc: bool, speculates: bool, act: impl Fn(&Machine, &Guest)) -> usize {
    SEEDS
        .filter(|&seed| {
            let m = if atc { Machine::with_caches() } else { Machine::new() };
            if speculates {
                m.model.speculate(seed);
            }
            let guest = m.guest(0);
            m.translate(&guest);
            assert_eq!(m.dma(&guest, VIRTUAL).output, guest.host + HALF);
            act(&m, &guest);
            m.dma(&guest, VIRTUAL).status == Status::OK
        })
        .count()
}

#[test]
fn a_guest_that_invalidates_before_it_unmaps_is_found_out() {
    let wrong = |m: &Machine, guest: &Guest| {
        m.put_and_wait(guest, &command::nh_all(guest.viommu.tag), Classes::TLB).unwrap();
        unmap_virtual(m, guest);
    };
    let right = |m: &Machine, guest: &Guest| {
        unmap_virtual(m, guest);
        m.put_and_wait(guest, &command::nh_all(guest.viommu.tag), Classes::TLB).unwrap();
    };
    assert_eq!(stale(false, false, wrong), 0, "friendly hardware does not tell");
    let found = stale(false, true, wrong);
    assert!(found > SEEDS.count() / 2, "{found} of {} seeds", SEEDS.count());
    assert_eq!(stale(false, true, right), 0);
}

/// The rule that a TLBI, and its SYNC, come before the ATC_INV.
#[test]
fn a_device_cache_that_is_emptied_before_the_tlb_is_found_out() {
    let tlbi = |m: &Machine, guest: &Guest| {
        m.put_and_wait(guest, &command::nh_all(guest.viommu.tag), Classes::TLB).unwrap();
    };
    let atc_inv = |m: &Machine, guest: &Guest| {
        m.put_and_wait(guest, &command::atc_all(guest.stream), Classes::ATC).unwrap();
    };
    let wrong = |m: &Machine, guest: &Guest| {
        unmap_virtual(m, guest);
        atc_inv(m, guest);
        tlbi(m, guest);
    };
    let right = |m: &Machine, guest: &Guest| {
        unmap_virtual(m, guest);
        tlbi(m, guest);
        atc_inv(m, guest);
    };
    assert_eq!(stale(true, false, wrong), 0, "friendly hardware does not tell");
    assert_eq!(stale(true, true, wrong), SEEDS.count(), "a device asks again at once, whatever the seed");
    assert_eq!(stale(true, true, right), 0);
}

fn life(atc: bool, seed: Option<u64>) -> Speculated {
    let m = if atc { Machine::with_caches() } else { Machine::new() };
    if let Some(seed) = seed {
        m.model.speculate(seed);
    }
    let guest = m.guest(0);
    m.translate(&guest);
    for round in 0..50 {
        m.dma(&guest, VIRTUAL + (round << 12));
        m.put_and_wait(&guest, &command::nh_all(guest.viommu.tag), Classes::TLB).unwrap();
        m.put_and_wait(&guest, &command::atc_all(guest.stream), Classes::ATC).unwrap();
    }
    m.model.speculated()
}

#[test]
fn speculation_comes_from_the_seed_and_is_counted() {
    for atc in [false, true] {
        assert_eq!(life(atc, None), Speculated::default());
        assert_eq!(life(atc, Some(1)), life(atc, Some(1)));
    }
    assert_ne!(life(false, Some(1)), life(false, Some(2)));
    let (plain, cached) = (life(false, Some(3)), life(true, Some(3)));
    assert!(plain.requests > 100 && plain.tlb_fills > 25 && plain.atc_fills == 0, "{plain:?}");
    assert!(cached.atc_fills >= 50, "each ATC_INV was answered by a request: {cached:?}");
}
