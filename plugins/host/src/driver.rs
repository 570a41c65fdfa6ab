//! The driver part, called through the table.
//!
//! UNSAFETY: `call!`.
#![expect(unsafe_code)]

use crate::CallError::{self, OutOfRange};
use crate::answers;
use crate::callbacks::Loan;
use crate::instance::{Instance, call, lend};
use viommu_plugin::{
    DriverInfo, EntryKey, Hardware, HostEvent, HostInvalidation, HwQueueRequest, QueueFault, Refusal, Register,
    TranslationMode, VirtualInterface,
};

/// More ID registers than any IOMMU has.
const REGISTERS_MAX: usize = 4096;

/// Programs one physical IOMMU: [`viommu_plugin::Driver`] in a plugin. Every method fails with a [`CallError`] if the
/// plugin refuses, panics, panicked before, or answers what cannot be, or if the hardware handed in panicked.
#[derive(Debug)]
pub struct Driver {
    // Before the loan: the instance knows the loan's address until it is destroyed.
    instance: Instance,
    hardware: Loan<Box<dyn Hardware>>,
}

impl Driver {
    pub(crate) fn new(instance: Instance, hardware: Loan<Box<dyn Hardware>>) -> Self {
        Self { instance, hardware }
    }

    /// See [`viommu_plugin::Driver::info`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn info(&self) -> Result<DriverInfo, CallError> {
        let mut info = DriverInfo::default();
        lend!(self.hardware: driver_info(&mut info))?;
        let command_words = self.instance.table().info.command_words;
        answers::driver_info(info, command_words).map_err(|what| OutOfRange { slot: "driver_info", what })
    }

    /// See [`viommu_plugin::Driver::guest_registers`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn guest_registers(&self, mode: TranslationMode) -> Result<Vec<Register>, CallError> {
        let mut registers = vec![Register::default(); 64];
        loop {
            let room = registers.len();
            let count = lend!(self.hardware: driver_guest_registers(mode, registers.as_mut_ptr(), room))?;
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            if count <= room {
                registers.truncate(count);
                return Ok(registers);
            }
            if count > REGISTERS_MAX || room > 64 {
                let what = "more registers than it said, or than an IOMMU has";
                return Err(OutOfRange { slot: "driver_guest_registers", what });
            }
            registers.resize(count, Register::default());
        }
    }

    /// See [`viommu_plugin::Driver::stage2_create`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn stage2_create(&mut self, tag: u32) -> Result<u32, CallError> {
        let mut handle = 0;
        lend!(self.hardware: driver_stage2_create(tag, &mut handle); why)?;
        Ok(handle)
    }

    /// See [`viommu_plugin::Driver::stage2_map`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn stage2_map(&mut self, stage2: u32, ipa: u64, pa: u64, len: u64, access: u32) -> Result<(), CallError> {
        lend!(self.hardware: driver_stage2_map(stage2, ipa, pa, len, access); why)?;
        Ok(())
    }

    /// See [`viommu_plugin::Driver::stage2_unmap`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn stage2_unmap(&mut self, stage2: u32, ipa: u64, len: u64) -> Result<(), CallError> {
        lend!(self.hardware: driver_stage2_unmap(stage2, ipa, len); why)?;
        Ok(())
    }

    /// See [`viommu_plugin::Driver::stage2_destroy`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn stage2_destroy(&mut self, stage2: u32) -> Result<(), CallError> {
        lend!(self.hardware: driver_stage2_destroy(stage2))?;
        Ok(())
    }

    /// See [`viommu_plugin::Driver::attach`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn attach(&mut self, stream: u32, stage2: u32, tag: u32, key: &EntryKey) -> Result<(), CallError> {
        lend!(self.hardware: driver_attach(stream, stage2, tag, key); why)?;
        Ok(())
    }

    /// See [`viommu_plugin::Driver::detach`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn detach(&mut self, stream: u32) -> Result<(), CallError> {
        lend!(self.hardware: driver_detach(stream); why)?;
        Ok(())
    }

    /// See [`viommu_plugin::Driver::encode`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn encode(&self, what: &HostInvalidation, out: &mut [u64]) -> Result<usize, CallError> {
        let words = lend!(self.hardware: driver_encode(what, out.as_mut_ptr(), out.len()))?;
        let fits = usize::try_from(words).ok().filter(|words| *words <= out.len());
        fits.ok_or(OutOfRange { slot: "driver_encode", what: "more words than there is room" })
    }

    /// See [`viommu_plugin::Driver::queue_fault`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn queue_fault(&mut self) -> Result<Option<QueueFault>, CallError> {
        let mut fault = QueueFault::default();
        let stopped = lend!(self.hardware: driver_queue_fault(&mut fault))?;
        let fault = (stopped != 0).then(|| answers::queue_fault(fault)).transpose();
        fault.map_err(|what| OutOfRange { slot: "driver_queue_fault", what })
    }

    /// See [`viommu_plugin::Driver::queue_resume`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn queue_resume(&mut self) -> Result<(), CallError> {
        lend!(self.hardware: driver_queue_resume())?;
        Ok(())
    }

    /// See [`viommu_plugin::Driver::event`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn event(&mut self) -> Result<Option<HostEvent>, CallError> {
        let mut event = HostEvent::default();
        let some = lend!(self.hardware: driver_event(&mut event))?;
        let event = (some != 0).then(|| answers::host_event(event)).transpose();
        event.map_err(|what| OutOfRange { slot: "driver_event", what })
    }

    /// See [`viommu_plugin::Driver::interrupt`]. A plugin without it is not told.
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn interrupt(&mut self, line: u32) -> Result<(), CallError> {
        if self.instance.entry().driver_interrupt.is_some() {
            lend!(self.hardware: driver_interrupt(line))?;
        }
        Ok(())
    }

    /// See [`viommu_plugin::Driver::interface_create`]; `None` if this IOMMU has no interfaces to give.
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn interface_create(&mut self, stage2: u32) -> Result<Option<VirtualInterface>, CallError> {
        if self.instance.entry().driver_interface_create.is_none() {
            return Ok(None);
        }
        let mut interface = VirtualInterface::default();
        match lend!(self.hardware: driver_interface_create(stage2, &mut interface); why) {
            Ok(_) => {
                let made = answers::interface(interface, self.instance.table().info.frame_bytes);
                made.map(Some).map_err(|what| OutOfRange { slot: "driver_interface_create", what })
            }
            Err(CallError::Refused(refusal)) if refusal.errno == Refusal::EOPNOTSUPP => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// See [`viommu_plugin::Driver::interface_destroy`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn interface_destroy(&mut self, interface: u32) -> Result<(), CallError> {
        lend!(self.hardware: driver_interface_destroy(interface); why)?;
        Ok(())
    }

    /// See [`viommu_plugin::Driver::interface_stream_set`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn interface_stream_set(&mut self, interface: u32, virt_id: u32, stream: u32) -> Result<(), CallError> {
        lend!(self.hardware: driver_interface_stream_set(interface, virt_id, stream); why)?;
        Ok(())
    }

    /// See [`viommu_plugin::Driver::interface_stream_clear`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn interface_stream_clear(&mut self, interface: u32, virt_id: u32) -> Result<(), CallError> {
        lend!(self.hardware: driver_interface_stream_clear(interface, virt_id); why)?;
        Ok(())
    }

    /// See [`viommu_plugin::Driver::interface_domain_set`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn interface_domain_set(&mut self, interface: u32, domain: u32, tag: u32) -> Result<(), CallError> {
        if self.instance.entry().driver_interface_domain_set.is_some() {
            lend!(self.hardware: driver_interface_domain_set(interface, domain, tag); why)?;
        }
        Ok(())
    }

    /// See [`viommu_plugin::Driver::interface_domain_clear`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn interface_domain_clear(&mut self, interface: u32, domain: u32) -> Result<(), CallError> {
        if self.instance.entry().driver_interface_domain_clear.is_some() {
            lend!(self.hardware: driver_interface_domain_clear(interface, domain); why)?;
        }
        Ok(())
    }

    /// See [`viommu_plugin::Driver::hw_queue_create`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn hw_queue_create(&mut self, interface: u32, queue: &HwQueueRequest, pa: u64) -> Result<u32, CallError> {
        let mut handle = 0;
        lend!(self.hardware: driver_hw_queue_create(interface, queue, pa, &mut handle); why)?;
        Ok(handle)
    }

    /// See [`viommu_plugin::Driver::hw_queue_destroy`].
    ///
    /// # Errors
    /// See [`Driver`].
    pub fn hw_queue_destroy(&mut self, queue: u32) -> Result<(), CallError> {
        lend!(self.hardware: driver_hw_queue_destroy(queue); why)?;
        Ok(())
    }
}
