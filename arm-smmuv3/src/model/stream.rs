//! From a StreamID and SubstreamID to a [`Route`]: stream table and CD table look-ups (§3.3), and their cache.

use super::context::{Route, Ste};
use super::fault::Fault;
use super::identity::Identity;
use super::registers::Registers;
use super::walk::{Narrator, Walker};
use crate::spec::cd::{CD_BYTES, CD_WORDS, L1Cd, L2_LOG2_4K, L2_LOG2_64K};
use crate::spec::events::{EventId, FaultClass};
use crate::spec::registers::StrtabBaseCfg;
use crate::spec::ste::{L1StreamTable, STE_BYTES, STE_WORDS};
use rustc_hash::FxHashMap;

/// SubstreamID of an access that has none.
pub(crate) const NO_SUBSTREAM: u32 = u32::MAX;

/// Reads stream table and CD tables.
pub(crate) struct Lookup<'a, N> {
    pub(crate) identity: &'a Identity,
    pub(crate) registers: &'a Registers,
    pub(crate) walker: Walker<'a, N>,
}

impl<N: Narrator> Lookup<'_, N> {
    fn words<const W: usize>(&self, address: u64) -> Option<[u64; W]> {
        let mut words = [0; W];
        let mut bytes = [0; 8];
        for (word, offset) in words.iter_mut().zip((0..).step_by(8)) {
            self.walker.memory.read(address.checked_add(offset)?, &mut bytes).ok()?;
            *word = u64::from_le_bytes(bytes);
        }
        Some(words)
    }

    /// The STE of `stream`.
    pub(crate) fn ste(&mut self, stream: u32) -> Result<Ste, Fault> {
        let address = self.ste_address(stream)?;
        let fetched = self.words::<STE_WORDS>(address).ok_or(Fault::fetch(EventId::F_STE_FETCH, address))?;
        let [w0, w1, w2, w3, ..] = fetched;
        self.walker.narrator.tell(format_args!("STE {stream:#x} [{address:#x}] = {w0:#x} {w1:#x} {w2:#x} {w3:#x}"));
        Ste::decode(&fetched, self.identity).ok_or_else(|| {
            self.walker.narrator.tell(format_args!("STE is not valid, or illegal"));
            Fault::configuration(EventId::C_BAD_STE)
        })
    }

    fn ste_address(&mut self, stream: u32) -> Result<u64, Fault> {
        let (base, config) = (self.registers.strtab_base().address(), self.registers.strtab_base_cfg());
        let recorded = self.registers.cr2().recinvsid();
        let outside = Fault { recorded, ..Fault::configuration(EventId::C_BAD_STREAMID) };
        let bits = u32::from(config.log2size().min(self.identity.idr1().sidsize())).min(u32::BITS);
        if u64::from(stream) >> bits != 0 {
            self.walker
                .narrator
                .tell(format_args!("stream {stream:#x} is beyond the stream table of 2^{bits} entries"));
            return Err(outside);
        }
        let two_level = config.fmt() == StrtabBaseCfg::TWO_LEVEL && self.identity.idr0().st_level() != 0;
        if !two_level {
            return Ok((base & !((STE_BYTES << bits) - 1)) + STE_BYTES * u64::from(stream));
        }
        let split = match config.split() {
            split @ (8 | 10) => u32::from(split),
            _ => 6,
        };
        // A level-1 array is at least 64 bytes.
        let level1 = base & !((8u64 << bits.saturating_sub(split)).max(64) - 1);
        let address = level1 + 8 * u64::from(stream >> split);
        let [word] = self.words(address).ok_or(Fault::fetch(EventId::F_STE_FETCH, address))?;
        self.walker.narrator.tell(format_args!("L1STD [{address:#x}] = {word:#x}"));
        let level1 = L1StreamTable::from(word);
        let (span, index) = (u32::from(level1.span()), stream & ((1 << split) - 1));
        if span == 0 || span > split + 1 || index >> (span - 1) != 0 {
            self.walker.narrator.tell(format_args!("no STE {index:#x} under that descriptor"));
            return Err(outside);
        }
        let level2 = level1.l2_address() & !((STE_BYTES << (span - 1)) - 1);
        Ok(level2 + STE_BYTES * u64::from(index))
    }

    /// What `ste` does to accesses with `substream` (or [`NO_SUBSTREAM`]).
    pub(crate) fn route(&mut self, ste: &Ste, substream: u32) -> Result<Route, Fault> {
        if ste.config.aborts() {
            return Ok(Route::Abort);
        }
        let cd_max = if ste.config.stage1() { u32::from(ste.cds.s1_cd_max()) } else { 0 };
        let index = match (substream, cd_max, ste.s1_dss) {
            (NO_SUBSTREAM, _, _) if !ste.config.stage1() => return Ok(ste.without_stage1()),
            (NO_SUBSTREAM, 0, _) => 0,
            (NO_SUBSTREAM, _, 1) => return Ok(ste.without_stage1()),
            (NO_SUBSTREAM, _, 2) => 0,
            (NO_SUBSTREAM, ..) => return Err(Fault::configuration(EventId::F_STREAM_DISABLED)),
            (0, _, 2) | (_, 0, _) => return Err(Fault::configuration(EventId::C_BAD_SUBSTREAMID)),
            (substream, ..) if substream >> cd_max != 0 => {
                return Err(Fault::configuration(EventId::C_BAD_SUBSTREAMID));
            }
            (substream, ..) => substream,
        };
        let address = self.cd_address(ste, index)?;
        let fetched = self.words::<CD_WORDS>(address).ok_or(Fault::fetch(EventId::F_CD_FETCH, address))?;
        let [w0, w1, w2, ..] = fetched;
        self.walker.narrator.tell(format_args!("CD {index} [{address:#x}] = {w0:#x} {w1:#x} {w2:#x}"));
        ste.with_cd(&fetched, self.identity).ok_or_else(|| {
            self.walker.narrator.tell(format_args!("CD is not valid, or illegal"));
            Fault::configuration(EventId::C_BAD_CD)
        })
    }

    /// The physical address of CD `index`. The CD tables' own addresses are IPAs when nested.
    fn cd_address(&mut self, ste: &Ste, index: u32) -> Result<u64, Fault> {
        let (base, stage2) = (ste.cds.cd_table(), ste.stage2.as_ref());
        let split = match ste.cds.s1_fmt() {
            _ if ste.cds.s1_cd_max() == 0 => 0,
            1 => L2_LOG2_4K,
            2 => L2_LOG2_64K,
            _ => 0,
        };
        if split == 0 {
            return self.walker.locate(stage2, base + CD_BYTES * u64::from(index), FaultClass::CD);
        }
        let address = self.walker.locate(stage2, base + 8 * u64::from(index >> split), FaultClass::CD)?;
        let [word] = self.words(address).ok_or(Fault::fetch(EventId::F_CD_FETCH, address))?;
        self.walker.narrator.tell(format_args!("L1CD [{address:#x}] = {word:#x}"));
        let level1 = L1Cd::from(word);
        if !level1.v() {
            return Err(Fault::configuration(EventId::C_BAD_SUBSTREAMID));
        }
        let offset = CD_BYTES * u64::from(index & ((1 << split) - 1));
        self.walker.locate(stage2, level1.l2_address() + offset, FaultClass::CD)
    }
}

/// One stream as it was last read.
struct Stream {
    ste: Ste,
    /// Without SubstreamID; where that uses a CD, it is CD 0.
    plain: Option<Route>,
    substreams: FxHashMap<u32, Route>,
}

/// The configuration cache: STEs and CDs that were read and found good, until a CMD_CFGI names them.
#[derive(Default)]
pub(crate) struct Streams {
    streams: FxHashMap<u32, Stream>,
}

impl Streams {
    /// The route of an access, if STE and CD are cached.
    #[inline]
    pub(crate) fn route(&self, stream: u32, substream: u32) -> Option<&Route> {
        let stream = self.streams.get(&stream)?;
        match substream {
            NO_SUBSTREAM => stream.plain.as_ref(),
            _ => stream.substreams.get(&substream),
        }
    }

    /// The route of an access, looked up as far as it is not cached.
    pub(crate) fn fetch<N: Narrator>(
        &mut self,
        stream: u32,
        substream: u32,
        mut lookup: Lookup<'_, N>,
    ) -> Result<&Route, Fault> {
        use std::collections::hash_map::Entry;
        let cached = match self.streams.entry(stream) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => {
                let ste = lookup.ste(stream)?;
                place.insert(Stream { ste, plain: None, substreams: FxHashMap::default() })
            }
        };
        let route = lookup.route(&cached.ste, substream)?;
        Ok(match substream {
            NO_SUBSTREAM => cached.plain.insert(route),
            _ => cached.substreams.entry(substream).insert_entry(route).into_mut(),
        })
    }

    /// CMD_CFGI_STE: the STE and all its CDs.
    pub(crate) fn forget(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// CMD_CFGI_STE_RANGE: 2^(`range` + 1) streams, aligned; 31 is all.
    pub(crate) fn forget_range(&mut self, stream: u32, range: u8) {
        let shift = u32::from(range) + 1;
        self.streams.retain(|&other, _| u64::from(other) >> shift != u64::from(stream) >> shift);
    }

    /// CMD_CFGI_CD: one CD.
    pub(crate) fn forget_cd(&mut self, stream: u32, substream: u32) {
        if let Some(cached) = self.streams.get_mut(&stream) {
            cached.substreams.remove(&substream);
            if substream == 0 {
                cached.plain = None;
            }
        }
    }

    /// CMD_CFGI_CD_ALL: all CDs of a stream.
    pub(crate) fn forget_cds(&mut self, stream: u32) {
        if let Some(cached) = self.streams.get_mut(&stream) {
            cached.substreams.clear();
            cached.plain = None;
        }
    }

    /// Power-on.
    pub(crate) fn clear(&mut self) {
        self.streams.clear();
    }
}
