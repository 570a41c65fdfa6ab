//! The register frame: what a write changes by itself, and when it is ignored.

use super::identity::Identity;
use super::ring::Ring;
use crate::spec::registers::{Control, DeviceTableBase, FRAME_BYTES, RingBase, RingPointer, Status, offset};

/// Registers below this offset, and as many bytes from [`offset::COMMAND_HEAD`] on: what the model keeps.
const WINDOW: u64 = 0x200;
/// Bits of CONTROL that stick whatever the features: all but GTEn, GCR3TRPMode and those of the hardware vIOMMU.
const CONTROL_BITS: u64 = 0xe80c_3800_3e02_ffff;
/// Bits of the device table base register.
const DEVICE_TABLE_BITS: u64 = 0x000f_ffff_ffff_f1ff;
/// Bits of a ring's base register.
const RING_BASE_BITS: u64 = 0x0f0f_ffff_ffff_f000;
/// Bits of a ring's pointer.
const POINTER_BITS: u64 = 0x7_fff0;

/// The registers, and why rings stand still that are enabled.
pub(crate) struct Registers {
    low: [u64; (WINDOW / 8) as usize],
    rings: [u64; (WINDOW / 8) as usize],
    control_bits: u64,
    /// An error stopped the command buffer.
    commands_stopped: bool,
    /// An overflow stopped the event log.
    events_stopped: bool,
}

impl Registers {
    /// Power-on values: all off.
    pub(crate) fn new(identity: &Identity) -> Self {
        let features = Control::new()
            .with_gt_en(identity.efr.gt_sup())
            .with_gcr3_trp_mode(identity.efr.gt_sup() && identity.efr2.gcr3_trp_mode())
            .with_vcmd_en(identity.efr.viommu_sup())
            .with_viommu_en(identity.efr.viommu_sup())
            .with_gst_buffer_trp_mode(identity.efr.viommu_sup());
        let mut low = [0; (WINDOW / 8) as usize];
        low[(offset::EFR / 8) as usize] = identity.efr.into();
        low[(offset::EFR2 / 8) as usize] = identity.efr2.into();
        Self {
            low,
            rings: [0; (WINDOW / 8) as usize],
            control_bits: CONTROL_BITS | features.into_bits(),
            commands_stopped: false,
            events_stopped: false,
        }
    }

    /// The 64 bits that hold `offset`, a multiple of 8.
    fn slot(&mut self, offset: u64) -> Option<&mut u64> {
        match offset.checked_sub(offset::COMMAND_HEAD) {
            Some(above) => self.rings.get_mut((above / 8) as usize),
            None => self.low.get_mut((offset / 8) as usize),
        }
    }

    fn get(&self, offset: u64) -> u64 {
        let found = match offset.checked_sub(offset::COMMAND_HEAD) {
            Some(above) => self.rings.get((above / 8) as usize),
            None => self.low.get((offset / 8) as usize),
        };
        found.copied().unwrap_or(0)
    }

    fn set(&mut self, offset: u64, value: u64) {
        if let Some(slot) = self.slot(offset) {
            *slot = value;
        }
    }

    /// Software reads. What is not there, or not so wide, is 0.
    pub(crate) fn read(&self, offset: u64, size: u32) -> u64 {
        if !accessible(offset, size) {
            return 0;
        }
        let whole = match offset & !7 {
            offset::STATUS => self.status().into(),
            aligned => self.get(aligned),
        };
        if size == 8 { whole } else { whole >> (8 * (offset & 4)) & 0xffff_ffff }
    }

    /// Software writes 4 or 8 bytes.
    pub(crate) fn write(&mut self, offset: u64, size: u32, value: u64) {
        if !accessible(offset, size) {
            return;
        }
        let (aligned, shift) = (offset & !7, 8 * (offset & 4));
        let (value, mask) = if size == 8 { (value, u64::MAX) } else { (value << shift, 0xffff_ffff << shift) };
        if aligned == offset::STATUS {
            self.set(aligned, self.get(aligned) & !(value & Status::WRITE_1_TO_CLEAR));
            return;
        }
        let bits = self.writable(aligned) & mask;
        self.set(aligned, self.get(aligned) & !bits | value & bits);
        match aligned {
            // A ring that moves starts empty.
            offset::COMMAND_BASE => self.restart(offset::COMMAND_HEAD, offset::COMMAND_TAIL),
            offset::EVENT_BASE => self.restart(offset::EVENT_HEAD, offset::EVENT_TAIL),
            offset::PPR_BASE => self.restart(offset::PPR_HEAD, offset::PPR_TAIL),
            // What an error stopped runs again after it was disabled.
            offset::CONTROL => {
                self.commands_stopped &= self.commands_enabled();
                self.events_stopped &= self.events_enabled();
            }
            _ => {}
        }
    }

    fn restart(&mut self, head: u64, tail: u64) {
        self.set(head, 0);
        self.set(tail, 0);
    }

    /// The bits that software may write. What the IOMMU moves itself it may only set while that ring stands still.
    fn writable(&self, aligned: u64) -> u64 {
        match aligned {
            offset::DEVICE_TABLE_BASE => DEVICE_TABLE_BITS,
            offset::COMMAND_BASE | offset::EVENT_BASE | offset::PPR_BASE | offset::GA_LOG_BASE => RING_BASE_BITS,
            offset::CONTROL => self.control_bits,
            offset::EFR | offset::EFR2 => 0,
            offset::COMMAND_HEAD if self.commands_run() => 0,
            offset::EVENT_TAIL if self.events_run() => 0,
            offset::COMMAND_HEAD
            | offset::COMMAND_TAIL
            | offset::EVENT_HEAD
            | offset::EVENT_TAIL
            | offset::PPR_HEAD
            | offset::PPR_TAIL
            | offset::GA_LOG_HEAD
            | offset::GA_LOG_TAIL_INDEX => POINTER_BITS,
            // No registers; their bytes are taken by what is beside them.
            offset if offset >= offset::COMMAND_HEAD => 0,
            offset::EXCLUSION_BASE | offset::EXCLUSION_LIMIT | offset::GA_LOG_TAIL => u64::MAX,
            // MSI address and data: 32-bit registers from 0x15c to 0x167.
            0x158 => 0xffff_ffff_0000_0000,
            0x160 | offset::X2APIC_EVENT | offset::X2APIC_PPR | offset::X2APIC_GA_LOG => u64::MAX,
            _ => 0,
        }
    }

    pub(crate) fn control(&self) -> Control {
        self.get(offset::CONTROL).into()
    }
    pub(crate) fn device_table(&self) -> DeviceTableBase {
        self.get(offset::DEVICE_TABLE_BASE).into()
    }

    fn commands_enabled(&self) -> bool {
        self.control().iommu_en() && self.control().cmd_buf_en()
    }
    fn events_enabled(&self) -> bool {
        self.control().iommu_en() && self.control().event_log_en()
    }
    /// Commands are executed.
    pub(crate) fn commands_run(&self) -> bool {
        self.commands_enabled() && !self.commands_stopped
    }
    /// The event log takes entries.
    pub(crate) fn events_run(&self) -> bool {
        self.events_enabled() && !self.events_stopped
    }
    /// An error stops the command buffer until it is disabled and enabled.
    pub(crate) fn stop_commands(&mut self) {
        self.commands_stopped = true;
    }
    /// The event log is full: it stops until it is disabled and enabled.
    pub(crate) fn stop_events(&mut self) {
        self.events_stopped = true;
        self.raise(Status::new().with_event_overflow(true));
    }

    fn status(&self) -> Status {
        Status::from(self.get(offset::STATUS))
            .with_cmd_buf_run(self.commands_run())
            .with_event_log_run(self.events_run())
            .with_ppr_run(self.control().iommu_en() && self.control().ppr_log_en())
    }
    /// Sets bits of STATUS; whether any was clear.
    pub(crate) fn raise(&mut self, bits: Status) -> bool {
        let (old, bits) = (self.get(offset::STATUS), u64::from(bits));
        self.set(offset::STATUS, old | bits);
        old & bits != bits
    }

    /// Command buffer, its head and tail.
    pub(crate) fn commands(&self) -> (Ring, u16, u16) {
        self.ring(offset::COMMAND_BASE, offset::COMMAND_HEAD, offset::COMMAND_TAIL)
    }
    /// Event log, its head and tail.
    pub(crate) fn events(&self) -> (Ring, u16, u16) {
        self.ring(offset::EVENT_BASE, offset::EVENT_HEAD, offset::EVENT_TAIL)
    }
    fn ring(&self, base: u64, head: u64, tail: u64) -> (Ring, u16, u16) {
        let ring = Ring::new(RingBase::from(self.get(base)));
        (ring, ring.index(self.get(head).into()), ring.index(self.get(tail).into()))
    }
    /// The IOMMU consumed commands up to `index`.
    pub(crate) fn set_command_head(&mut self, index: u16) {
        self.set(offset::COMMAND_HEAD, RingPointer::new().with_index(index).into());
    }
    /// The IOMMU wrote events up to `index`.
    pub(crate) fn set_event_tail(&mut self, index: u16) {
        self.set(offset::EVENT_TAIL, RingPointer::new().with_index(index).into());
    }
}

/// Whether an access is one the frame answers: 4 or 8 bytes, aligned, inside.
fn accessible(offset: u64, size: u32) -> bool {
    matches!(size, 4 | 8) && offset.is_multiple_of(u64::from(size)) && offset < FRAME_BYTES
}
