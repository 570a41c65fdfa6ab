//! Changing an STE that the hardware may read at any moment (§3.21.3.1).
//!
//! Hardware reads 64 bits at once. If the words that matter to the old and to the new configuration differ in one
//! word only, the others are prepared first, that one flips, and what is left over is cleared: DMA sees the old or
//! the new entry, never a mix. Otherwise the entry is made invalid in between.

use super::Ste;
use crate::spec::ste::{Config, SteWord0, SteWord1, SteWord2, SteWord3};

/// One step of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Write this word of the STE.
    Write {
        /// Word, 0..8.
        word: usize,
        /// Its value.
        value: u64,
    },
    /// CFGI_STE and SYNC: the hardware must have seen all writes before.
    Sync,
}

const EATS: u64 = SteWord1::new().with_eats(3).into_bits();
const MEV: u64 = SteWord1::new().with_mev(true).into_bits();
const SHCFG: u64 = SteWord1::new().with_shcfg(3).into_bits();
/// S1DSS: bypass for traffic without SubstreamID.
const S1DSS_BYPASS: u8 = 1;
/// EATS: split-stage ATS.
const EATS_S1CHK: u8 = 2;

/// The steps from `current` to `target`. Both set no bit that their configuration does not use.
pub fn plan(current: &Ste, target: &Ste) -> Vec<Step> {
    let mut change = Change { entry: *current, steps: Vec::new() };
    let (prepared, critical) = prepare(current, target);
    match critical.count_ones() {
        // Nothing that matters differs: any order will do.
        0 => change.set(target, 0..8),
        1 => {
            let critical = critical.trailing_zeros() as usize;
            let mut prepared = prepared;
            prepared[critical] = current[critical];
            change.set(&prepared, 0..8);
            change.set(target, critical..critical + 1);
            change.set(target, 0..8);
        }
        _ => {
            change.set(&[0; 8], 0..1);
            change.set(target, 1..8);
            change.set(target, 0..1);
        }
    }
    change.steps
}

/// The current entry with every bit it does not use set as in the target; and which words still differ in bits that
/// the target uses.
fn prepare(current: &Ste, target: &Ste) -> (Ste, u8) {
    let (current_used, target_used, safe) = (used(current), used(target), safe(current, target));
    let mut prepared = *current;
    let mut critical = 0;
    for word in 0..8 {
        let safe = safe[word] & current_used[word] & target_used[word];
        let keep = current_used[word] & !safe;
        prepared[word] = current[word] & keep | target[word] & !keep;
        if prepared[word] & target_used[word] != target[word] {
            critical |= 1 << word;
        }
    }
    (prepared, critical)
}

/// Bits that hardware looks at in this configuration.
fn used(ste: &Ste) -> Ste {
    let (word0, word1) = (SteWord0::from_bits(ste[0]), SteWord1::from_bits(ste[1]));
    let config = Config(word0.config());
    let mut used = [0; 8];
    used[0] = SteWord0::new().with_v(true).into_bits();
    if !word0.v() {
        return used;
    }
    used[0] |= SteWord0::new().with_config(7).into_bits();
    if config.stage1() {
        used[0] |= SteWord0::new().with_s1_fmt(3).with_s1_context_ptr((1 << 46) - 1).with_s1_cd_max(31).into_bits();
        used[1] |= SteWord1::new()
            .with_s1_dss(3)
            .with_s1_cir(3)
            .with_s1_cor(3)
            .with_s1_csh(3)
            .with_s1_stalld(true)
            .with_strw(3)
            .into_bits()
            | EATS
            | MEV;
        used[2] |= SteWord2::new().with_s2_vmid(u16::MAX).into_bits();
        if word1.s1_dss() == S1DSS_BYPASS {
            used[1] |= SHCFG;
        }
    }
    if config.stage2() {
        used[1] |= SteWord1::new().with_s2_fwb(true).into_bits() | EATS | SHCFG | MEV;
        used[2] |= STAGE2.into_bits();
        used[3] |= SteWord3::new().with_s2_ttb((1 << 48) - 1).into_bits();
    }
    if config == Config::BYPASS {
        used[1] |= SHCFG;
    }
    used
}

const STAGE2: SteWord2 = SteWord2::new()
    .with_s2_vmid(u16::MAX)
    .with_s2_t0sz(63)
    .with_s2_sl0(3)
    .with_s2_ir0(3)
    .with_s2_or0(3)
    .with_s2_sh0(3)
    .with_s2_tg(3)
    .with_s2_ps(7)
    .with_s2_aa64(true)
    .with_s2_endi(true)
    .with_s2_ptw(true)
    .with_s2_s(true)
    .with_s2_r(true);

/// Bits that may change at any moment: MEV, and EATS where neither split-stage ATS nor stage-2 stalls are involved.
fn safe(current: &Ste, target: &Ste) -> Ste {
    let mut safe = [0; 8];
    safe[1] = MEV;
    let split_or_stall =
        |ste: &Ste| SteWord1::from_bits(ste[1]).eats() == EATS_S1CHK || SteWord2::from_bits(ste[2]).s2_s();
    if !split_or_stall(current) && !split_or_stall(target) {
        safe[1] |= EATS;
    }
    safe
}

struct Change {
    entry: Ste,
    steps: Vec<Step>,
}

impl Change {
    /// Brings words of the entry to `target`, and syncs if one differed.
    fn set(&mut self, target: &Ste, words: std::ops::Range<usize>) {
        let before = self.steps.len();
        for word in words {
            if self.entry[word] != target[word] {
                self.entry[word] = target[word];
                self.steps.push(Step::Write { word, value: target[word] });
            }
        }
        if self.steps.len() > before {
            self.steps.push(Step::Sync);
        }
    }
}
