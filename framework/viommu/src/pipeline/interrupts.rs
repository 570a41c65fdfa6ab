//! What reaches the guest beside its memory: interrupts.

/// Interrupts of a guest's IOMMU, as the VMM delivers them. Called on any thread.
pub trait Interrupts: Send + Sync + 'static {
    /// A message-signalled interrupt: `data` written to guest physical `address`.
    fn msi(&self, address: u64, data: u32);
    /// A pulse on a wired line (the vendor's number; Arm: 0 EVTQ, 1 PRIQ, 2 CMD_SYNC, 3 GERROR).
    fn line(&self, line: u32);
    /// Only without a frontend, where the guest's event queue is the VMM's: a device faulted that the guest knows as
    /// `virt_id`. In `record` the field that names the device is zero.
    fn event(&self, _virt_id: u32, _record: &[u64]) {}
    /// Only without a frontend: event records were lost.
    fn event_lost(&self) {}
}

/// Delivers no interrupt: for guests that poll, and for replay.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInterrupts;

impl Interrupts for NoInterrupts {
    fn msi(&self, _address: u64, _data: u32) {}
    fn line(&self, _line: u32) {}
}

/// Interrupts by eventfd: one for each wired line, and one for messages, whose address and data the VMM programmed.
#[derive(Debug)]
pub struct EventFdInterrupts {
    /// By line number; a line beyond the end is not delivered.
    pub lines: Vec<vmm_sys_util::eventfd::EventFd>,
    /// Signalled for every message.
    pub message: Option<vmm_sys_util::eventfd::EventFd>,
}

impl Interrupts for EventFdInterrupts {
    fn msi(&self, address: u64, data: u32) {
        if let Some(Err(error)) = self.message.as_ref().map(|fd| fd.write(1)) {
            tracing::warn!(address, data, %error, "guest MSI not delivered");
        }
    }
    fn line(&self, line: u32) {
        if let Some(Err(error)) = self.lines.get(line as usize).map(|fd| fd.write(1)) {
            tracing::warn!(line, %error, "guest interrupt not delivered");
        }
    }
}
