//! What every synthetic recording is: the same for the same recipe, whole, and rich in what it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use viommu_synth::{Kind, Recipe, generate};
use viommu_trace::{Outcome, Record, Trace};

const SEEDS: std::ops::Range<u64> = 1..6;

fn recipe(kind: Kind, seed: u64) -> Recipe {
    Recipe { kind, seed, steps: 600, compressed: false }
}

fn bytes(recipe: &Recipe) -> Vec<u8> {
    generate(recipe, Vec::new()).unwrap()
}

fn open(bytes: Vec<u8>) -> Trace {
    Trace::from_reader("synthetic", Cursor::new(bytes)).unwrap()
}

#[test]
fn the_same_recipe_gives_the_same_bytes() {
    for kind in Kind::ALL {
        let first = bytes(&recipe(kind, 7));
        assert_eq!(first, bytes(&recipe(kind, 7)), "{kind}");
        assert_ne!(first, bytes(&recipe(kind, 8)), "{kind}");
        let compressed = Recipe { compressed: true, ..recipe(kind, 7) };
        assert_eq!(bytes(&compressed), bytes(&compressed), "{kind}");
    }
}

#[test]
fn a_header_says_what_it_is() {
    for kind in Kind::ALL {
        let json = open(bytes(&recipe(kind, 7))).header().json.clone();
        assert_eq!(json["synthetic"], true, "{kind}");
        assert_eq!(json["seed"], 7, "{kind}");
        assert_eq!(json["kind"], kind.to_string());
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    assert!("nobody".parse::<Kind>().unwrap_err().contains("amd-nested"));
}

/// Whole, only RAM, no output outside of it; all ways a DMA can end that the format has for the vendor; addresses that
/// were used, and lead elsewhere later.
#[test]
fn recordings_are_whole_and_reuse_addresses() {
    for kind in Kind::ALL {
        let (mut outcomes, mut moved) = (BTreeSet::new(), 0);
        for seed in SEEDS {
            let mut trace = open(bytes(&recipe(kind, seed)));
            let header = trace.header().clone();
            let (mut ended, mut last) = (false, BTreeMap::new());
            while let Some(entry) = trace.next().unwrap() {
                match entry.record {
                    Record::Mem { gpa, bytes, .. } => assert!(header.in_ram(gpa, bytes.len() as u64), "{kind} {seed}"),
                    Record::Translation(dma) => {
                        outcomes.insert(dma.outcome as u8);
                        if dma.outcome == Outcome::Ok {
                            assert!(header.in_ram(dma.output, 1), "{kind} {seed}: {:#x}", dma.output);
                            let before = last.insert((dma.stream, dma.pasid, dma.iova), dma.output);
                            moved += u64::from(before.is_some_and(|before| before != dma.output));
                        }
                    }
                    Record::End => ended = true,
                    _ => {}
                }
            }
            assert!(ended, "{kind} {seed}");
        }
        assert!(moved > 50, "{kind}: {moved} addresses led elsewhere");
        let mut expected = BTreeSet::from([Outcome::Ok as u8, Outcome::Fault as u8, Outcome::Bypass as u8]);
        // VT-d has no entry that refuses without a fault.
        if !matches!(kind, Kind::VtdNested | Kind::VtdShadow) {
            expected.insert(Outcome::Abort as u8);
        }
        assert_eq!(outcomes, expected, "{kind}");
    }
}
