//! Translation table walks: VMSAv8-64 stage 1 and stage 2 (Arm ARM D8), one inside the other when nested.

use super::fault::Fault;
use crate::spec::events::{EventId, FaultClass};
use crate::spec::pte::Descriptor;
use std::fmt;
use viommu_cache::{Translation, low_bits};
use viommu_plugin::ModelHost;

/// Hears each step of a walk. The walk that serves a device tells nobody.
pub(crate) trait Narrator {
    /// One step, one line.
    fn tell(&mut self, line: fmt::Arguments<'_>);
}

/// Nobody listens.
pub(crate) struct Silent;

impl Narrator for Silent {
    #[inline]
    fn tell(&mut self, _line: fmt::Arguments<'_>) {}
}

/// A translation table and how to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    /// Address of the first descriptor: an IPA for stage 1 when nested, else physical.
    pub(crate) base: u64,
    /// Bits of an input address that the table resolves.
    pub(crate) input_bits: u8,
    /// log2 of the granule: 12, 14, 16.
    pub(crate) granule: u8,
    /// Level of the first descriptor.
    pub(crate) level: u8,
    /// Bits an output address may have.
    pub(crate) output_bits: u8,
}

impl Table {
    /// log2 of what one descriptor of `level` spans.
    pub(crate) fn span(granule: u8, level: u8) -> u8 {
        granule + (granule - 3) * (3 - level)
    }

    /// Bits that index the start level: more than a granule holds where stage-2 start tables are concatenated.
    fn start_index_bits(&self) -> u8 {
        self.input_bits.saturating_sub(Self::span(self.granule, self.level))
    }

    /// Whether a descriptor of `level` may be a block.
    fn blocks_at(&self, level: u8) -> bool {
        level == 2 || level == 1 && (self.granule == 12 || self.granule == 16 && self.output_bits > 48)
    }

    /// The address field of a descriptor, aligned to 2^`log2`. With 64 KiB granules and 52-bit outputs, descriptor
    /// bits 15:12 are address bits 51:48.
    fn address(&self, descriptor: u64, log2: u8) -> u64 {
        let high = if self.granule == 16 && self.output_bits > 48 { (descriptor >> 12 & 0xf) << 48 } else { 0 };
        high | descriptor & Descriptor::ADDRESS_MASK & !low_bits(log2)
    }
}

/// Stage 1 of one context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage1 {
    /// TTB0, unless EPD0.
    pub(crate) low: Option<Half>,
    /// TTB1, unless EPD1.
    pub(crate) high: Option<Half>,
    /// AF = 0 is no fault (CD.AFFD).
    pub(crate) affd: bool,
    /// Faults are recorded (CD.R).
    pub(crate) records: bool,
    /// The stream's traffic is privileged (STE.PRIVCFG).
    pub(crate) privileged: bool,
}

/// One half of the stage-1 input address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Half {
    pub(crate) table: Table,
    /// APTable counts (no HAD).
    pub(crate) hierarchical: bool,
    /// The top byte of an input address is ignored (TBI).
    pub(crate) ignores_top_byte: bool,
}

impl Stage1 {
    const TOP_BYTE: u64 = 0xff << 56;

    /// `input` with an ignored top byte made what it would be without one.
    #[inline]
    pub(crate) fn canonical(&self, input: u64) -> u64 {
        let high = input >> 55 & 1 != 0;
        match if high { &self.high } else { &self.low } {
            Some(half) if half.ignores_top_byte && high => input | Self::TOP_BYTE,
            Some(half) if half.ignores_top_byte => input & !Self::TOP_BYTE,
            _ => input,
        }
    }

    /// The half that a canonical `input` belongs to, with the offset in it.
    fn select(&self, input: u64) -> Option<(&Half, u64)> {
        let offset = |half: &Half| input & low_bits(half.table.input_bits);
        let low = self.low.as_ref().filter(|half| input == offset(half));
        let high = || self.high.as_ref().filter(|half| input == offset(half) | !low_bits(half.table.input_bits));
        low.or_else(high).map(|half| (half, offset(half)))
    }
}

/// Stage 2 of one VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stage2 {
    pub(crate) table: Table,
    /// Bits of an address that gets here without a stage 1 (IAS).
    pub(crate) ias: u8,
    /// AF = 0 is no fault (STE.S2AFFD).
    pub(crate) affd: bool,
    /// Faults are recorded (STE.S2R).
    pub(crate) records: bool,
}

/// The stages that a stream's traffic goes through; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stages {
    pub(crate) stage1: Option<Stage1>,
    pub(crate) stage2: Option<Stage2>,
}

/// Permission bits of an access or a translation.
pub(crate) const READ: u8 = 1;
pub(crate) const WRITE: u8 = 2;

/// The leaf of one stage.
struct Leaf {
    descriptor: Descriptor,
    output: u64,
    log2: u8,
    /// APTable bits of the tables above, together.
    ap_table: u8,
}

/// Walks tables in memory.
pub(crate) struct Walker<'a, N> {
    pub(crate) memory: &'a dyn ModelHost,
    pub(crate) narrator: N,
}

impl<N: Narrator> Walker<'_, N> {
    /// One word of physical memory.
    fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory.read(address, &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
    }

    /// Translates `input` (canonical) for an access that needs the permissions `access` (0: only asks); the
    /// translation, and whether any ASID may use it.
    pub(crate) fn translate(&mut self, stages: &Stages, input: u64, access: u8) -> Result<(Translation, bool), Fault> {
        let Some(stage1) = &stages.stage1 else {
            let Some(stage2) = &stages.stage2 else { return Err(Fault::configuration(EventId::C_BAD_STE)) };
            if input & !low_bits(stage2.ias) != 0 {
                self.narrator.tell(format_args!("S1: bypassed, and {input:#x} has more than {} bits", stage2.ias));
                return Err(Fault::beyond_size());
            }
            return self.stage2(stage2, input, access, FaultClass::IN).map(|found| (found, false));
        };
        let (first, global) = self.stage1(stage1, stages.stage2.as_ref(), input, access)?;
        let Some(stage2) = &stages.stage2 else { return Ok((first, global)) };
        let ipa = first.apply(input);
        let second = self.stage2(stage2, ipa, access, FaultClass::IN)?;
        let log2 = first.log2.min(second.log2);
        let combined = Translation {
            output: second.apply(ipa) & !low_bits(log2),
            log2,
            leaf_log2: first.log2,
            permissions: first.permissions & second.permissions,
        };
        Ok((combined, global))
    }

    /// Where an address of a structure that stage 1 owns (table, CD) is in physical memory.
    pub(crate) fn locate(&mut self, stage2: Option<&Stage2>, address: u64, class: FaultClass) -> Result<u64, Fault> {
        match stage2 {
            Some(stage2) => self.stage2(stage2, address, READ, class).map(|found| found.apply(address)),
            None => Ok(address),
        }
    }

    fn stage1(
        &mut self,
        stage1: &Stage1,
        stage2: Option<&Stage2>,
        input: u64,
        access: u8,
    ) -> Result<(Translation, bool), Fault> {
        let fault = |event| Fault { stage: 1, recorded: stage1.records, ..Fault::configuration(event) };
        let Some((half, offset)) = stage1.select(input) else {
            self.narrator.tell(format_args!("S1: {input:#x} is outside TTB0 and TTB1 (T0SZ, EPD)"));
            return Err(fault(EventId::F_TRANSLATION));
        };
        let fetch = |walker: &mut Self, ipa: u64| {
            let address = walker.locate(stage2, ipa, FaultClass::TTD)?;
            let aborted = Fault { class: FaultClass::TTD, address, ..fault(EventId::F_WALK_EABT) };
            walker.word(address).ok_or(aborted)
        };
        let leaf = self.descend("S1", &half.table, offset, fetch, fault)?;
        if !leaf.descriptor.af() && !stage1.affd {
            self.narrator.tell(format_args!("S1: access flag is clear"));
            return Err(fault(EventId::F_ACCESS));
        }
        let limits = if half.hierarchical { leaf.ap_table } else { 0 };
        let permissions = stage1_permissions(leaf.descriptor.ap(), limits, stage1.privileged);
        if access & !permissions != 0 {
            self.narrator.tell(format_args!("S1: needs {}, has {}", rights(access), rights(permissions)));
            return Err(fault(EventId::F_PERMISSION));
        }
        let Leaf { output, log2, .. } = leaf;
        self.narrator.tell(format_args!("S1: {output:#x}, 2^{log2} bytes, {}", rights(permissions)));
        Ok((Translation { output, log2, leaf_log2: log2, permissions }, !leaf.descriptor.ng()))
    }

    fn stage2(&mut self, stage2: &Stage2, ipa: u64, access: u8, class: FaultClass) -> Result<Translation, Fault> {
        let fault = |event| Fault { event, stage: 2, class, address: ipa, recorded: stage2.records };
        if ipa & !low_bits(stage2.table.input_bits) != 0 {
            self.narrator.tell(format_args!(" S2: {ipa:#x} is outside the table (S2T0SZ)"));
            return Err(fault(EventId::F_TRANSLATION));
        }
        let fetch = |walker: &mut Self, address: u64| {
            walker.word(address).ok_or(Fault { address, ..fault(EventId::F_WALK_EABT) })
        };
        let leaf = self.descend(" S2", &stage2.table, ipa, fetch, fault)?;
        if !leaf.descriptor.af() && !stage2.affd {
            self.narrator.tell(format_args!(" S2: access flag is clear"));
            return Err(fault(EventId::F_ACCESS));
        }
        let permissions = leaf.descriptor.ap();
        if access & !permissions != 0 {
            self.narrator.tell(format_args!(" S2: needs {}, has {}", rights(access), rights(permissions)));
            return Err(fault(EventId::F_PERMISSION));
        }
        let Leaf { output, log2, .. } = leaf;
        self.narrator.tell(format_args!(" S2: {ipa:#x} is at {output:#x}, 2^{log2} bytes, {}", rights(permissions)));
        Ok(Translation { output, log2, leaf_log2: log2, permissions })
    }

    /// From the start level of `table` to the leaf of `input`, at most four descriptors.
    fn descend(
        &mut self,
        stage: &str,
        table: &Table,
        input: u64,
        fetch: impl Fn(&mut Self, u64) -> Result<u64, Fault>,
        fault: impl Fn(EventId) -> Fault,
    ) -> Result<Leaf, Fault> {
        let mut index_bits = table.start_index_bits();
        let mut base = table.base & !low_bits(index_bits + 3);
        let mut ap_table = 0;
        for level in table.level..=3 {
            let log2 = Table::span(table.granule, level);
            let address = base + 8 * (input >> log2 & low_bits(index_bits));
            let word = fetch(self, address)?;
            self.narrator.tell(format_args!("{stage} L{level} [{address:#x}] = {word:#x}"));
            let descriptor = Descriptor::from(word);
            if !descriptor.valid() || !descriptor.table() && !table.blocks_at(level) {
                self.narrator.tell(format_args!("{stage}: no valid descriptor"));
                return Err(fault(EventId::F_TRANSLATION));
            }
            let leaf = level == 3 || !descriptor.table();
            let output = table.address(word, if leaf { log2 } else { table.granule });
            if output & !low_bits(table.output_bits) != 0 {
                self.narrator.tell(format_args!("{stage}: {output:#x} has more than {} bits", table.output_bits));
                return Err(fault(EventId::F_ADDR_SIZE));
            }
            if leaf {
                return Ok(Leaf { descriptor, output, log2, ap_table });
            }
            ap_table |= descriptor.ap_table();
            base = output;
            index_bits = table.granule - 3;
        }
        Err(fault(EventId::F_TRANSLATION))
    }
}

/// What AP\[2:1\] of a leaf and APTable of the tables above it leave to an access (Arm ARM D8.4.1).
fn stage1_permissions(ap: u8, ap_table: u8, privileged: bool) -> u8 {
    let readable = privileged || ap & 1 != 0 && ap_table & 1 == 0;
    let writable = readable && ap & 2 == 0 && ap_table & 2 == 0;
    (if readable { READ } else { 0 }) | if writable { WRITE } else { 0 }
}

/// Permissions in letters.
pub(crate) fn rights(permissions: u8) -> &'static str {
    match permissions & 3 {
        READ => "r-",
        WRITE => "-w",
        0 => "--",
        _ => "rw",
    }
}
