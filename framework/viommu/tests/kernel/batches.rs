//! Invalidations: what the hardware executed once the guest's SYNC is complete.

use crate::guest::{CD_1, STE_STAGE_1, SYNC};
use crate::smmu::Smmu;
use crate::{Machine, VIRT_ID, World};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use viommu::backend::kernel::{KernelOptions, Rate};
use viommu::backend::{Batch, Objects, Owner, SinkOf, Words};
use viommu::plugin::Classes;

const ILLEGAL: [u64; 2] = [0xfe, 0];
const CFGI_CD_ALL: [u64; 2] = [6 | (VIRT_ID as u64) << 32, 0];
const ATC_INV: [u64; 2] = [0x40 | (VIRT_ID as u64) << 32, 52];

/// TLBI_NH_VA of page `page` of ASID 1.
fn tlbi(page: u64) -> [u64; 2] {
    [0x12 | 1 << 48, page << 12]
}

fn unchecked(options: KernelOptions) -> KernelOptions {
    KernelOptions { precheck: false, ..options }
}

fn trusting(options: KernelOptions) -> KernelOptions {
    KernelOptions { precheck: false, trust_entry_num: true, ..options }
}

/// Pages of a batch with an illegal command at `place`, that no call invalidated.
fn lost(world: &World, machine: &Machine, total: usize, place: usize) -> Vec<u64> {
    let SinkOf::Checked { sink, .. } = world.backend.sink(machine.viommu.id()).unwrap() else { panic!("not checked") };
    let commands: Vec<_> = (0..total).map(|at| if at == place { ILLEGAL } else { tlbi(at as u64) }).collect();
    let words = Words::unchecked(commands.as_flattened());
    let position = sink.submit(Batch { owner: Owner(1), words, classes: Classes::TLB, sync: true }).unwrap();
    assert!(sink.wait(Owner(1), position).is_err(), "the guest is told that a command was refused");
    assert!(sink.wait(Owner(1), position).is_ok(), "once");
    let executed: BTreeSet<_> = world.smmu.take().into_iter().map(|command| command[1] >> 12).collect();
    (0..total as u64).filter(|page| *page != place as u64 && !executed.contains(page)).collect()
}

#[test]
fn an_illegal_command_anywhere_costs_no_other() {
    let world = World::new(Smmu::default(), unchecked);
    let machine = world.machine();
    for total in [1, 63, 64, 65, 4096] {
        for place in [0, 1, 62, 63, 64, 70].into_iter().filter(|place| *place < total) {
            assert_eq!(lost(&world, &machine, total, place), [0; 0], "{total} commands, {place} illegal");
        }
    }
}

#[test]
fn a_sink_that_trusts_the_kernels_count_loses_what_is_before_it_in_its_block() {
    let world = World::new(Smmu::default(), trusting);
    let machine = world.machine();
    for (total, place) in [(63, 62), (64, 1), (65, 64), (4096, 70), (4096, 62)] {
        let block = 63 * (place as u64 / 63)..place as u64;
        assert_eq!(
            lost(&world, &machine, total, place),
            block.collect::<Vec<_>>(),
            "{total} commands, {place} illegal"
        );
    }
}

#[test]
fn after_a_guests_sync_all_its_good_commands_are_executed() {
    for checked in [true, false] {
        let world = World::new(Smmu::default(), |options| KernelOptions { precheck: checked, ..options });
        let machine = world.machine();
        world.smmu.take();
        for place in [0, 1, 62, 63, 64, 70] {
            let mut commands: Vec<_> = (0..100).map(|at| if at == place { ILLEGAL } else { tlbi(at) }).collect();
            commands.push(SYNC);
            machine.guest.send(&commands);
            assert!(machine.guest.stopped(), "CERROR_ILL");
            // The guest's driver replaces the command at CONS by a SYNC, and acknowledges.
            machine.guest.replace_head(SYNC);
            machine.guest.acknowledge();
            assert!(machine.guest.all_taken(), "checked {checked}, {place} illegal");
            let executed: BTreeSet<_> = world.smmu.take().into_iter().map(|command| command[1] >> 12).collect();
            let good: BTreeSet<_> = (0..100).filter(|page| *page != place).collect();
            assert_eq!(executed, good, "checked {checked}, {place} illegal");
        }
    }
}

#[test]
fn a_guests_batch_is_one_call_for_each_63_commands() {
    let world = World::usual();
    let machine = world.machine();
    let calls = || world.backend.counters().calls.get();
    world.smmu.take();
    let before = calls();
    let commands: Vec<_> = (0..126).map(tlbi).chain([SYNC]).collect();
    machine.guest.send(&commands);
    assert!(machine.guest.all_taken());
    assert_eq!(calls() - before, 2, "collected up to the SYNC, whatever the doorbells and fetches");
    assert_eq!(world.smmu.take(), commands[..126]);
}

#[test]
fn a_guest_whose_checked_command_the_kernel_refuses_is_out_of_service() {
    let world = World::usual();
    let machine = world.machine();
    machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1);
    machine.guest.enable();
    world.smmu.seen.lock().unwrap().illegal.insert(tlbi(7));
    machine.guest.send(&[tlbi(1), tlbi(7), SYNC]);
    assert!(machine.viommu.pipeline().is_quarantined(), "nobody could tell it which command was not executed");
}

#[test]
fn while_the_kernel_has_no_memory_the_guest_waits_and_loses_nothing() {
    let pauses = Arc::new(AtomicU64::new(0));
    let counted = pauses.clone();
    let pause = Arc::new(move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
    let world = World::new(Smmu::default(), |options| KernelOptions { pause, ..options });
    let machine = world.machine();
    world.smmu.take();
    world.smmu.seen.lock().unwrap().starved = 9;
    let commands: Vec<_> = (0..63).map(tlbi).chain([SYNC]).collect();
    machine.guest.send(&commands);
    assert!(machine.guest.all_taken());
    assert_eq!(world.smmu.take().into_iter().collect::<BTreeSet<_>>(), commands[..63].iter().copied().collect());
    assert!(pauses.load(Ordering::Relaxed) > 0);
}

#[test]
fn the_erratum_doubles_tables_and_never_device_caches_nor_mixes_them() {
    let world = World::new(Smmu { erratum: true, ..Smmu::default() }, |options| options);
    let machine = world.machine();
    let SinkOf::Checked { sink, .. } = world.backend.sink(machine.viommu.id()).unwrap() else { panic!("not checked") };
    world.smmu.take();
    let commands = [tlbi(1), CFGI_CD_ALL, ATC_INV, tlbi(2)];
    let words = Words::unchecked(commands.as_flattened());
    let classes = Classes::TLB.with(Classes::CONFIG).with(Classes::ATC);
    sink.submit(Batch { owner: Owner(1), words, classes, sync: true }).unwrap();
    let executed = std::mem::take(&mut world.smmu.seen.lock().unwrap().executed);
    let sync = [0, 0];
    let tables = [tlbi(1), CFGI_CD_ALL, sync];
    let expected = [&tables[..], &tables, &[ATC_INV, sync], &[tlbi(2), sync], &[tlbi(2), sync]].concat();
    assert_eq!(executed, expected);
}

#[test]
fn an_entry_that_is_said_to_have_changed_and_has_not_makes_the_cds_forgotten() {
    let world = World::usual();
    let machine = world.machine();
    machine.guest.enable();
    machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1);
    world.smmu.take();
    let attached = world.smmu.seen.lock().unwrap().attached.len();
    machine.guest.set_ste(VIRT_ID.into(), STE_STAGE_1 | CD_1);
    assert_eq!(world.smmu.take(), [CFGI_CD_ALL]);
    assert_eq!(world.smmu.seen.lock().unwrap().attached.len(), attached, "and nothing was attached");
}

#[test]
fn a_machine_that_is_reset_leaves_nothing_cached() {
    let world = World::usual();
    let machine = world.machine();
    world.smmu.take();
    machine.viommu.reset().unwrap();
    assert_eq!(world.smmu.take(), [[0x10, 0], CFGI_CD_ALL, ATC_INV]);
}

#[test]
fn a_guest_beyond_its_rate_waits_for_its_share() {
    let now = Arc::new(Mutex::new(Duration::from_secs(1)));
    let (clock, slept) = (now.clone(), now.clone());
    let world = World::new(Smmu::default(), |options| KernelOptions {
        rate: Some(Rate { per_second: 1000, burst: 63 }),
        clock: Arc::new(move || *clock.lock().unwrap()),
        pause: Arc::new(move |delay| *slept.lock().unwrap() += delay),
        ..options
    });
    let machine = world.machine();
    let start = *now.lock().unwrap();
    for _ in 0..10 {
        let commands: Vec<_> = (0..100).map(tlbi).chain([SYNC]).collect();
        machine.guest.send(&commands);
    }
    let took = *now.lock().unwrap() - start;
    assert!(
        took >= Duration::from_millis(1000 - 63) && took < Duration::from_millis(1100),
        "{took:?} for 1000 commands"
    );
    assert_eq!(world.smmu.take().len() as u64, world.backend.counters().entries.get());
}
