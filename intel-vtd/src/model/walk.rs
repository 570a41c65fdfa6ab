//! Page table walks: first stage (§3.6) and second stage (§3.7), one inside the other when nested (§3.8).

use super::fault::Fault;
use crate::spec::fault_reason::FaultReason;
use crate::spec::pte::{ADDRESS_MASK, FirstStageEntry, INDEX_BITS, PTE_BYTES, SecondStageEntry};
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

/// First stage of one PASID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FirstStage {
    /// Address of the top table: guest-physical when nested.
    pub(crate) base: u64,
    /// 4 or 5.
    pub(crate) levels: u8,
    /// Level-3 entries may be leaves (CAP.FS1GP).
    pub(crate) gigabyte_leaves: bool,
    /// The requests are privileged (RID_PRIV).
    pub(crate) privileged: bool,
    /// Privileged requests obey R/W (WPE).
    pub(crate) write_protect: bool,
}

/// Second stage of one domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SecondStage {
    /// Address of the top table.
    pub(crate) base: u64,
    /// 3, 4 or 5.
    pub(crate) levels: u8,
    /// Bits of an input address (AW, CAP.MGAW).
    pub(crate) input_bits: u8,
    /// Bit 0: level-2 entries may be leaves; bit 1: level-3 entries (CAP.SSLPS).
    pub(crate) leaves: u8,
    /// Fault reasons of legacy mode.
    pub(crate) legacy: bool,
}

/// The stages that requests go through; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stages {
    /// First stage only.
    First(FirstStage),
    /// Second stage only.
    Second(SecondStage),
    /// First stage over second stage.
    Nested(FirstStage, SecondStage),
}

/// Permission bits of an access or a translation.
pub(crate) const READ: u8 = 1;
pub(crate) const WRITE: u8 = 2;

/// log2 of what an entry of `level` spans.
fn span(level: u8) -> u8 {
    12 + INDEX_BITS as u8 * (level - 1)
}

/// Address of the entry of `input` in the table of `level` at `base`.
fn entry_address(base: u64, input: u64, level: u8) -> u64 {
    base + PTE_BYTES * (input >> span(level) & low_bits(INDEX_BITS as u8))
}

/// Walks tables in memory. They are only read: accessed and dirty bits stay as they are.
pub(crate) struct Walker<'a, N> {
    pub(crate) memory: &'a dyn ModelHost,
    pub(crate) narrator: N,
}

impl<N: Narrator> Walker<'_, N> {
    /// One word of physical memory.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory.read(address, &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
    }

    /// Translates `input` for an access that needs the permissions `access` (0: only asks).
    pub(crate) fn translate(&mut self, stages: &Stages, input: u64, access: u8) -> Result<Translation, Fault> {
        let (first, second) = match stages {
            Stages::First(first) => return self.first(first, None, input, access),
            Stages::Second(second) => return self.second(second, input, access),
            Stages::Nested(first, second) => (first, second),
        };
        let found = self.first(first, Some(second), input, access)?;
        let address = found.apply(input);
        let below = self.second(second, address, access)?;
        let log2 = found.log2.min(below.log2);
        Ok(Translation {
            output: below.apply(address) & !low_bits(log2),
            log2,
            leaf_log2: found.log2,
            permissions: found.permissions & below.permissions,
        })
    }

    fn first(
        &mut self,
        stage: &FirstStage,
        second: Option<&SecondStage>,
        input: u64,
        access: u8,
    ) -> Result<Translation, Fault> {
        let fault = |reason| Fault { stage: 1, ..Fault::configuration(reason) };
        let sign = (input as i64) >> (span(stage.levels) + INDEX_BITS as u8 - 1);
        if sign != 0 && sign != -1 {
            self.narrator.tell(format_args!("FS: {input:#x} is not canonical for {} levels", stage.levels));
            return Err(fault(FaultReason::SM_NOT_CANONICAL));
        }
        let (mut base, mut writable) = (stage.base, true);
        for level in (1..=stage.levels).rev() {
            let (top, guest) = (level == stage.levels, entry_address(base, input, level));
            let address = match second {
                // Reading an entry that the second stage does not let be read has reasons of its own.
                Some(second) => self.second(second, guest, READ).map_err(|below| match below.reason {
                    FaultReason::SM_SS_NO_PERMISSION if top => {
                        Fault { reason: FaultReason::SM_FS_ROOT_NO_READ, ..below }
                    }
                    FaultReason::SM_SS_NO_PERMISSION => Fault { reason: FaultReason::SM_FS_NO_READ, ..below },
                    FaultReason::SM_BEYOND_MGAW => Fault { reason: FaultReason::SM_FS_ADDRESS_BEYOND, ..below },
                    _ => below,
                })?,
                None => Translation { output: guest, log2: 0, leaf_log2: 0, permissions: READ },
            }
            .apply(guest);
            let unreadable = if top { FaultReason::SM_FS_ROOT_UNREADABLE } else { FaultReason::SM_FS_UNREADABLE };
            let word = self.word(address).ok_or(fault(unreadable))?;
            self.narrator.tell(format_args!("FS L{level} [{address:#x}] = {word:#x}"));
            let entry = FirstStageEntry::from(word);
            if !entry.present() {
                self.narrator.tell(format_args!("FS: not present"));
                return Err(fault(FaultReason::SM_FS_NOT_PRESENT));
            }
            let (large, log2) = (level > 1 && entry.page_size(), span(level));
            // Bit 12 of a large leaf is PAT.
            let misplaced = word & ADDRESS_MASK & low_bits(log2) & !0x1000;
            if large && (level > 3 || level == 3 && !stage.gigabyte_leaves || misplaced != 0) {
                self.narrator.tell(format_args!("FS: a leaf that cannot be at level {level}"));
                return Err(fault(FaultReason::SM_FS_RESERVED));
            }
            if !entry.user() && !stage.privileged {
                self.narrator.tell(format_args!("FS: U/S is 0"));
                return Err(fault(FaultReason::SM_FS_SUPERVISOR_ONLY));
            }
            writable &= entry.write() || stage.privileged && !stage.write_protect;
            if access & WRITE != 0 && !writable {
                self.narrator.tell(format_args!("FS: not writable"));
                return Err(fault(FaultReason::SM_NO_WRITE));
            }
            if large || level == 1 {
                let output = word & ADDRESS_MASK & !low_bits(log2);
                let permissions = if writable { READ | WRITE } else { READ };
                self.narrator.tell(format_args!("FS: {output:#x}, 2^{log2} bytes, {}", rights(permissions)));
                return Ok(Translation { output, log2, leaf_log2: log2, permissions });
            }
            base = word & ADDRESS_MASK;
        }
        Err(fault(FaultReason::SM_FS_RESERVED))
    }

    fn second(&mut self, stage: &SecondStage, input: u64, access: u8) -> Result<Translation, Fault> {
        let fault = |legacy, scalable| {
            let reason = if stage.legacy { legacy } else { scalable };
            Fault { stage: 2, input, ..Fault::configuration(reason) }
        };
        if input & !low_bits(stage.input_bits) != 0 {
            self.narrator.tell(format_args!(" SS: {input:#x} has more than {} bits", stage.input_bits));
            return Err(fault(FaultReason::BEYOND_MGAW, FaultReason::SM_BEYOND_MGAW));
        }
        let (mut base, mut permissions) = (stage.base, READ | WRITE);
        for level in (1..=stage.levels).rev() {
            let (address, log2) = (entry_address(base, input, level), span(level));
            let unreadable = match level == stage.levels {
                true => FaultReason::SM_SS_TABLE_UNREADABLE,
                false => FaultReason::SM_SS_UNREADABLE,
            };
            let word = self.word(address).ok_or(fault(FaultReason::TABLE_UNREADABLE, unreadable))?;
            self.narrator.tell(format_args!(" SS L{level} [{address:#x}] = {word:#x}"));
            let entry = SecondStageEntry::from(word);
            permissions &= word as u8 & (READ | WRITE);
            if permissions == 0 || access & !permissions != 0 {
                self.narrator.tell(format_args!(" SS: needs {}, has {}", rights(access), rights(permissions)));
                let legacy = if access & WRITE != 0 { FaultReason::NO_WRITE } else { FaultReason::NO_READ };
                return Err(fault(legacy, FaultReason::SM_SS_NO_PERMISSION));
            }
            let (large, output) = (level > 1 && entry.page_size(), word & ADDRESS_MASK);
            let possible = level <= 3 && stage.leaves >> (level.max(2) - 2) & 1 != 0 && output & low_bits(log2) == 0;
            if large && !possible {
                self.narrator.tell(format_args!(" SS: a leaf that cannot be at level {level}"));
                return Err(fault(FaultReason::PTE_RESERVED, FaultReason::SM_SS_RESERVED));
            }
            if large || level == 1 {
                let rights = rights(permissions);
                self.narrator.tell(format_args!(" SS: {input:#x} is at {output:#x}, 2^{log2} bytes, {rights}"));
                return Ok(Translation { output, log2, leaf_log2: log2, permissions });
            }
            base = output;
        }
        Err(fault(FaultReason::PTE_RESERVED, FaultReason::SM_SS_RESERVED))
    }
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
