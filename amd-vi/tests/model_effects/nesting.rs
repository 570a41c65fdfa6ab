//! Guest tables in host tables: PASIDs, tags, sizes, whose address is whose.

use crate::machine::{Dte, GuestTables, Machine, NO_PASID, READ, RW, WRITE, all, devtab, guest_pages, pages};
use amd_vi::model::code;
use amd_vi::spec::events::{EventCode, flags};
use amd_vi::spec::pte::GuestPte;
use amd_vi::spec::registers::offset;
use viommu_plugin::{Model, Status};

const DEVICE: u32 = 5;
const DOMAIN: u16 = 7;
const FROM_TLB: u32 = 1;
/// The guest's memory: GPA = PA + SHIFT.
const SHIFT: u64 = 0x80_0000_0000;
const PAGES_PA: u64 = 0x1000_0000;

/// A guest whose tables the host maps with 2 MiB pages.
struct Guest {
    machine: Machine,
    host: u64,
    gcr3: u64,
    glx: u8,
    levels: u8,
}

impl Guest {
    fn new(glx: u8, levels: u8) -> Self {
        let mut machine = Machine::new();
        let host = machine.page();
        for block in 0..8 {
            let pa = PAGES_PA + (block << 21);
            machine.map_host(host, 4, pa + SHIFT, pa, 21, RW);
        }
        let gcr3 = machine.page() + SHIFT;
        machine.set_dte(DEVICE, Dte::host(DOMAIN, host, 4).nested(gcr3, glx, levels == 5));
        Self { machine, host, gcr3, glx, levels }
    }

    /// A guest table for `pasid`.
    fn pasid(&mut self, pasid: u32) -> u64 {
        let root = self.machine.page() + SHIFT;
        self.machine.set_gcr3(self.gcr3, self.glx, pasid, root, SHIFT);
        root
    }

    fn map(&mut self, root: u64, iova: u64, gpa: u64, log2: u8) {
        let tables = GuestTables { root, levels: self.levels, shift: SHIFT };
        self.machine.map_guest(tables, iova, gpa, log2, true);
    }
}

#[test]
fn every_depth_of_gcr3_and_guest_tables() {
    for (glx, levels, pasid) in [(0, 4, 0x1ff), (1, 4, 0x3_ffff >> 2), (2, 5, 0xffff), (1, 5, 0x200), (2, 4, 0)] {
        let mut guest = Guest::new(glx, levels);
        let root = guest.pasid(pasid);
        let gpa = guest.machine.page() + SHIFT;
        let high = u64::MAX << (11 + 9 * levels);
        for iova in [0x7f12_3456_7000, high] {
            guest.map(root, iova, gpa, 12);
            let answer = guest.machine.dma_pasid(DEVICE, pasid, iova + 8, WRITE);
            assert_eq!((answer.status, answer.output), (Status::OK, gpa - SHIFT + 8), "GLX {glx}, {levels} levels");
            assert_eq!((answer.stage, answer.leaf_log2, answer.permissions), (1, 12, 3));
        }
        let out = guest.machine.dma_pasid(DEVICE, pasid, 1 << (11 + 9 * levels), READ);
        assert_eq!((out.fault, out.stage), (code::PAGE, 1), "not canonical");
    }
}

#[test]
fn requests_without_pasid_are_pasid_0s_with_giov_only() {
    let mut guest = Guest::new(0, 4);
    let root = guest.pasid(0);
    let gpa = guest.machine.page() + SHIFT;
    guest.map(root, 0x1000, gpa, 12);
    assert_eq!(guest.machine.dma(DEVICE, 0x1000, READ).output, gpa - SHIFT);
    assert_eq!(guest.machine.dma_pasid(DEVICE, 0, 0x1000, READ).flags, FROM_TLB, "the same tag");
    let Dte(word0, word1, word2) = Dte::host(DOMAIN, guest.host, 4).nested(guest.gcr3, 0, false);
    guest.machine.set_dte(DEVICE, Dte(word0.with_giov(false), word1, word2));
    guest.machine.submit(&[devtab(DEVICE as u16)]);
    let host_only = guest.machine.dma(DEVICE, gpa, READ);
    assert_eq!((host_only.status, host_only.stage, host_only.output), (Status::OK, 2, gpa - SHIFT));
    assert_eq!(guest.machine.dma_pasid(DEVICE, 0, 0x1000, READ).output, gpa - SHIFT);
}

#[test]
fn pasids_that_are_not_there() {
    let mut guest = Guest::new(0, 4);
    guest.pasid(1);
    for (pasid, event) in [
        (2, EventCode::IO_PAGE_FAULT),
        (0x200, EventCode::IO_PAGE_FAULT),
        (0x1_0000, EventCode::INVALID_DEVICE_REQUEST),
        (NO_PASID - 1, EventCode::INVALID_DEVICE_REQUEST),
    ] {
        assert_eq!(guest.machine.dma_pasid(DEVICE, pasid, 0, READ).status, Status::FAULT);
        let (entry, _) = *guest.machine.events().last().unwrap();
        assert_eq!(EventCode(entry.code()), event, "{pasid:#x}");
        assert_eq!((entry.flags() & flags::GN, entry.domain_id()), (flags::GN, pasid as u16));
        assert_eq!(u32::from(entry.pasid_high()), pasid >> 16 & 0xf);
    }
    // An entry without guest tables takes no PASIDs at all.
    guest.machine.set_dte(6, Dte::host(DOMAIN, guest.host, 4));
    assert_eq!(guest.machine.dma_pasid(6, 0, 0, READ).fault, code::ENTRY);
}

#[test]
fn the_smaller_page_of_the_two_stages_is_cached() {
    let mut guest = Guest::new(0, 4);
    let root = guest.pasid(0);
    // 2 MiB of the guest on single pages of the host, and single pages of the guest in 2 MiB of the host.
    let gpa = SHIFT + 0x6000_0000;
    for page in 0..512 {
        let pa = 0x7000_0000 + (page << 12 ^ 0x1000);
        guest.machine.map_host(guest.host, 4, gpa + (page << 12), pa, 12, RW);
    }
    guest.map(root, 0x20_0000, gpa, 21);
    let answer = guest.machine.dma(DEVICE, 0x20_5008, READ);
    assert_eq!((answer.output, answer.leaf_log2), (0x7000_4008, 12));
    let data = guest.machine.page() + SHIFT;
    guest.map(root, 0x40_0000, data, 12);
    assert_eq!(guest.machine.dma(DEVICE, 0x40_0000, READ).leaf_log2, 12);
    // One page of the guest's large one is named: every entry cut from it goes.
    guest.machine.submit(&[guest_pages(DOMAIN, 0, 0x20_0000, 12)]);
    assert_eq!(guest.machine.dma(DEVICE, 0x20_5000, READ).flags, 0);
    assert_eq!(guest.machine.dma(DEVICE, 0x40_0000, READ).flags, FROM_TLB);
}

#[test]
fn tags_are_domain_and_pasid() {
    let mut guest = Guest::new(0, 4);
    let mut outputs = Vec::new();
    for pasid in [0, 1] {
        let root = guest.pasid(pasid);
        let gpa = guest.machine.page() + SHIFT;
        guest.map(root, 0x1000, gpa, 12);
        guest.map(root, 0x2000, gpa, 12);
        outputs.push(guest.machine.dma_pasid(DEVICE, pasid, 0x1000, READ).output);
        guest.machine.dma_pasid(DEVICE, pasid, 0x2000, READ);
    }
    assert_ne!(outputs[0], outputs[1]);
    let cached = |guest: &mut Guest, commands: &[[u64; 2]]| {
        guest.machine.submit(commands);
        [(0, 0x1000), (0, 0x2000), (1, 0x1000), (1, 0x2000)]
            .map(|(pasid, iova)| guest.machine.dma_pasid(DEVICE, pasid, iova, READ).flags & FROM_TLB != 0)
    };
    assert_eq!(cached(&mut guest, &[guest_pages(DOMAIN, 1, 0x1000, 12)]), [true, true, false, true]);
    assert_eq!(cached(&mut guest, &[guest_pages(DOMAIN, 1, 0, 64)]), [true, true, false, false]);
    assert_eq!(cached(&mut guest, &[guest_pages(DOMAIN + 1, 1, 0, 64)]), [true; 4], "another domain");
    assert_eq!(cached(&mut guest, &[pages(DOMAIN + 1, 0, 64)]), [true; 4], "another domain");
    assert_eq!(cached(&mut guest, &[pages(DOMAIN, SHIFT + PAGES_PA, 12)]), [false; 4], "any host page of the domain");
    assert_eq!(cached(&mut guest, &[all()]), [false; 4]);
    let stats = guest.machine.iommu.stats();
    assert!(stats.hits > 0 && stats.misses > 0 && stats.stage2_hits == 0 && stats.stage2_misses == 0, "{stats:?}");
}

#[test]
fn two_guests_with_one_domain_number_would_share_what_is_cached() {
    let mut guest = Guest::new(0, 4);
    let root = guest.pasid(0);
    let gpa = guest.machine.page() + SHIFT;
    guest.map(root, 0x1000, gpa, 12);
    let first = guest.machine.dma(DEVICE, 0x1000, READ).output;
    // Another guest's table under the same DomainID: the hardware cannot tell.
    let other = guest.machine.page();
    guest.machine.set_dte(6, Dte::host(DOMAIN, other, 4).nested(guest.gcr3, 0, false));
    assert_eq!(guest.machine.dma(6, 0x1000, READ).output, first);
    guest.machine.set_dte(8, Dte::host(DOMAIN + 1, other, 4).nested(guest.gcr3, 0, false));
    assert_eq!(guest.machine.dma(8, 0x1000, READ).status, Status::FAULT, "its own DomainID finds nothing");
}

#[test]
fn everything_of_the_guest_is_at_guest_addresses() {
    // What the host takes away faults in its stage and says at which guest physical address.
    let mut guest = Guest::new(0, 4);
    let root = guest.pasid(0);
    guest.map(root, 0x1000, 0x1234_5000, 12);
    let data = guest.machine.dma(DEVICE, 0x1008, READ);
    assert_eq!((data.status, data.stage, data.ipa), (Status::FAULT, 2, 0x1234_5008));
    guest.machine.set_gcr3(guest.gcr3, 0, 1, 0x7777_0000, SHIFT);
    let table = guest.machine.dma_pasid(DEVICE, 1, 0x1000, READ);
    assert_eq!((table.stage, table.ipa), (2, 0x7777_0000), "the root of PASID 1's table");
    let Dte(word0, word1, word2) = Dte::host(DOMAIN, guest.host, 4).nested(0x6666_0000, 0, false);
    guest.machine.set_dte(6, Dte(word0, word1, word2));
    let gcr3 = guest.machine.dma_pasid(6, 1, 0x1000, READ);
    assert_eq!((gcr3.stage, gcr3.ipa), (2, 0x6666_0008), "the GCR3 table");
}

#[test]
fn without_gcr3_trp_mode_the_gcr3_table_is_physical() {
    let mut guest = Guest::new(1, 4);
    guest.machine.write(offset::CONTROL, Machine::control().with_gcr3_trp_mode(false).into());
    let gcr3 = guest.machine.page();
    let root = guest.machine.page() + SHIFT;
    guest.machine.set_gcr3(gcr3, 1, 3, root, 0);
    guest.machine.set_dte(DEVICE, Dte::host(DOMAIN, guest.host, 4).nested(gcr3, 1, false));
    let gpa = guest.machine.page() + SHIFT;
    guest.map(root, 0x1000, gpa, 12);
    assert_eq!(guest.machine.dma_pasid(DEVICE, 3, 0x1000, READ).output, gpa - SHIFT);
}

#[test]
fn a_guest_table_without_host_table() {
    let mut machine = Machine::new();
    let (gcr3, root) = (machine.page(), machine.page());
    machine.set_gcr3(gcr3, 0, 0, root, 0);
    machine.map_guest(GuestTables { root, levels: 4, shift: 0 }, 0x20_0000, 0x5560_0000, 21, false);
    machine.set_dte(1, Dte::identity(3).nested(gcr3, 0, false));
    let answer = machine.dma(1, 0x20_1234, READ);
    assert_eq!((answer.output, answer.leaf_log2, answer.permissions), (0x5560_1234, 21, 1));
    let refused = machine.dma(1, 0x20_1234, WRITE);
    assert_eq!((refused.stage, refused.fault), (1, code::PAGE));
    assert_eq!(machine.events()[0].0.flags(), flags::GN | flags::PR | flags::PE | flags::RW);
}

#[test]
fn entries_of_the_guest_that_say_too_much_or_too_little() {
    let mut guest = Guest::new(0, 4);
    let root = guest.pasid(0);
    let top = root - SHIFT;
    let entry = GuestPte::new().with_p(true).with_us(true).with_rw(true).with_address(root >> 12);
    for broken in [entry.with_p(false), entry.with_ps(true), entry.with_us(false)] {
        guest.machine.memory.put(top, &[broken.into()]);
        assert_eq!(guest.machine.dma(DEVICE, 0, READ).fault, code::PAGE, "{broken:?}");
    }
    // A table that is its own child ends at level 1, as a page.
    guest.machine.memory.put(top, &[entry.into()]);
    assert_eq!(guest.machine.dma(DEVICE, 0, READ).output, top);
    let text = guest.machine.explain(DEVICE, NO_PASID, 0);
    assert!(text.contains("GCR3 L0") && text.contains("guest L4") && text.contains("PASID 0x0"), "{text}");
}
