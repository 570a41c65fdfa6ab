//! Changing an STE under the hardware: how many syncs Linux's own tests expect, and that no image between two writes
//! means anything but the old or the new.

use arm_smmuv3::tables::{Ste, Step, plan};

const ABORT: Ste = [1, 0, 0, 0, 0, 0, 0, 0];
/// Bypass, incoming shareability.
const BYPASS: Ste = [1 | 4 << 1, 1 << 44, 0, 0, 0, 0, 0, 0];
const CD_TABLE: u64 = 0xf0_f0f0_f0c0;
const MEV: u64 = 1 << 19;
const SHCFG: u64 = 1 << 44;
const EATS: u64 = 1 << 28;
const S2S: u64 = 1 << 57;

/// A CD table with this S1DSS, as Linux writes it with ATS on.
fn cdtable(s1dss: u64) -> Ste {
    let shcfg = if s1dss == 1 { SHCFG } else { 0 };
    [1 | 5 << 1 | CD_TABLE | 20 << 59, s1dss | 1 << 2 | 1 << 4 | 3 << 6 | 1 << 27 | EATS | shcfg, 0, 0, 0, 0, 0, 0]
}

/// Stage 2, as Linux's tests write it (VMID 0), with ATS on or off.
fn s2(ats: bool) -> Ste {
    let word2 = 16 << 32 | 2 << 38 | 1 << 40 | 1 << 42 | 3 << 44 | 5 << 48 | 1 << 51 | 1 << 54 | 1 << 58;
    [1 | 6 << 1, SHCFG | if ats { EATS } else { 0 }, word2, 0x8000_0000, 0, 0, 0, 0]
}

fn nested(s1dss: u64) -> Ste {
    let (mut ste, s2) = (cdtable(s1dss), s2(true));
    ste[0] |= 7 << 1;
    ste[1] |= MEV | SHCFG;
    ste[2..].copy_from_slice(&s2[2..]);
    ste
}

fn stalling(mut ste: Ste) -> Ste {
    if ste[0] >> 1 & 2 != 0 {
        ste[2] |= S2S;
    } else {
        ste[1] &= !(1 << 27);
    }
    ste
}

/// What an STE means: the bits that its configuration looks at, from the manual's tables.
fn meaning(ste: &Ste) -> Ste {
    let mut means = [0; 8];
    if ste[0] & 1 == 0 {
        return means;
    }
    let config = ste[0] >> 1 & 7;
    means[0] = ste[0] & 0xf;
    if config & 4 == 0 {
        means[0] = 1;
        return means;
    }
    if config & 1 != 0 {
        means[0] = ste[0];
        means[1] = ste[1] & 0xf800_00ff;
        means[2] = ste[2] & 0xffff;
    }
    if config & 2 != 0 {
        means[1] |= ste[1] & 0x3200_0000;
        means[2] = ste[2];
        means[3] = ste[3];
    }
    if config & 2 != 0 || config == 4 || ste[1] & 3 == 1 {
        means[1] |= ste[1] & 3 << 44;
    }
    // ATS and event merging may come and go at any moment.
    means[1] &= !(EATS | MEV);
    means
}

/// Plays the steps. The hardware may hold the words of any moment since the last sync, but each word whole.
fn play(from: &Ste, to: &Ste) -> (usize, bool) {
    let (mut image, mut syncs, mut hitless) = (*from, 0, true);
    for step in plan(from, to) {
        match step {
            Step::Write { word, value } => image[word] = value,
            Step::Sync => {
                syncs += 1;
                hitless &= image[0] & 1 != 0;
            }
        }
        let means = meaning(&image);
        let mixed = means != meaning(from) && means != meaning(to);
        assert!(!mixed || image[0] & 1 == 0, "{from:#x?} to {to:#x?}: a mix {image:#x?}");
        hitless &= !mixed;
    }
    assert_eq!(image, *to);
    (syncs, hitless)
}

#[test]
fn as_many_syncs_as_linux_expects() {
    let moved = {
        let mut ste = cdtable(1);
        ste[0] ^= 0x1_0000;
        ste
    };
    for (name, from, to, syncs, hitless) in [
        ("bypass to abort", BYPASS, ABORT, 2, true),
        ("abort to bypass", ABORT, BYPASS, 2, true),
        ("cdtable to abort", cdtable(2), ABORT, 2, true),
        ("abort to cdtable", ABORT, cdtable(2), 2, true),
        ("cdtable to bypass", cdtable(2), BYPASS, 3, true),
        ("bypass to cdtable", BYPASS, cdtable(2), 3, true),
        ("S1DSS SSID0 to bypass", cdtable(2), cdtable(1), 1, true),
        ("S1DSS bypass to SSID0", cdtable(1), cdtable(2), 1, true),
        ("S1DSS SSID0 to terminate", cdtable(2), cdtable(0), 1, true),
        ("S1DSS terminate to SSID0", cdtable(0), cdtable(2), 1, true),
        ("S1DSS bypass to STE bypass", cdtable(1), BYPASS, 2, true),
        ("STE bypass to S1DSS bypass", BYPASS, cdtable(1), 2, true),
        ("s2 to abort", s2(true), ABORT, 2, true),
        ("abort to s2", ABORT, s2(true), 2, true),
        ("s2 to bypass", s2(true), BYPASS, 2, true),
        ("bypass to s2", BYPASS, s2(true), 2, true),
        ("s1 to s2", cdtable(2), s2(true), 3, true),
        ("s2 to s1", s2(true), cdtable(2), 3, true),
        ("s1 to s2, stalling", stalling(cdtable(2)), stalling(s2(true)), 3, true),
        ("s2 to s1, stalling", stalling(s2(true)), stalling(cdtable(2)), 3, true),
        ("nested S1DSS bypass to s2", nested(1), s2(false), 3, true),
        ("s2 to nested S1DSS bypass", s2(false), nested(1), 2, true),
        ("CD pointer and S1DSS at once", cdtable(2), moved, 3, false),
        ("nothing", cdtable(2), cdtable(2), 0, true),
    ] {
        assert_eq!(play(&from, &to), (syncs, hitless), "{name}");
    }
}

#[test]
fn a_nested_stream_goes_to_its_own_stage_2_and_back_without_a_gap() {
    for (from, to) in [(nested(2), s2(false)), (s2(false), nested(2)), (nested(2), ABORT), (ABORT, nested(2))] {
        let (_, hitless) = play(&from, &to);
        assert!(hitless, "{from:#x?} to {to:#x?}");
    }
}
