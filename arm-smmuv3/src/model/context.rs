//! What an STE (§5.2) and a CD (§5.4) ask for, checked against what this SMMU is.

use super::identity::Identity;
use super::tlb::{Hint, Tag};
use super::walk::{Half, Stage1, Stage2, Stages, Table};
use crate::spec::cd::{CD_WORDS, CdTtb, CdWord0};
use crate::spec::registers::address_bits;
use crate::spec::ste::{Config, STE_WORDS, SteWord0, SteWord1, SteWord2, SteWord3};

/// A valid and legal STE.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ste {
    pub(crate) config: Config,
    /// Where the CDs are.
    pub(crate) cds: SteWord0,
    /// S1DSS: what stage 1 does without a SubstreamID.
    pub(crate) s1_dss: u8,
    pub(crate) vmid: u16,
    pub(crate) stage2: Option<Stage2>,
    pub(crate) privileged: bool,
    /// Devices of the stream may cache translations (EATS, IDR0.ATS).
    pub(crate) ats: bool,
}

/// What happens to accesses of one stream and SubstreamID.
#[derive(Debug, Clone)]
pub(crate) enum Route {
    /// They abort, without an event.
    Abort,
    /// They pass with their address.
    Bypass,
    /// They are translated.
    Translate(Context),
}

/// A translation context: where to look in the TLB, and what to walk.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) vmid: u16,
    pub(crate) tag: Tag,
    pub(crate) hint: Hint,
    pub(crate) ats: bool,
    pub(crate) stages: Stages,
}

impl Context {
    /// `input` as TLB and walk know it: without an ignored top byte.
    #[inline]
    pub(crate) fn canonical(&self, input: u64) -> u64 {
        self.stages.stage1.as_ref().map_or(input, |stage1| stage1.canonical(input))
    }
}

/// PRIVCFG: privileged, whatever the access says.
const PRIVCFG_PRIVILEGED: u8 = 3;
/// EATS: full ATS.
const EATS_FULL: u8 = 1;

impl Ste {
    /// Reads an STE; `None` if it is not valid or asks for what this SMMU has not: C_BAD_STE (§7.3.5).
    pub(crate) fn decode(words: &[u64; STE_WORDS], identity: &Identity) -> Option<Self> {
        let (word0, word1) = (SteWord0::from(words[0]), SteWord1::from(words[1]));
        let (word2, word3) = (SteWord2::from(words[2]), SteWord3::from(words[3]));
        let (idr0, config) = (identity.idr0(), Config(word0.config()));
        if !word0.v() || config.stage1() && !idr0.s1p() || config.stage2() && !idr0.s2p() {
            return None;
        }
        if config.stage1() {
            let two_level = word0.s1_cd_max() > 0 && word0.s1_fmt() != 0;
            let format_is_legal = !two_level || idr0.cd2l() && word0.s1_fmt() < 3;
            // Nothing to disable (§5.2 STE.S1STALLD).
            let stalls_are_legal = !word1.s1_stalld() || idr0.stall_model() == 0;
            if !format_is_legal
                || !stalls_are_legal
                || word0.s1_cd_max() > identity.idr1().ssidsize()
                || word1.strw() != 0
            {
                return None;
            }
        }
        let stage2 = match config.stage2() {
            true => Some(stage2(word2, word3, identity)?),
            false => None,
        };
        Some(Self {
            config,
            cds: word0,
            s1_dss: word1.s1_dss(),
            vmid: identity.vmid(word2.s2_vmid()),
            stage2,
            privileged: word1.privcfg() == PRIVCFG_PRIVILEGED,
            ats: word1.eats() == EATS_FULL && idr0.ats(),
        })
    }

    /// The context of stage 2 alone, or bypass.
    pub(crate) fn without_stage1(&self) -> Route {
        match self.stage2 {
            Some(stage2) => {
                let stages = Stages { stage1: None, stage2: Some(stage2) };
                Route::Translate(Context {
                    vmid: self.vmid,
                    tag: Tag::STAGE2,
                    hint: Hint::default(),
                    ats: self.ats,
                    stages,
                })
            }
            None => Route::Bypass,
        }
    }

    /// The context of a CD; `None` if the CD is not valid or illegal: C_BAD_CD (§7.3.11).
    pub(crate) fn with_cd(&self, words: &[u64; CD_WORDS], identity: &Identity) -> Option<Route> {
        let word0 = CdWord0::from(words[0]);
        let idr0 = identity.idr0();
        // Big-endian tables are not modelled: TTENDIAN says little-endian.
        let legal = word0.v() && word0.aa64() && !word0.endi() && !(word0.s() && idr0.stall_model() == 1);
        // Flags that the hardware would update, of kinds that it cannot (§5.4 CD.HA, CD.HD).
        let updates = word0.ha() && idr0.httu() == 0 || word0.hd() && idr0.httu() < 2;
        if !legal || updates || idr0.term_model() && !word0.a() {
            return None;
        }
        let low = match word0.epd0() {
            false => Some(half(CdTtb::from(words[1]), word0.t0sz(), word0.tg0(), word0, word0.tbi0(), identity)?),
            true => None,
        };
        let high = match word0.epd1() {
            // TG1 is coded 1 16 KiB, 2 4 KiB, 3 64 KiB; 0 is reserved.
            false => {
                let tg = *[3, 2, 0, 1].get(usize::from(word0.tg1()))?;
                Some(half(CdTtb::from(words[2]), word0.t1sz(), tg, word0, word0.tbi1(), identity)?)
            }
            true => None,
        };
        let stage1 = Stage1 { low, high, affd: word0.affd(), records: word0.r(), privileged: self.privileged };
        let stages = Stages { stage1: Some(stage1), stage2: self.stage2 };
        let tag = Tag::asid(identity.asid(word0.asid()));
        Some(Route::Translate(Context { vmid: self.vmid, tag, hint: Hint::default(), ats: self.ats, stages }))
    }
}

/// The smallest and largest TxSZ of a granule.
fn size_limits(granule: u8, wide: bool, identity: &Identity) -> std::ops::RangeInclusive<u8> {
    let most = match (identity.idr3().stt(), granule) {
        (false, _) => 39,
        (true, 16) => 47,
        (true, _) => 48,
    };
    let least = if granule == 16 && wide { 12 } else { 16 };
    least..=most
}

/// Output bits of a stage: what it asks for, what the SMMU has, and what its descriptors can hold.
fn output_bits(code: u8, granule: u8, identity: &Identity) -> u8 {
    let most = if granule == 16 { 52 } else { 48 };
    (address_bits(code) as u8).min(identity.output_bits()).min(most)
}

fn half(ttb: CdTtb, tsz: u8, tg: u8, word0: CdWord0, tbi: bool, identity: &Identity) -> Option<Half> {
    let granule = identity.granule(tg)?;
    if !size_limits(granule, identity.idr5().vax() == 1, identity).contains(&tsz) {
        return None;
    }
    let input_bits = 64 - tsz;
    let output_bits = output_bits(word0.ips(), granule, identity);
    if ttb.table() >> output_bits != 0 {
        return None;
    }
    let level = 4 - (input_bits - 4) / (granule - 3);
    let table = Table { base: ttb.table(), input_bits, granule, level, output_bits };
    let hierarchical = !(ttb.had() && identity.idr3().had());
    Some(Half { table, hierarchical, ignores_top_byte: tbi })
}

fn stage2(word2: SteWord2, word3: SteWord3, identity: &Identity) -> Option<Stage2> {
    let granule = identity.granule(word2.s2_tg())?;
    let output_bits = output_bits(word2.s2_ps(), granule, identity);
    let (tsz, sl0) = (word2.s2_t0sz(), word2.s2_sl0());
    let sizes = size_limits(granule, identity.output_bits() > 48, identity);
    let fits = sizes.contains(&tsz) && 64 - tsz <= identity.output_bits();
    if !word2.s2_aa64() || word2.s2_endi() || !fits || word3.table() >> output_bits != 0 {
        return None;
    }
    let level = match (granule, sl0) {
        (12, 3) => identity.idr3().stt().then_some(3)?,
        (12, _) => 2 - sl0,
        (_, 3) => return None,
        _ => 3 - sl0,
    };
    let input_bits = 64 - tsz;
    // Up to 16 start tables stand side by side.
    let index_bits = input_bits.checked_sub(Table::span(granule, level))?;
    if !(1..=granule - 3 + 4).contains(&index_bits) {
        return None;
    }
    let table = Table { base: word3.table(), input_bits, granule, level, output_bits };
    Some(Stage2 { table, ias: identity.intermediate_bits(), affd: word2.s2_affd(), records: word2.s2_r() })
}
