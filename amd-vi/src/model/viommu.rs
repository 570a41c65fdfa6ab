//! The hardware vIOMMU: guests' own pages and rings. A model of out-of-tree drivers (see [`crate::spec::viommu`]), never
//! compared with silicon.
//!
//! ```text
//!   VF page: tail ─► step: fetch by GPA (translate DeviceID's entry) ─► maps (IOMMU's own entry) ─► TLB, ATC, entries
//!   DMA of a device with vImuEn that the guest's tables refuse ─► event log of its guest, with the guest's DeviceID
//! ```
//!
//! Chosen here: everything in "not known" of docs/amd-viommu.md.

mod commands;
mod events;
mod maps;

use super::Iommu;
use super::ring::Ring;
use super::tlb::NO_PASID;
use super::walk::Walker;
use super::{Lookup, Route};
use crate::spec::registers::{Control, RingBase, RingPointer, Status};
use crate::spec::viommu::{
    GUESTS, GuestCommand, GuestEvent, GuestMisc, PAGE, VF, VF_END, VFCTL, VFCTL_END, VFCTL_STRIDE, control, page,
};
use maps::Reachable;
use std::collections::BTreeSet;

/// Bits of VFCtl's command control.
const COMMAND_BITS: u64 = 0x000f_ffff_ffff_f30f;
/// Bits of VFCtl's event control. The second log is not modelled.
const EVENT_BITS: u64 = 0x000f_ffff_ffff_f30f;

/// One guest's registers.
#[derive(Debug, Clone, Default)]
struct Guest {
    misc: GuestMisc,
    command: GuestCommand,
    event: GuestEvent,
    head: RingPointer,
    tail: RingPointer,
    event_head: RingPointer,
    event_tail: RingPointer,
    /// Interrupt and overflow bits.
    status: Status,
    /// An error stopped the command buffer.
    commands_stopped: bool,
    /// An overflow stopped the event log.
    events_stopped: bool,
    reachable: Reachable,
}

impl Guest {
    /// The ring of a base and a length code, if that is not reserved.
    fn ring(base: u64, length: u8) -> Option<Ring> {
        let legal = length >= RingBase::LENGTH_LEAST;
        legal.then(|| Ring::new(RingBase::new().with_base(base).with_length(length)))
    }

    /// The command buffer, if commands are executed.
    fn commands(&self, iommu: Control) -> Option<Ring> {
        let on = iommu.iommu_en() && iommu.vcmd_en() && iommu.gst_buffer_trp_mode() && self.misc.translate() != 0;
        let runs = on && self.command.enable() && !self.commands_stopped;
        Self::ring(self.command.base(), self.command.length()).filter(|_| runs)
    }

    /// The event log, if it takes entries.
    fn events(&self, iommu: Control) -> Option<Ring> {
        let on = iommu.iommu_en() && iommu.gst_buffer_trp_mode() && self.misc.translate() != 0;
        let runs = on && self.event.enable() && !self.events_stopped;
        Self::ring(self.event.base(), self.event.length()).filter(|_| runs)
    }

    fn read_control(&self, at: u64) -> u64 {
        match at {
            control::MISC => self.misc.into(),
            control::COMMAND => self.command.into(),
            control::EVENT => self.event.into(),
            _ => 0,
        }
    }

    fn write_control(&mut self, at: u64, value: u64) {
        match at {
            control::MISC => self.misc = GuestMisc::new().with_translate(GuestMisc::from(value).translate()),
            control::COMMAND => {
                let new = GuestCommand::from(value & COMMAND_BITS);
                // A buffer that moves starts empty.
                if (new.base(), new.length()) != (self.command.base(), self.command.length()) {
                    (self.head, self.tail) = (RingPointer::new(), RingPointer::new());
                }
                self.command = new;
                self.commands_stopped &= new.enable();
            }
            control::EVENT => {
                let new = GuestEvent::from(value & EVENT_BITS);
                if (new.base(), new.length()) != (self.event.base(), self.event.length()) {
                    (self.event_head, self.event_tail) = (RingPointer::new(), RingPointer::new());
                }
                self.event = new;
                self.events_stopped &= new.enable();
            }
            _ => {}
        }
    }

    fn read_page(&self, at: u64, iommu: Control) -> u64 {
        match at {
            page::COMMAND_HEAD => self.head.into(),
            page::COMMAND_TAIL => self.tail.into(),
            page::EVENT_HEAD => self.event_head.into(),
            page::EVENT_TAIL => self.event_tail.into(),
            page::STATUS => {
                let status = self.status.with_cmd_buf_run(self.commands(iommu).is_some());
                status.with_event_log_run(self.events(iommu).is_some()).into()
            }
            _ => 0,
        }
    }

    fn write_page(&mut self, at: u64, value: u64, iommu: Control) {
        let pointer = || RingPointer::new().with_index(RingPointer::from(value).index());
        match at {
            page::COMMAND_HEAD if self.commands(iommu).is_none() => self.head = pointer(),
            page::COMMAND_TAIL => self.tail = pointer(),
            page::EVENT_HEAD => self.event_head = pointer(),
            page::EVENT_TAIL if self.events(iommu).is_none() => self.event_tail = pointer(),
            page::STATUS => self.status = Status::from(u64::from(self.status) & !(value & Status::WRITE_1_TO_CLEAR)),
            _ => {}
        }
    }
}

/// All guests' registers; none if the IOMMU has no vIOMMU.
#[derive(Debug)]
pub(super) struct Guests {
    guests: Vec<Guest>,
    /// Guests whose command buffer may hold commands.
    pending: BTreeSet<u16>,
}

/// What an access to the frame behind the IOMMU's own registers is to.
enum Target {
    Page(u16, u64),
    Control(u16, u64),
}

impl Target {
    fn of(offset: u64) -> Option<Self> {
        match offset {
            VF..VF_END => Some(Self::Page(((offset - VF) / PAGE) as u16, (offset - VF) % PAGE)),
            VFCTL..VFCTL_END => {
                Some(Self::Control(((offset - VFCTL) / VFCTL_STRIDE) as u16, (offset - VFCTL) % VFCTL_STRIDE))
            }
            _ => None,
        }
    }
}

impl Guests {
    /// Power-on.
    pub(super) fn new(there_are: bool) -> Self {
        let guests = if there_are { vec![Guest::default(); GUESTS.into()] } else { Vec::new() };
        Self { guests, pending: BTreeSet::new() }
    }

    /// Whether any guest's command buffer may hold commands.
    pub(super) fn have_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// RESET_VMMIO; whether there is such a guest.
    pub(super) fn reset(&mut self, id: u16, all: bool, commands: bool) -> bool {
        let Some(guest) = self.guests.get_mut(usize::from(id)) else { return false };
        match (all, commands) {
            (true, _) => *guest = Guest::default(),
            (_, true) => {
                (guest.head, guest.tail) = (RingPointer::new(), RingPointer::new());
                guest.commands_stopped = false;
            }
            _ => {}
        }
        true
    }
}

impl Iommu {
    /// Whether `offset` is in the frame's part for guests.
    pub(super) fn is_guests(offset: u64) -> bool {
        Target::of(offset).is_some()
    }

    /// A read of 4 or 8 bytes there. All reads as 0 while vIommuEn is 0.
    pub(super) fn read_guests(&self, offset: u64, size: u32) -> u64 {
        let control = self.registers.control();
        let (Some(target), true) = (Target::of(offset & !7), control.viommu_en() && is_access(offset, size)) else {
            return 0;
        };
        let guest = |id: u16| self.guests.guests.get(usize::from(id));
        let whole = match target {
            Target::Page(id, at) => guest(id).map(|guest| guest.read_page(at, control)),
            Target::Control(id, at) => guest(id).map(|guest| guest.read_control(at)),
        };
        let whole = whole.unwrap_or(0);
        if size == 8 { whole } else { whole >> (8 * (offset & 4)) & 0xffff_ffff }
    }

    /// A write there; ignored while vIommuEn is 0. A map strobe is one write of 8 bytes.
    pub(super) fn write_guests(&mut self, offset: u64, size: u32, value: u64) {
        let iommu = self.registers.control();
        let (Some(target), true) = (Target::of(offset & !7), iommu.viommu_en() && is_access(offset, size)) else {
            return;
        };
        let (shift, mask) = if size == 8 { (0, u64::MAX) } else { (8 * (offset & 4), 0xffff_ffff) };
        let merged = |old: u64| old & !(mask << shift) | (value & mask) << shift;
        match target {
            Target::Page(id, at) => {
                let Some(guest) = self.guests.guests.get_mut(usize::from(id)) else { return };
                // What a 1 clears is not written back.
                let old = if at == page::STATUS { 0 } else { guest.read_page(at, iommu) };
                guest.write_page(at, merged(old), iommu);
                self.guests.pending.insert(id);
            }
            Target::Control(id, control::DEVICE_MAP) if size == 8 => self.map_device(id, value.into()),
            Target::Control(id, control::DOMAIN_MAP) if size == 8 => self.map_domain(id, value.into()),
            Target::Control(id, at) => {
                let Some(guest) = self.guests.guests.get_mut(usize::from(id)) else { return };
                guest.write_control(at, merged(guest.read_control(at)));
                self.guests.pending.insert(id);
            }
        }
    }

    /// Where an access of the IOMMU itself goes that it makes as `device`: through that entry's host table, cached as
    /// any DMA's. An entry that is not valid or has no table lets nothing pass here.
    fn reach(&mut self, device: u16, address: u64, access: u8) -> Option<u64> {
        let device = u32::from(device);
        let route = match self.devices.route(device) {
            Some(route) => route,
            None => {
                let lookup = Lookup { identity: &self.identity, registers: &self.registers, memory: &*self.host };
                self.devices.fetch(device, &lookup).ok()?
            }
        };
        let Route::Context(context) = route else { return None };
        if context.host.levels == 0 || access & !context.permissions != 0 {
            return None;
        }
        let hit = self.tlb.find(context.domain, NO_PASID, &context.hint, address);
        if let Some(hit) = hit.filter(|hit| access & !hit.permissions == 0) {
            return Some(hit.apply(address));
        }
        let (domain, host) = (context.domain, context.host);
        let mut walker = Walker { memory: &*self.host, tell: |_: std::fmt::Arguments<'_>| {} };
        let found = walker.translate(&host, None, address, access).ok()?;
        self.tlb.insert(domain, NO_PASID, address, found);
        Some(found.apply(address))
    }
}

fn is_access(offset: u64, size: u32) -> bool {
    matches!(size, 4 | 8) && offset.is_multiple_of(u64::from(size))
}
