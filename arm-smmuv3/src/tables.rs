//! The tables that physical hardware reads: stage 2, stream table entries, the stream table.

mod stage2;
mod ste_update;
mod stream_table;

use crate::spec::ste::{Config, STE_WORDS, SteWord0, SteWord1, SteWord2, SteWord3};
pub use stage2::{Geometry, Stage2};
pub use ste_update::{Step, plan};
pub use stream_table::{Format, StreamTable};
pub(crate) use stream_table::{read_ste, write_word};
use viommu_plugin::{EntryKey, KeyKind, Refusal, Unreadable};

/// A stream table entry in words.
pub type Ste = [u64; STE_WORDS];

/// What of the physical SMMU decides bits of every STE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostSte {
    /// IDR0.ATS: a guest may have ATS on for its stream.
    pub ats: bool,
    /// IDR3.FWB: stage 2 forces write-back.
    pub fwb: bool,
    /// IDR0.STALL_MODEL = 0: stalls exist, and must not, as nobody here resumes them.
    pub stalls: bool,
    /// IDR1.ATTR_TYPES_OVR: SHCFG has an effect.
    pub attr_types_ovr: bool,
}

/// The STE in which all DMA aborts without an event.
pub const ABORT: Ste = [SteWord0::new().with_v(true).into_bits(), 0, 0, 0, 0, 0, 0, 0];

/// The physical STE that does what a guest's entry asks for, on top of `stage2`.
///
/// Bypass becomes stage 2 alone; translate nests the guest's words in it. Events are merged (MEV), so that one
/// guest's device cannot fill the host's event queue. ATS is on only for a guest that turned it on and so sends
/// ATC_INV; in bypass it is off.
pub fn physical_ste(key: &EntryKey, stage2: &Stage2, host: HostSte) -> Ste {
    let mut ste = ABORT;
    let word0 = SteWord0::new().with_v(true);
    let mut word1 = SteWord1::new().with_s2_fwb(host.fwb);
    if host.attr_types_ovr {
        word1.set_shcfg(SteWord1::SHCFG_INCOMING);
    }
    match key.kind {
        KeyKind::BYPASS => {
            ste[0] = word0.with_config(Config::S2_TRANSLATE.0).into_bits();
            ste[1] = word1.into_bits();
        }
        KeyKind::TRANSLATE => {
            let guest0 = SteWord0::from_bits(key.words[0] & crate::codec::GUEST_WORD0);
            let guest1 = SteWord1::from_bits(key.words[1] & crate::codec::GUEST_WORD1);
            let ats = host.ats && guest1.eats() == 1;
            ste[0] = guest0.with_v(true).with_config(Config::NESTED.0).into_bits();
            // S1STALLD where there are no stalls is illegal to some SMMUs: the guest's wish does not get there.
            let guest1 = guest1.with_eats(ats.into()).with_s1_stalld(host.stalls);
            ste[1] = word1.into_bits() | guest1.into_bits() | SteWord1::new().with_mev(true).into_bits();
        }
        _ => return ABORT,
    }
    ste[2] = stage2.word2().into_bits();
    ste[3] = SteWord3::new().with_s2_ttb(stage2.root() >> 4).into_bits();
    ste
}

impl Stage2 {
    /// Word 2 of every STE on this stage 2.
    fn word2(&self) -> SteWord2 {
        let geometry = self.geometry();
        SteWord2::new()
            .with_s2_vmid(self.tag())
            .with_s2_t0sz(geometry.t0sz())
            .with_s2_sl0(geometry.sl0())
            // Walks: write-back cacheable, inner shareable.
            .with_s2_ir0(1)
            .with_s2_or0(1)
            .with_s2_sh0(3)
            .with_s2_ps(geometry.output_size())
            .with_s2_aa64(true)
            .with_s2_ptw(true)
            .with_s2_r(true)
    }
}

/// Memory that the driver allocated itself cannot be reached.
pub(crate) fn broken(_: Unreadable) -> Refusal {
    Refusal::new(Refusal::EIO, "SMMU tables: memory that was allocated for them is not accessible")
}
