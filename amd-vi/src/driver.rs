//! Programs one physical IOMMU: device table, command buffer, event log, host page tables.

mod bring_up;
mod events;
mod hw_viommu;
mod invalidate;
mod shown;

use crate::spec::commands::{COMMAND_WORDS, InvalidateDevice, Opcode};
use crate::spec::dte::{DteWord0, DteWord1, DteWord2};
use crate::spec::registers::{CapabilityHeader, Control, Efr, Efr2, RingPointer, Status, offset};
use crate::spec::viommu::GUEST_LINE;
use crate::tables::{ABORT, DeviceTable, Dte, Geometry, HostTable, Step, physical_dte, plan};
use events::EventLog;
use hw_viommu::HwViommu;
use std::collections::BTreeMap;
use viommu_plugin::{
    Driver, DriverInfo, EntryKey, Hardware, HostEvent, HostInvalidation, HwQueueRequest, KeyKind, QueueFault,
    QueueFaultKind, Refusal, Register, RingGeometry, TranslationMode, VirtualInterface,
};

/// What the physical IOMMU says of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) efr: Efr,
    pub(crate) efr2: Efr2,
    pub(crate) header: CapabilityHeader,
}

impl Identity {
    /// Whether a guest's GCR3 tables can be walked through the host's table.
    fn nests(&self) -> bool {
        self.efr.gt_sup() && self.efr.gio_sup() && self.efr2.gcr3_trp_mode()
    }
}

/// A ring in host memory.
#[derive(Debug, Clone, Copy)]
struct Ring {
    base: u64,
    log2: u8,
}

impl Ring {
    fn next(self, index: u16) -> u16 {
        index.wrapping_add(1) & ((1u32 << self.log2) - 1) as u16
    }
    fn entry(self, index: u16) -> u64 {
        self.base + 16 * u64::from(index)
    }
}

/// Whose tables a device's DMA goes through: what its events say, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attached {
    tables: Tables,
    /// The guest's own number of the domain.
    domain: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tables {
    /// The guest's GCR3 tables, nested in the host's.
    Nested,
    /// The guest's v1 tables, composed with the host's.
    Shadowed,
}

/// The driver of one physical IOMMU.
pub struct AmdDriver {
    hardware: Box<dyn Hardware>,
    identity: Identity,
    control: Control,
    devices: DeviceTable,
    commands: Ring,
    events: EventLog,
    geometry: Geometry,
    tables: BTreeMap<u32, HostTable>,
    next_table: u32,
    /// By DeviceID: devices that go through tables of a guest.
    attached: BTreeMap<u32, Attached>,
    /// `None`: guests have no parts of their own.
    own: Option<HwViommu>,
}

impl AmdDriver {
    /// Takes over the IOMMU: tables and rings, then enabled with every device's DMA stopped.
    ///
    /// The first commands go onto the ring by the driver's own hand, as [`Hardware::issue`] needs the ring's geometry,
    /// which [`Driver::info`] gives only later. Whoever drives the ring from then on starts at the index that the head
    /// register shows.
    ///
    /// # Errors
    /// EOPNOTSUPP naming the missing feature, ENOMEM, ETIMEDOUT if it does not answer, EIO if it refuses a command.
    pub fn new(hardware: Box<dyn Hardware>) -> Result<Self, Refusal> {
        bring_up::take_over(hardware)
    }

    fn ats(&self) -> bool {
        self.identity.header.iotlb_sup()
    }

    /// DeviceIDs that devices can have.
    fn streams(&self) -> u32 {
        hw_viommu::devices(self.own.as_ref(), self.devices.devices())
    }

    fn is_device(&self, stream: u32) -> Result<(), Refusal> {
        if stream < self.streams() {
            return Ok(());
        }
        Err(Refusal::new(Refusal::EINVAL, format!("DeviceID {stream:#x} is no device's")))
    }

    fn status(&self) -> Status {
        self.hardware.mmio_read(offset::STATUS, 8).into()
    }

    fn table(&self, handle: u32) -> Result<&HostTable, Refusal> {
        self.tables.get(&handle).ok_or_else(|| no_table(handle))
    }

    /// Brings a device's DTE to `target`, each step seen by the hardware before the next.
    fn write_dte(&self, device: u32, target: &Dte) -> Result<(), Refusal> {
        let hardware = &*self.hardware;
        let steps = plan(&self.devices.read(hardware, device)?, target);
        let changed = InvalidateDevice::new()
            .with_opcode(Opcode::INVALIDATE_DEVTAB_ENTRY.0)
            .with_device_id(device as u16)
            .words();
        for step in &steps {
            match *step {
                Step::Write { word, value } => self.devices.write(hardware, device, word, value)?,
                Step::Sync => hardware.issue(&changed)?,
            }
        }
        // What the device cached under another entry must not live on under this one. Without I nothing cached counts:
        // the IOMMU looks at the entry of each translated request.
        if !steps.is_empty() && DteWord1::from_bits(target[1]).i() {
            hardware.issue(&invalidate::device_cache(device).words())?;
        }
        Ok(())
    }

    /// What of a guest's entry the hardware lacks, checked as late as Linux checks it.
    fn check(&self, key: &EntryKey) -> Result<(), Refusal> {
        let (w0, w2) = (DteWord0::from_bits(key.words[0]), DteWord2::from_bits(key.words[2]));
        if key.kind != KeyKind::TRANSLATE || !w0.gv() {
            return Ok(());
        }
        let efr = self.identity.efr;
        let (errno, text) = if !self.identity.nests() {
            (Refusal::EOPNOTSUPP, "GV: this IOMMU cannot nest (EFR.GTSup, EFR.GIoSup, EFR2.GCR3TRPMode)")
        } else if w0.glx() == DteWord0::GLX_RESERVED || w0.glx() > efr.glx_sup() {
            (Refusal::EINVAL, "GLX: more levels than EFR.GLXSup")
        } else if w2.guest_paging_mode() > 1 {
            (Refusal::EINVAL, "GuestPagingMode is reserved")
        } else if w2.guest_paging_mode() > efr.gats() {
            (Refusal::EOPNOTSUPP, "GuestPagingMode: five levels, EFR.GATS offers four")
        } else {
            return Ok(());
        };
        Err(Refusal::new(errno, format!("guest device table entry: {text}")))
    }
}

fn no_table(handle: u32) -> Refusal {
    Refusal::new(Refusal::ENOENT, format!("host table {handle}: no such table"))
}

/// A tag as it stands in DomainID. 0 is left to devices that nobody owns.
fn domain_id(tag: u32) -> Result<u16, Refusal> {
    let id = u16::try_from(tag).ok().filter(|&id| id != 0);
    id.ok_or_else(|| Refusal::new(Refusal::EINVAL, format!("DomainID {tag} is out of range")))
}

impl Driver for AmdDriver {
    fn info(&self) -> DriverInfo {
        let nested = if self.identity.nests() { TranslationMode::NESTED.bit() } else { 0 };
        DriverInfo {
            ring: RingGeometry {
                base: self.commands.base,
                log2_commands: self.commands.log2.into(),
                command_words: COMMAND_WORDS as u32,
                producer: offset::COMMAND_TAIL,
                consumer: offset::COMMAND_HEAD,
                index_shift: 4,
                wrap_bit: 0,
                error_mask: 0,
                error_register: offset::STATUS as u32,
                error_bits: 0,
                running_bits: Status::new().with_cmd_buf_run(true).into_bits() as u32,
            },
            first_tag: 1,
            // The highest is the private address space's.
            last_tag: u32::from(u16::MAX) - u32::from(self.own.is_some()),
            streams: self.streams(),
            page_log2: 12,
            ipa_bits: self.geometry.input_bits(),
            ats: self.ats().into(),
            modes: nested | TranslationMode::SHADOW.bit(),
        }
    }

    fn guest_registers(&self, mode: TranslationMode) -> Vec<Register> {
        self.identity.shown(mode)
    }

    fn stage2_create(&mut self, tag: u32) -> Result<u32, Refusal> {
        let table = HostTable::new(&*self.hardware, self.geometry, domain_id(tag)?)?;
        let handle = self.next_table;
        self.next_table += 1;
        self.tables.insert(handle, table);
        Ok(handle)
    }

    fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), Refusal> {
        let table = self.tables.get_mut(&stage2).ok_or_else(|| no_table(stage2))?;
        table.map(&*self.hardware, ipa, pa, len, access)
    }

    fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), Refusal> {
        let table = self.tables.get_mut(&stage2).ok_or_else(|| no_table(stage2))?;
        table.unmap(&*self.hardware, ipa, len)
    }

    fn stage2_destroy(&mut self, stage2: u32) {
        if let Some(table) = self.tables.remove(&stage2) {
            table.destroy(&*self.hardware);
        }
    }

    fn attach(&mut self, stream: u32, stage2: u32, tag: u32, key: &EntryKey) -> Result<(), Refusal> {
        self.check(key)?;
        self.is_device(stream)?;
        if key.kind == KeyKind::TRANSLATE && !self.is_named_for(stream, stage2) {
            let text = format!("DeviceID {stream:#x} has no number of the guest's, whose commands are to be about it");
            return Err(Refusal::new(Refusal::EINVAL, text));
        }
        let mut target = physical_dte(key, self.table(stage2)?, domain_id(tag)?, self.ats());
        target[3] = self.own.as_ref().map_or(0, |own| own.word3(stream));
        self.write_dte(stream, &target)?;
        let gv = DteWord0::from_bits(key.words[0]).gv();
        let tables = if gv { Tables::Nested } else { Tables::Shadowed };
        if key.kind == KeyKind::TRANSLATE {
            let domain = DteWord1::from_bits(key.words[1]).domain_id();
            self.attached.insert(stream, Attached { tables, domain });
        } else {
            self.attached.remove(&stream);
        }
        Ok(())
    }

    fn detach(&mut self, stream: u32) -> Result<(), Refusal> {
        self.is_device(stream)?;
        self.write_dte(stream, &ABORT)?;
        self.attached.remove(&stream);
        Ok(())
    }

    fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> usize {
        invalidate::encode(what, self.ats(), out)
    }

    /// The log says why the buffer stopped. If it was full and does not, the command at the head counts as illegal: the
    /// answer after which nothing is executed twice.
    fn queue_fault(&mut self) -> Option<QueueFault> {
        if !self.control.cmd_buf_en() || self.status().cmd_buf_run() {
            return None;
        }
        self.events.drain(&*self.hardware, self.control, &self.attached);
        let head = RingPointer::from_bits(self.hardware.mmio_read(offset::COMMAND_HEAD, 8));
        let kind = self.events.stopped_by().unwrap_or(QueueFaultKind::ILLEGAL);
        Some(QueueFault { kind, index: head.index().into() })
    }

    /// The buffer runs again once it was disabled and enabled; its head stays.
    fn queue_resume(&mut self) {
        self.events.forget_stop();
        for control in [self.control.with_cmd_buf_en(false), self.control] {
            self.hardware.mmio_write(offset::CONTROL, 8, control.into_bits());
        }
    }

    fn event(&mut self) -> Option<HostEvent> {
        if let Some(event) = self.own.as_mut().and_then(HwViommu::next_event) {
            return Some(event);
        }
        self.events.next(&*self.hardware, self.control, &self.attached)
    }

    fn interrupt(&mut self, line: u32) {
        if line == GUEST_LINE {
            self.guests_interrupt();
        }
    }

    fn interface_create(&mut self, stage2: u32) -> Result<VirtualInterface, Refusal> {
        self.create_interface(stage2)
    }

    fn interface_destroy(&mut self, interface: u32) -> Result<(), Refusal> {
        self.destroy_interface(interface)
    }

    fn interface_stream_set(&mut self, interface: u32, virt_id: u32, stream: u32) -> Result<(), Refusal> {
        self.name_stream(interface, virt_id, stream)
    }

    fn interface_stream_clear(&mut self, interface: u32, virt_id: u32) -> Result<(), Refusal> {
        self.unname_stream(interface, virt_id)
    }

    fn interface_domain_set(&mut self, interface: u32, domain: u32, tag: u32) -> Result<(), Refusal> {
        self.set_domain(interface, domain, tag)
    }

    fn interface_domain_clear(&mut self, interface: u32, domain: u32) -> Result<(), Refusal> {
        self.clear_domain(interface, domain)
    }

    /// The IOMMU translates a ring's address itself, so where it is does not matter.
    fn hw_queue_create(&mut self, interface: u32, queue: &HwQueueRequest, _pa: u64) -> Result<u32, Refusal> {
        self.create_queue(interface, queue)
    }

    fn hw_queue_destroy(&mut self, queue: u32) -> Result<(), Refusal> {
        self.destroy_queue(queue)
    }
}
