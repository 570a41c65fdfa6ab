//! HWPT_INVALIDATE.

use super::{
    Call,
    driver::{Entries, PAGE_SIZE},
    framing::Answer,
    objects::Kind,
    state::State,
};
use crate::uapi::{Errno, flags::INVALIDATE_ENTRIES_MAX, layout};

impl State {
    /// The number of entries goes back with every answer: what the driver says it handled.
    pub(super) fn hwpt_invalidate(&mut self, command: &mut layout::HwptInvalidate, call: Call<'_>) -> Answer {
        let mut entries = Entries {
            data_type: command.data_type,
            address: command.data_uptr,
            length: command.entry_len,
            count: command.entry_num,
            handled: 0,
            memory: call.memory,
        };
        let result = self.invalidate(command, &mut entries);
        command.entry_num = entries.handled;
        Answer { result, reply: true }
    }

    fn invalidate(&mut self, command: &layout::HwptInvalidate, entries: &mut Entries<'_>) -> Result<(), Errno> {
        if command.__reserved != 0 {
            return Err(Errno::OPNOTSUPP);
        }
        let no_entries = command.data_uptr == 0 || command.entry_len == 0;
        let too_much = u64::from(command.entry_len) > PAGE_SIZE || command.entry_num > INVALIDATE_ENTRIES_MAX;
        if command.entry_num > 0 && (no_entries || too_much) {
            return Err(Errno::INVAL);
        }
        match self.seek_any(command.hwpt_id)? {
            Kind::Nested => {
                entries.handled = entries.count;
                self.table.nested_mut(command.hwpt_id)?.driver.invalidate(entries)
            }
            Kind::Viommu => {
                // The driver's buffer: when there is no memory for it, nobody has written the count yet.
                entries.handled = entries.count;
                self.inject.allocation()?;
                let mut driver = self.table.viommu_mut(command.hwpt_id)?.take_driver()?;
                let find = |virt_id| {
                    let device = *self.table.viommu(command.hwpt_id).ok()?.devices.get(&virt_id)?;
                    Some(self.table.device(device).ok()?.bound.clone())
                };
                let result = driver.invalidate(entries, &find);
                self.table.viommu_mut(command.hwpt_id)?.put_driver(driver);
                result
            }
            _ => Err(Errno::INVAL),
        }
    }
}
