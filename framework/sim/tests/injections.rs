//! Each way to break the product is noticed, on every vendor's IOMMU that has what is broken, by the clause that must
//! notice it, and the story gets shorter.

use viommu_sim::{Injection, Options, Plan, Vendor, run, shrink};

/// Seeds in which an injection must be noticed: not every story does what it takes.
const SEEDS: u64 = 120;

fn options(injection: Injection) -> Options {
    Options { injection: Some(injection), ..Options::default() }
}

fn notices(vendor: Vendor, injection: Injection, seed: u64) -> bool {
    let violation = run(&Plan::of(vendor, seed), options(injection)).violation;
    violation.is_some_and(|violation| violation.clause == injection.clause())
}

/// The first seed in which the right clause complains.
fn noticed(vendor: Vendor, injection: Injection) -> Option<u64> {
    (0..SEEDS).find(|seed| notices(vendor, injection, *seed))
}

macro_rules! injections {
    ($($name:ident: $injection:ident,)*) => {$(
        #[test]
        fn $name() {
            let injection = Injection::$injection;
            for vendor in Vendor::ALL.into_iter().filter(|vendor| injection.concerns(*vendor)) {
                let seed = noticed(vendor, injection);
                println!("{} of {}: {seed:?}", injection.name(), vendor.name());
                assert!(seed.is_some(), "{} of {} is not noticed in {SEEDS} seeds", injection.name(), vendor.name());
            }
        }
    )*};
}

injections! {
    a_lost_invalidation_is_noticed: DropInvalidation,
    a_lost_configuration_invalidation_is_noticed: DropConfiguration,
    a_sync_completed_early_is_noticed: CompleteEarly,
    a_wrong_tag_is_noticed: WrongTag,
    a_lost_command_is_noticed: LoseCommand,
    swapped_commands_are_noticed: SwapCommands,
    foreign_tables_are_noticed: ForeignTables,
    a_gap_between_two_attachments_is_noticed: Gap,
    a_removed_device_that_stays_is_noticed: KeepRemoved,
    a_quarantined_machine_that_goes_on_is_noticed: KeepQuarantined,
    memory_that_is_kept_is_noticed: KeepMemory,
    a_wait_that_never_ends_is_noticed: Hang,
    a_misrouted_event_is_noticed: MisrouteEvent,
    a_leaked_object_is_noticed: LeakObject,
    a_leaked_tag_is_noticed: LeakTag,
    leaked_memory_is_noticed: LeakMemory,
    a_task_without_end_is_noticed: LeakTask,
    a_panic_is_noticed: Panic,
    a_tag_that_is_not_flushed_is_noticed: KeepTag,
    a_tag_of_two_guests_is_noticed: ShareTag,
    a_shadow_that_is_not_refreshed_is_noticed: KeepShadow,
    a_shadow_of_memory_that_was_taken_is_noticed: KeepShadowMemory,
}

/// Devices try what changed lately: a lost invalidation is no matter of luck.
#[test]
fn a_lost_invalidation_is_noticed_often() {
    let (vendor, seeds) = (Vendor::ArmSmmuv3, 48);
    let noticed = (0..seeds).filter(|seed| notices(vendor, Injection::DropInvalidation, *seed)).count();
    println!("in {noticed} of {seeds} seeds");
    assert!(noticed * 5 >= seeds as usize, "only in {noticed} of {seeds} seeds");
}

#[test]
fn a_failing_story_gets_shorter_and_still_fails_alike() {
    let (vendor, injection) = (Vendor::ArmSmmuv3, Injection::DropInvalidation);
    let seed = noticed(vendor, injection).unwrap();
    let whole = Plan::of(vendor, seed);
    let (short, outcome) = shrink(&whole, injection.clause(), options(injection));
    println!("seed {seed}: {} of {} parts:\n{short}", short.size(), whole.size());
    assert_eq!(outcome.violation.map(|violation| violation.clause), Some(injection.clause()));
    assert!(short.size() * 2 < whole.size(), "{} of {} parts", short.size(), whole.size());
}
