//! What the kernel backend counts, as a recorder sees it. A test program of its own: a process has one recorder.

#[path = "objects/guest.rs"]
#[allow(dead_code)] // shared with other test programs
mod guest;
mod seen;
#[path = "kernel/smmu.rs"]
#[allow(dead_code)]
mod smmu;
#[path = "kernel/world.rs"]
#[allow(dead_code)]
mod world;

use seen::Seen;
use smmu::Smmu;
use std::collections::BTreeSet;
use std::time::Duration;
use viommu::backend::kernel::{KernelOptions, Rate};
use viommu::metrics as names;
use world::World;

/// TLBI_NH_VA of page `page` of ASID 1.
fn tlbi(page: u64) -> [u64; 2] {
    [0x12 | 1 << 48, page << 12]
}

#[test]
fn a_thousand_guests_come_and_go_and_no_series_with_them() {
    let seen = Seen::default();
    metrics::set_global_recorder(seen.clone()).unwrap();
    let world = World::new(Smmu { erratum: true, ..Smmu::default() }, |options| KernelOptions {
        rate: Some(Rate { per_second: 1000, burst: 1 }),
        pause: std::sync::Arc::new(|_: Duration| {}),
        event_depth: 4,
        precheck: false,
        ..options
    });
    let ioas = world.host.ioas().unwrap();
    ioas.map(world.ram()).unwrap();
    let parent = ioas.nest_parent().unwrap();
    let mut series = BTreeSet::new();
    let mut syncs = 0;
    for number in 0..1000 {
        let viommu = parent.viommu(guest::config(&world.memory)).unwrap();
        if number % 100 == 0 {
            // One that does something, so that there is something to count.
            let vdevice = viommu.vdevice(&world.host.device(world::STREAM).unwrap(), world::VIRT_ID).unwrap();
            let guest = guest::Guest::new(&viommu, &world.memory);
            guest.send(&[tlbi(1), tlbi(2), guest::SYNC]);
            syncs += 1;
            drop(vdevice);
        }
        drop(viommu);
        world.host.settle().unwrap();
        if number == 0 {
            series = seen.all().into_iter().collect();
        }
    }
    let now: BTreeSet<_> = seen.all().into_iter().collect();
    assert_eq!(now.difference(&series).collect::<Vec<_>>(), [""; 0], "1000 vIOMMUs");
    let shards: Vec<_> = now.iter().filter_map(|series| series.split(" shard=").nth(1)).collect();
    assert!(shards.iter().all(|shard| shard.starts_with("kernel ")) && shards.len() == 5, "{shards:?}");

    // And nothing of those that are gone is missing, nor counted twice.
    let of = |name: &str| seen.count(&format!("{name} vendor=arm-smmuv3"));
    let shard = |name: &str| format!("{name} shard=kernel vendor=arm-smmuv3");
    assert_eq!(seen.count(&shard(names::SHARD_SYNCS)), syncs);
    assert_eq!(seen.level(&shard(names::SHARD_DEPTH)), 0.0);
    assert_eq!(of(names::KERNEL_REPEATS), world.backend.counters().repeats.get());
    assert!(of(names::KERNEL_REPEATS) >= 2 * syncs, "{:?}", world.backend.counters());
    assert_eq!(of(names::KERNEL_ENTRIES), world.backend.counters().entries.get());
    assert!(of(names::KERNEL_THROTTLED) > 0);

    // An illegal command among 63: failed, halved, and refused alone; twice, as the erratum asks.
    let before = [names::KERNEL_REPLAYS, names::KERNEL_BISECTIONS, names::KERNEL_REFUSED].map(of);
    let viommu = parent.viommu(guest::config(&world.memory)).unwrap();
    let commands: Vec<_> = (0..62).map(tlbi).chain([[0xfe, 0], guest::SYNC]).collect();
    guest::Guest::new(&viommu, &world.memory).send(&commands);
    let after = [names::KERNEL_REPLAYS, names::KERNEL_BISECTIONS, names::KERNEL_REFUSED].map(of);
    let [replays, bisections, refused] = std::array::from_fn(|at| after[at] - before[at]);
    assert_eq!((bisections + refused, refused), (replays, 2), "a call that fails is halved, or alone");
    assert!((2 * 5..=2 * 6).contains(&bisections), "{bisections} halvings of 63");

    // Events that the kernel's queue has no room for.
    let queue = viommu.event_queue().unwrap();
    let kernels = (1..100).find(|id| report(&world, *id)).expect("a vIOMMU with an event queue");
    let lost = || of(names::KERNEL_EVENTS_LOST);
    (0..10_000).take_while(|_| lost() == 0).for_each(|_| assert!(report(&world, kernels)));
    assert!(lost() > 0, "{:?}", world.backend.counters());
    drop(queue);
}

/// F_TRANSLATION of a device.
fn report(world: &World, viommu: u32) -> bool {
    let record: Vec<u8> =
        [0x10 | u64::from(world::VIRT_ID) << 32, 0, 0, 0].iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
    world.dispatcher.report_event(viommu, viommu::uapi::flags::VEVENTQ_TYPE_ARM_SMMUV3, &record).is_ok()
}

#[test]
fn a_label_that_counts_guests_would_be_seen() {
    let seen = Seen::default();
    metrics::with_local_recorder(&seen, || {
        for owner in 0..3 {
            metrics::counter!(names::SHARD_SYNCS, "shard" => owner.to_string()).increment(1);
        }
    });
    assert_eq!(seen.all().len(), 3);
}
