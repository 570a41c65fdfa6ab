//! Page table walks: the host's table (v1), GCR3 and guest tables (v2), the latter through the former when nested.

use super::fault::Fault;
use crate::spec::events::flags;
use crate::spec::pte::{self, Gcr3Entry, GuestPte, HostPte};
use std::fmt::Arguments;
use viommu_cache::{Translation, low_bits};
use viommu_plugin::ModelHost;

/// Permission bits of an access or a translation.
pub(crate) const READ: u8 = 1;
pub(crate) const WRITE: u8 = 2;

/// The host's table of a device table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) table: u64,
    /// Mode: levels, 0 to 6; 0 is identity.
    pub(crate) levels: u8,
}

/// The guest's tables of a device table entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guest {
    pub(crate) gcr3: u64,
    /// GLX: levels of the GCR3 table less one, 0 to 2.
    pub(crate) glx: u8,
    /// Levels of the page tables: 4 or 5.
    pub(crate) levels: u8,
    /// GCR3TRPMode: GCR3 tables are at guest physical addresses.
    pub(crate) translated: bool,
}

/// Walks tables in memory, and tells each step. The walk that serves a device tells nobody.
pub(crate) struct Walker<'a, N> {
    pub(crate) memory: &'a dyn ModelHost,
    pub(crate) tell: N,
}

impl<N: FnMut(Arguments<'_>)> Walker<'_, N> {
    fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory.read(address, &mut bytes).ok().map(|()| u64::from_le_bytes(bytes))
    }

    /// Translates `input` in the guest's table of `pasid`, or without one in the host's table alone, for an access
    /// that needs the permissions `access` (0: only asks).
    pub(crate) fn translate(
        &mut self,
        host: &Host,
        guest: Option<(&Guest, u32)>,
        input: u64,
        access: u8,
    ) -> Result<Translation, Fault> {
        let Some((guest, pasid)) = guest else { return self.host(host, input, access) };
        let first = self.guest(host, guest, pasid, input, access)?;
        let gpa = first.apply(input);
        let second = self.host(host, gpa, access)?;
        let log2 = first.log2.min(second.log2);
        Ok(Translation {
            output: second.apply(gpa) & !low_bits(log2),
            log2,
            leaf_log2: first.log2,
            permissions: first.permissions & second.permissions,
        })
    }

    /// A word of a structure that the guest owns, at a guest physical address.
    fn guest_word(&mut self, host: &Host, gpa: u64) -> Result<u64, Fault> {
        let found = self.host(host, gpa, READ)?;
        let address = found.apply(gpa);
        self.word(address).ok_or(Fault::table_fetch(1, address))
    }

    /// The root of `pasid`'s page table, a guest physical address.
    fn guest_root(&mut self, host: &Host, guest: &Guest, pasid: u32) -> Result<u64, Fault> {
        if u64::from(pasid) >> (pte::LEVEL_BITS * (guest.glx + 1)) != 0 {
            (self.tell)(format_args!("PASID {pasid:#x} is beyond the GCR3 table (GLX {})", guest.glx));
            return Err(Fault::page(1, 0, 0));
        }
        let mut table = guest.gcr3;
        for level in (0..=guest.glx).rev() {
            let index = u64::from(pasid) >> (pte::LEVEL_BITS * level) & 0x1ff;
            let address = table + pte::PTE_BYTES * index;
            let word = match guest.translated {
                true => self.guest_word(host, address)?,
                false => self.word(address).ok_or(Fault::table_fetch(1, address))?,
            };
            (self.tell)(format_args!("GCR3 L{level} [{address:#x}] = {word:#x}"));
            let entry = Gcr3Entry::from(word);
            if !entry.v() {
                (self.tell)(format_args!("PASID {pasid:#x} has no guest table"));
                return Err(Fault::page(1, 0, 0));
            }
            table = entry.pointer();
        }
        Ok(table)
    }

    fn guest(&mut self, host: &Host, guest: &Guest, pasid: u32, input: u64, access: u8) -> Result<Translation, Fault> {
        let mut table = self.guest_root(host, guest, pasid)?;
        let unused = 64 - pte::PAGE_LOG2 - pte::LEVEL_BITS * guest.levels;
        if (input as i64) << unused >> unused != input as i64 {
            (self.tell)(format_args!("guest: {input:#x} is not canonical for {} levels", guest.levels));
            return Err(Fault::page(1, 0, 0));
        }
        let mut permissions = READ | WRITE;
        for level in (1..=guest.levels).rev() {
            let log2 = pte::span_log2(level);
            let address = table + pte::PTE_BYTES * (input >> log2 & 0x1ff);
            let word = self.guest_word(host, address)?;
            (self.tell)(format_args!("guest L{level} [{address:#x}] = {word:#x}"));
            let entry = GuestPte::from(word);
            if !entry.p() {
                return Err(Fault::page(1, 0, 0));
            }
            // Requests are a user's: this model's devices ask for no privilege.
            if !entry.us() {
                (self.tell)(format_args!("guest: US is 0, the request is a user's"));
                return Err(Fault::page(1, flags::PR | flags::PE, 0));
            }
            if !entry.rw() {
                permissions &= !WRITE;
            }
            if level == 1 || entry.ps() {
                if level > 3 {
                    (self.tell)(format_args!("guest: no pages of that size"));
                    return Err(Fault::page(1, flags::PR | flags::RZ, 0));
                }
                if access & !permissions != 0 {
                    (self.tell)(format_args!("guest: needs {}, has {}", rights(access), rights(permissions)));
                    return Err(Fault::page(1, flags::PR | flags::PE, 0));
                }
                let output = entry.pointer() & !low_bits(log2);
                (self.tell)(format_args!("guest: {output:#x}, 2^{log2} bytes, {}", rights(permissions)));
                return Ok(Translation { output, log2, leaf_log2: log2, permissions });
            }
            table = entry.pointer();
        }
        Err(Fault::page(1, 0, 0))
    }

    /// A host address of at most `levels` entries; each leads to a lower level, so it ends.
    fn host(&mut self, host: &Host, gpa: u64, access: u8) -> Result<Translation, Fault> {
        if host.levels == 0 {
            return Ok(Translation { output: 0, log2: 64, leaf_log2: 64, permissions: READ | WRITE });
        }
        // Fault::page of this stage names the address it had to translate.
        let fault = |flags| Fault::page(2, flags, gpa);
        let top = pte::PAGE_LOG2 + pte::LEVEL_BITS * host.levels;
        if gpa & !low_bits(top) != 0 {
            (self.tell)(format_args!(" host: {gpa:#x} is beyond {} levels", host.levels));
            return Err(fault(0));
        }
        let (mut table, mut level, mut permissions) = (host.table, host.levels, READ | WRITE);
        loop {
            let span = pte::span_log2(level);
            let address = table + pte::PTE_BYTES * (gpa >> span & 0x1ff);
            let word = self.word(address).ok_or(Fault::table_fetch(2, address))?;
            (self.tell)(format_args!(" host L{level} [{address:#x}] = {word:#x}"));
            let entry = HostPte::from(word);
            if !entry.pr() {
                return Err(fault(0));
            }
            permissions &= u8::from(entry.ir()) | u8::from(entry.iw()) << 1;
            let (output, log2) = match entry.next_level() {
                HostPte::PAGE => (entry.pointer() & !low_bits(span), span),
                HostPte::SIZED_PAGE => entry.sized_page(),
                next if next < level => {
                    // Levels that are left out: their address bits have to be zero.
                    let skipped = low_bits(span) & !low_bits(pte::span_log2(next + 1));
                    if gpa & skipped != 0 {
                        (self.tell)(format_args!(" host: {gpa:#x} has bits in the levels left out"));
                        return Err(fault(0));
                    }
                    (table, level) = (entry.pointer(), next);
                    continue;
                }
                next => {
                    (self.tell)(format_args!(" host: Next Level {next} at level {level}"));
                    return Err(fault(flags::PR | flags::RZ));
                }
            };
            if log2 < span || log2 >= span + pte::LEVEL_BITS {
                (self.tell)(format_args!(" host: no pages of 2^{log2} bytes at level {level}"));
                return Err(fault(flags::PR | flags::RZ));
            }
            if access & !permissions != 0 {
                (self.tell)(format_args!(" host: needs {}, has {}", rights(access), rights(permissions)));
                return Err(fault(flags::PR | flags::PE));
            }
            (self.tell)(format_args!(" host: {gpa:#x} is in {output:#x}, 2^{log2} bytes, {}", rights(permissions)));
            return Ok(Translation { output, log2, leaf_log2: log2, permissions });
        }
    }
}

/// Permissions in letters.
pub(crate) fn rights(permissions: u8) -> &'static str {
    ["--", "r-", "-w", "rw"][usize::from(permissions & 3)]
}
