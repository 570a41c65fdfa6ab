//! Random guests on the model and on QEMU at once.

use std::io::Write;
use viommu_qemu::{DEATHS, EXCEPTIONS, Options, QemuError, QemuHardware, Referee, Sabotage, Teller};
use viommu_sim::{Clause, Outcome, Violation};

/// `None` where there is no QEMU: said loudly, and the test that asked has shown nothing.
fn teller(change: impl Fn(Referee) -> Referee + Send + Sync + 'static) -> Option<Teller> {
    match Teller::new(move || Referee::new(QemuHardware::start(Options::default())?).map(&change)) {
        Ok(teller) => Some(teller),
        Err(QemuError::Missing(program)) => {
            let _ = writeln!(std::io::stderr(), "SKIPPED: {program} is not installed: nothing was shown");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn tell(teller: &Teller, seed: u64) -> Outcome {
    let outcome = teller.tell(&Teller::plan(seed));
    println!("seed {seed}: {} DMA by QEMU, {:?}", outcome.counters.get("second.dma"), outcome.violation);
    outcome
}

#[test]
fn the_model_and_qemu_agree() {
    let Some(teller) = teller(|referee| referee) else { return };
    let mut asked = 0;
    for seed in 0..8 {
        let outcome = tell(&teller, seed);
        assert!(outcome.violation.is_none(), "seed {seed}: {}", outcome.violation.unwrap());
        assert!(outcome.counters.get("second.dma") > 0, "seed {seed}: QEMU was asked nothing");
        asked += outcome.counters.get("second.cold");
    }
    assert!(asked > 100, "asked with empty caches {asked} times");
}

/// The first complaint in so many seeds.
fn noticed(sabotage: Sabotage, seeds: u64) -> Option<Option<Violation>> {
    let teller = teller(move |referee| referee.sabotaged(sabotage))?;
    Some((0..seeds).find_map(|seed| tell(&teller, seed).violation))
}

#[test]
fn an_invalidation_that_qemu_does_not_get_is_seen_by_dma() {
    for sabotage in [Sabotage::DropInvalidation, Sabotage::DropConfiguration] {
        let Some(found) = noticed(sabotage, 40) else { return };
        let clause = found.as_ref().map(|violation| violation.clause);
        let stale = [Clause::Stale, Clause::Isolation, Clause::Denied, Clause::Removed].map(Some);
        assert!(stale.contains(&clause), "{sabotage:?}: {found:?}");
    }
}

#[test]
fn every_comparison_complains_of_what_it_compares() {
    for (sabotage, what) in [
        (Sabotage::OtherTable, "nothing cached"),
        (Sabotage::SkipDoorbell, "at command"),
        (Sabotage::WrongFault, "nothing cached"),
        (Sabotage::WrongAddress, "nothing cached"),
        (Sabotage::WrongRecord, "nothing cached"),
        (Sabotage::StrayWrite, "landed at"),
    ] {
        let Some(found) = noticed(sabotage, 6) else { return };
        let found = found.unwrap_or_else(|| panic!("nothing noticed {sabotage:?}"));
        assert!(found.clause == Clause::Differs && found.what.contains(what), "{sabotage:?}: {found}");
    }
}

/// Each exception is still needed: without it, these seeds fail.
#[test]
fn no_exception_has_outlived_its_reason() {
    assert_eq!(NEEDED.map(|(name, _)| name), *EXCEPTIONS.iter().map(|exception| exception.name).collect::<Vec<_>>());
    for (name, seed) in NEEDED {
        let Some(teller) = teller(move |referee| referee.without(name)) else { return };
        let violation = tell(&teller, seed).violation;
        let clause = violation.as_ref().map(|violation| violation.clause);
        assert_eq!(clause, Some(Clause::Differs), "{name} is not needed by seed {seed}: {violation:?}");
    }
}

/// Guests that QEMU does not survive: none that is not known, and the next story has another QEMU.
#[test]
fn a_death_that_is_known_ends_no_other_story() {
    assert_eq!(FATAL.map(|(name, _)| name), *DEATHS.iter().map(|death| death.name).collect::<Vec<_>>());
    let Some(teller) = teller(|referee| referee) else { return };
    for ((_, seed), death) in FATAL.into_iter().zip(DEATHS) {
        let outcome = tell(&teller, seed);
        assert!(outcome.violation.is_none(), "seed {seed}: {}", outcome.violation.unwrap());
        assert_eq!(outcome.counters.get(death.counter), 1, "QEMU survives seed {seed}");
        let next = tell(&teller, 3);
        assert!(next.violation.is_none() && next.counters.get("second.dma") > 0, "{:?}", next.violation);
    }
}

/// A seed for each death.
const FATAL: [(&str, u64); 1] = [("reserved-ips", 585)];

/// Exceptions in their order, each with a seed that needs it.
const NEEDED: [(&str, u64); 7] = [
    ("stage-of-table-faults", 8),
    ("start-of-the-table", 174),
    ("tables-before-address", 167),
    ("table-address-size", 408),
    ("rnw-of-the-walk", 37),
    ("ipa-low-bits", 5),
    ("silent-beyond-size", 9),
];
