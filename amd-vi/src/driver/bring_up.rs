//! Taking over an IOMMU.

use super::events::EventLog;
use super::{AmdDriver, Identity, Ring, hw_viommu};
use crate::spec::commands::{COMMAND_BYTES, CompletionWait, InvalidateIommuAll, Opcode};
use crate::spec::events::EVENT_BYTES;
use crate::spec::registers::{CAPABILITY_HEADER, CapabilityHeader, Control, RingBase, RingPointer, Status, offset};
use crate::tables::{DeviceTable, Geometry, broken};
use std::collections::BTreeMap;
use viommu_plugin::{Hardware, Refusal};

/// log2 of the command buffer: 8192 commands.
const COMMANDS_LOG2: u8 = 13;
/// log2 of the event log: 4096 records.
const EVENTS_LOG2: u8 = 12;
/// CONTROL.InvTimeOut: a device has a second to answer INVALIDATE_IOTLB_PAGES.
const INV_TIMEOUT_1S: u8 = 4;
/// Register reads before "does not answer": about a second.
const POLLS: u32 = 1 << 20;

impl Identity {
    fn read(hardware: &dyn Hardware) -> Self {
        Self {
            efr: hardware.mmio_read(offset::EFR, 8).into(),
            efr2: hardware.mmio_read(offset::EFR2, 8).into(),
            // Not in the register frame: the machine answers from the IOMMU's PCI function.
            header: CapabilityHeader::from_bits(hardware.mmio_read(CAPABILITY_HEADER, 4) as u32),
        }
    }

    /// What a host needs and the hardware lacks.
    fn missing(&self) -> Option<&'static str> {
        if !self.efr.ia_sup() {
            return Some("EFR.IASup = 0: caches cannot be emptied as a whole");
        }
        if self.efr.hats() == 3 {
            return Some("EFR.HATS = 3 is reserved");
        }
        None
    }
}

pub(super) fn take_over(hardware: Box<dyn Hardware>) -> Result<AmdDriver, Refusal> {
    let mut identity = Identity::read(&*hardware);
    if let Some(missing) = identity.missing() {
        return Err(Refusal::new(Refusal::EOPNOTSUPP, format!("AMD-Vi cannot host a vIOMMU: {missing}")));
    }
    let devices = DeviceTable::new(&*hardware)?;
    let commands = allocate(&*hardware, COMMANDS_LOG2, COMMAND_BYTES)?;
    let events = allocate(&*hardware, EVENTS_LOG2, EVENT_BYTES)?;

    let setup = Setup { hardware: &*hardware, commands };
    let mut control = setup.disable()?;
    hardware.mmio_write(offset::DEVICE_TABLE_BASE, 8, devices.register().into_bits());
    for (ring, base, head, tail) in [
        (commands, offset::COMMAND_BASE, offset::COMMAND_HEAD, offset::COMMAND_TAIL),
        (events, offset::EVENT_BASE, offset::EVENT_HEAD, offset::EVENT_TAIL),
    ] {
        let register = RingBase::new().with_base(ring.base >> 12).with_length(ring.log2);
        hardware.mmio_write(base, 8, register.into_bits());
        hardware.mmio_write(head, 8, 0);
        hardware.mmio_write(tail, 8, 0);
    }
    control = control.with_coherent(true).with_inv_timeout(INV_TIMEOUT_1S);
    control = control.with_event_log_en(true).with_event_int_en(true).with_cmd_buf_en(true);
    control = control.with_gt_en(identity.nests()).with_gcr3_trp_mode(identity.nests()).with_iommu_en(true);
    setup.enable(control)?;
    let taken = Control::from_bits(hardware.mmio_read(offset::CONTROL, 8));
    if !taken.gt_en() || !taken.gcr3_trp_mode() {
        // Offered and not kept: such hardware does not nest.
        identity.efr2.set_gcr3_trp_mode(false);
    }
    setup.invalidate_all()?;
    let geometry = Geometry::new(identity.efr);
    let mut own = None;
    if identity.efr.viommu_sup() && identity.nests() {
        (own, control) = hw_viommu::bring_up(&*hardware, &devices, geometry, control, || setup.invalidate_all())?;
    }
    // Offered and not kept, or of no use.
    identity.efr.set_viommu_sup(own.is_some());
    Ok(AmdDriver {
        hardware,
        identity,
        control,
        devices,
        commands,
        events: EventLog::new(events),
        geometry,
        tables: BTreeMap::new(),
        next_table: 1,
        attached: BTreeMap::new(),
        own,
    })
}

fn allocate(hardware: &dyn Hardware, log2: u8, entry_bytes: u64) -> Result<Ring, Refusal> {
    let bytes = entry_bytes << log2;
    Ok(Ring { base: hardware.alloc(bytes, bytes)?, log2 })
}

struct Setup<'a> {
    hardware: &'a dyn Hardware,
    commands: Ring,
}

impl Setup<'_> {
    /// Waits until `done` holds for STATUS.
    fn poll(&self, done: impl Fn(Status) -> bool, what: &str) -> Result<(), Refusal> {
        for _ in 0..POLLS {
            if done(self.hardware.mmio_read(offset::STATUS, 8).into()) {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(Refusal::new(Refusal::ETIMEDOUT, format!("AMD-Vi does not answer: {what}")))
    }

    /// Off; the bits of CONTROL that the platform's firmware decides.
    fn disable(&self) -> Result<Control, Refusal> {
        let found = Control::from_bits(self.hardware.mmio_read(offset::CONTROL, 8));
        let kept = Control::new()
            .with_ht_tun_en(found.ht_tun_en())
            .with_pass_pw(found.pass_pw())
            .with_res_pass_pw(found.res_pass_pw())
            .with_isoc(found.isoc());
        self.hardware.mmio_write(offset::CONTROL, 8, kept.into_bits());
        self.poll(|status| !status.cmd_buf_run() && !status.event_log_run(), "rings run on after CONTROL was cleared")?;
        self.hardware.mmio_write(offset::STATUS, 8, Status::WRITE_1_TO_CLEAR);
        Ok(kept)
    }

    fn enable(&self, control: Control) -> Result<(), Refusal> {
        self.hardware.mmio_write(offset::CONTROL, 8, control.into_bits());
        self.poll(|status| status.cmd_buf_run() && status.event_log_run(), "rings do not run")
    }

    /// Nothing that was cached before counts.
    fn invalidate_all(&self) -> Result<(), Refusal> {
        let all = InvalidateIommuAll::new().with_opcode(Opcode::INVALIDATE_IOMMU_ALL.0).words();
        let wait = CompletionWait::new().with_opcode(Opcode::COMPLETION_WAIT.0).words();
        let mut next = RingPointer::from_bits(self.hardware.mmio_read(offset::COMMAND_TAIL, 8)).index();
        for command in [all, wait] {
            let bytes: Vec<u8> = command.iter().flat_map(|word| word.to_le_bytes()).collect();
            self.hardware.write(self.commands.entry(next), &bytes).map_err(broken)?;
            next = self.commands.next(next);
        }
        let end = RingPointer::new().with_index(next);
        self.hardware.mmio_write(offset::COMMAND_TAIL, 4, end.into_bits());
        let head = || RingPointer::from_bits(self.hardware.mmio_read(offset::COMMAND_HEAD, 8));
        self.poll(|status| head() == end || !status.cmd_buf_run(), "the first commands are not consumed")?;
        if head() == end {
            return Ok(());
        }
        Err(Refusal::new(Refusal::EIO, "AMD-Vi refuses the first commands (STATUS.CmdBufRun = 0)"))
    }
}
