//! Random DMA, remappings and invalidations against a list of everything that should be cached, searched by brute force.

use crate::machine::{Dte, GuestTables, Machine, NO_PASID, READ, RW, all, guest_pages, pages};
use std::collections::HashMap;
use viommu_plugin::Status;
use viommu_plugin_check::Random;

/// One cached leaf.
#[derive(Debug)]
struct Cached {
    domain: u16,
    /// `None`: the host's table alone.
    pasid: Option<u32>,
    first: u64,
    bytes: u64,
    output: u64,
}

/// Whose table an access goes through.
type Space = (u16, Option<u32>);

/// Domains 1 and 2, device n + 1 with host tables only and n + 8 with two guest tables behind it.
struct Guest {
    machine: Machine,
    roots: HashMap<Space, u64>,
    /// Output addresses of the leaves, as memory says now.
    leaves: HashMap<(Space, u64), u64>,
    outputs: u64,
}

/// In each 4 MiB: pages of 4 KiB, then one of 2 MiB.
fn leaf_of(iova: u64) -> (u64, u8) {
    let log2 = if iova >> 21 & 1 == 0 { 12 } else { 21 };
    (iova & !((1 << log2) - 1), log2)
}

const LIMIT: u64 = 8 << 20;

impl Guest {
    fn new() -> Self {
        let mut machine = Machine::new();
        let mut roots = HashMap::new();
        for domain in [1, 2] {
            let host = machine.page();
            roots.insert((domain, None), host);
            machine.set_dte(domain.into(), Dte::host(domain, host, 3));
            let gcr3 = machine.page();
            for pasid in [0, 1] {
                let root = machine.page();
                machine.set_gcr3(gcr3, 0, pasid, root, 0);
                roots.insert((domain, Some(pasid)), root);
            }
            machine.set_dte(u32::from(domain) + 8, Dte::identity(domain).nested(gcr3, 0, false));
        }
        Self { machine, roots, leaves: HashMap::new(), outputs: 1 }
    }

    /// Maps the leaf of `iova` to somewhere new.
    fn remap(&mut self, space: Space, iova: u64) {
        let (first, log2) = leaf_of(iova);
        self.outputs += 1;
        let output = self.outputs << 21;
        match space.1 {
            None => self.machine.map_host(self.roots[&space], 3, first, output, log2, RW),
            Some(_) => {
                let tables = GuestTables { root: self.roots[&space], levels: 4, shift: 0 };
                self.machine.map_guest(tables, first, output, log2, true)
            }
        }
        self.leaves.insert((space, first), output);
    }
}

/// What is compared, and how often it was stale and fresh.
type Compared = Result<(u32, u32), String>;

/// One random life. `lost`: invalidations of guest addresses (`true`) or of host addresses (`false`) that do not reach
/// the IOMMU.
fn live(seed: u64, lost: Option<bool>) -> Compared {
    let (mut stale, mut fresh) = (0, 0);
    let mut random = Random::new(seed);
    let mut guest = Guest::new();
    let mut cached: Vec<Cached> = Vec::new();
    for round in 0..400 {
        let domain = 1 + random.below(2) as u16;
        let pasid = [None, Some(0), Some(1)][random.below(3) as usize];
        let space = (domain, pasid);
        // 8 pages and the 2 MiB behind them, in each 4 MiB.
        let iova = random.below(LIMIT >> 21) << 21 | random.below(8) << 12;
        match random.below(8) {
            0..4 => {
                let (first, log2) = leaf_of(iova);
                if !guest.leaves.contains_key(&(space, first)) {
                    guest.remap(space, iova);
                }
                let device = u32::from(domain) + if pasid.is_some() { 8 } else { 0 };
                let answer = guest.machine.dma_pasid(device, pasid.unwrap_or(NO_PASID), iova, READ);
                let now = guest.leaves[&(space, first)];
                let hit =
                    cached.iter().find(|entry| (entry.domain, entry.pasid, entry.first) == (domain, pasid, first));
                let (output, from_tlb) = hit.map_or((now, 0), |entry| (entry.output, 1));
                let expected = (Status::OK, output | iova & ((1 << log2) - 1), from_tlb, u32::from(log2));
                let got = (answer.status, answer.output, answer.flags, answer.leaf_log2);
                if got != expected {
                    return Err(format!("seed {seed} round {round}: {space:?} {iova:#x}: {got:x?}, not {expected:x?}"));
                }
                *(if output == now { &mut fresh } else { &mut stale }) += 1;
                if from_tlb == 0 {
                    cached.push(Cached { domain, pasid, first, bytes: 1 << log2, output });
                }
            }
            4..6 => guest.remap(space, iova),
            6 if random.below(20) == 0 => {
                guest.machine.submit(&[all()]);
                cached.clear();
            }
            _ => {
                let log2 = [12, 13, 16, 20, 21, 22, 23, 64][random.below(8) as usize];
                let first = if log2 == 64 { 0 } else { iova & !((1u64 << log2) - 1) };
                let last = if log2 == 64 { u64::MAX } else { first + (1 << log2) - 1 };
                if lost != Some(pasid.is_some()) {
                    guest.machine.submit(&[match pasid {
                        Some(pasid) => guest_pages(domain, pasid, first, log2),
                        None => pages(domain, first, log2),
                    }]);
                }
                cached.retain(|entry| {
                    let named = entry.first <= last && entry.first + entry.bytes > first;
                    let whose = entry.domain == domain && (pasid.is_none() || entry.pasid == pasid);
                    // A host address may be behind any combined entry of the domain.
                    !(whose && (named || pasid.is_none() && entry.pasid.is_some()))
                });
            }
        }
    }
    Ok((stale, fresh))
}

#[test]
fn caches_hold_what_was_used_and_not_named() {
    let (mut stale, mut fresh) = (0, 0);
    for seed in 1..100 {
        let life = live(seed, None).unwrap_or_else(|wrong| panic!("{wrong}"));
        (stale, fresh) = (stale + life.0, fresh + life.1);
    }
    assert!(stale > 300 && fresh > 300, "{stale} stale answers, {fresh} fresh ones say little");
}

#[test]
fn a_lost_invalidation_is_noticed() {
    for lost in [false, true] {
        let noticed = (1..40).filter(|&seed| live(seed, Some(lost)).is_err()).count();
        assert!(noticed >= 30, "guest's {lost}: noticed in {noticed} of 39 lives");
    }
}
