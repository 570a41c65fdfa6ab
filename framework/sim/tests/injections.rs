//! Each way to break the product is noticed by the clause that must notice it, and the story gets shorter.

use viommu_sim::{Injection, Options, Plan, run, shrink};

/// Seeds in which an injection must be noticed: not every story does what it takes.
const SEEDS: u64 = 60;

fn options(injection: Injection) -> Options {
    Options { injection: Some(injection), ..Options::default() }
}

/// The first seed in which the right clause complains.
fn noticed(injection: Injection) -> Option<u64> {
    (0..SEEDS).find(|seed| {
        let violation = run(&Plan::of(*seed), options(injection)).violation;
        violation.is_some_and(|violation| violation.clause == injection.clause())
    })
}

macro_rules! injections {
    ($($name:ident: $injection:ident,)*) => {$(
        #[test]
        fn $name() {
            let seed = noticed(Injection::$injection);
            assert!(seed.is_some(), "{} is not noticed in {SEEDS} seeds", Injection::$injection.name());
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
}

#[test]
fn a_failing_story_gets_shorter_and_still_fails_alike() {
    let injection = Injection::DropInvalidation;
    let seed = noticed(injection).unwrap();
    let whole = Plan::of(seed);
    let (short, outcome) = shrink(&whole, injection.clause(), options(injection));
    println!("seed {seed}: {} of {} parts:\n{short}", short.size(), whole.size());
    assert_eq!(outcome.violation.map(|violation| violation.clause), Some(injection.clause()));
    assert!(short.size() * 2 < whole.size(), "{} of {} parts", short.size(), whole.size());
}
