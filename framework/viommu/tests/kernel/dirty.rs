//! Dirty pages: what devices wrote, as a VMM that moves a machine asks for it.

use crate::guest::{RAM, RAM_SIZE};
use crate::rig::{FIRST_STREAM, Machine, Rig};
use crate::vtd::{Unit, plugin};
use viommu::backend::kernel::KernelOptions;
use viommu::backend::{ObjectKind, Objects};

const PAGE: u64 = 0x1000;

struct World {
    rig: Rig,
    machine: Machine,
    /// The nesting parent: the framework's number, and the kernel's.
    parent: u32,
    kernels: u32,
}

fn world() -> World {
    let memory = crate::guest::memory();
    let device = Unit::new(&memory).device(FIRST_STREAM);
    let rig = Rig::new(plugin, &memory, vec![device], |options| KernelOptions { dirty_tracking: true, ..options });
    let machine = rig.machine(rig.backend.guest_registers().to_vec()).unwrap();
    let live = rig.backend.live();
    let parent = live.iter().find(|(_, kind)| *kind == ObjectKind::NestParent).unwrap().0;
    rig.backend.track_dirty(parent, true).unwrap();
    let kernels = (1..100).find(|id| rig.dispatcher.dma_wrote(*id, RAM, 1).is_ok()).unwrap();
    rig.backend.track_dirty(parent, true).unwrap();
    World { rig, machine, parent, kernels }
}

impl World {
    fn write(&self, gpa: u64) {
        self.rig.dispatcher.dma_wrote(self.kernels, gpa, 1).unwrap();
    }

    /// Addresses of dirty pages of a range.
    fn dirty(&self, (iova, length): (u64, u64), page: u64, keep: bool) -> Vec<u64> {
        let bits = self.rig.backend.dirty_pages(self.parent, (iova, length), page, keep).unwrap();
        (0..length / page)
            .filter(|at| bits[(at / 64) as usize] >> (at % 64) & 1 != 0)
            .map(|at| iova + at * page)
            .collect()
    }

    fn all(&self, keep: bool) -> Vec<u64> {
        self.dirty((RAM, RAM_SIZE), PAGE, keep)
    }
}

const NONE: [u64; 0] = [];

#[test]
fn what_a_device_wrote_is_told_once_or_kept() {
    let world = world();
    assert_eq!(world.all(false), NONE, "turning it on has forgotten what was before");
    let written = [RAM, RAM + 0x5000, RAM + RAM_SIZE / 2, RAM + RAM_SIZE - PAGE];
    written.iter().for_each(|page| world.write(page + 7));
    assert_eq!(world.all(true), written);
    assert_eq!(world.dirty((RAM, 0x10_0000), PAGE, true), written[..2]);
    assert_eq!(world.dirty((RAM, RAM_SIZE), 0x10_0000, true), [RAM, RAM + RAM_SIZE / 2]);
    assert_eq!(world.dirty((RAM + 0x4000, 0x4000), 0x2000, false), [RAM + 0x4000], "and clears it");
    assert_eq!(world.all(false), [written[0], written[2], written[3]]);
    assert_eq!(world.all(false), NONE);
    world.write(RAM);
    world.rig.backend.track_dirty(world.parent, false).unwrap();
    assert_eq!(world.all(true), NONE, "nobody looks");
    world.rig.backend.track_dirty(world.parent, true).unwrap();
    assert_eq!(world.all(true), NONE);
    let World { rig, machine, .. } = world;
    drop(machine);
    rig.down();
}

#[test]
fn a_page_behind_a_hole_is_not_missed_as_the_kernel_misses_it() {
    let world = world();
    let half = RAM_SIZE / 2;
    world.machine.ioas.unmap(RAM + half, half).unwrap();
    // A hole of three pages, so that what is behind it begins in the middle of a larger page.
    world.machine.ioas.map(world.rig.piece(half + 3 * PAGE, half - 3 * PAGE, true)).unwrap();
    let written = [RAM + 0x1000, RAM + half + 4 * PAGE, RAM + RAM_SIZE - PAGE];
    written.iter().for_each(|page| world.write(*page));
    let mut raw = vec![0; (RAM_SIZE / PAGE / 64) as usize];
    world.rig.backend.iommufd().dirty_bitmap(world.kernels, RAM, RAM_SIZE, PAGE, true, &mut raw).unwrap();
    assert_eq!(
        raw.iter().map(|word| word.count_ones()).sum::<u32>(),
        1,
        "the kernel stops at the hole and says nothing"
    );
    assert_eq!(world.all(true), written);
    assert_eq!(world.dirty((RAM, RAM_SIZE), 16 * PAGE, true), [RAM, RAM + half, RAM + RAM_SIZE - 16 * PAGE]);
    assert_eq!(world.dirty((RAM + half, 2 * PAGE), PAGE, true), NONE, "nothing is mapped");
    assert_eq!(world.all(false), written);
    let World { rig, machine, .. } = world;
    drop(machine);
    rig.down();
}

#[test]
fn what_are_no_pages_is_refused() {
    let world = world();
    let ask = |range, page| world.rig.backend.dirty_pages(world.parent, range, page, true);
    for (range, page) in [
        ((RAM, 0), PAGE),
        ((RAM + 1, PAGE), PAGE),
        ((RAM, PAGE + 1), PAGE),
        ((RAM, PAGE), 0),
        ((RAM, 3 * PAGE), 3 * PAGE),
        ((RAM, !0xfff), PAGE),
    ] {
        assert_eq!(ask(range, page).unwrap_err().errno(), 22, "{range:x?} {page:#x}");
    }
    let untracked = world.rig.host.ioas().unwrap();
    assert_eq!(world.rig.backend.track_dirty(untracked.id(), true).unwrap_err().errno(), 2, "no nesting parent");
}

#[test]
fn a_parent_that_was_not_made_for_it_says_so() {
    let memory = crate::guest::memory();
    let rig = Rig::new(plugin, &memory, vec![Unit::new(&memory).device(FIRST_STREAM)], |options| options);
    let machine = rig.machine(rig.backend.guest_registers().to_vec()).unwrap();
    let parent = rig.backend.live().iter().find(|(_, kind)| *kind == ObjectKind::NestParent).unwrap().0;
    let error = rig.backend.track_dirty(parent, true).unwrap_err();
    assert_eq!(error.errno(), 95, "{error}");
    assert!(error.to_string().contains("HWPT_SET_DIRTY_TRACKING"), "{error}");
    drop(machine);
    rig.down();
}
