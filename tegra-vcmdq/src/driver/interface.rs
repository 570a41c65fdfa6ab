//! VINTFs and their StreamIDs. A VINTF has one VMID from the moment it is given until it is taken back.

use super::bring_up::poll;
use super::{Interface, TegraDriver};
use crate::spec::{
    CMDQV, PAGE, SidMatch, VINTF_PAGES, VIRT_SID_MAX, VintfConfig, VintfStatus, offset, vintf, vintf_page0,
};
use viommu_plugin::{Refusal, VirtualInterface};

/// The block of a VINTF in the config page.
fn block(vintf: u32) -> u64 {
    offset::VINTF + offset::VINTF_STRIDE * u64::from(vintf)
}

impl TegraDriver {
    /// The lowest free VINTF, for the guest of this stage 2.
    pub(super) fn create(&mut self, stage2: u32) -> Result<VirtualInterface, Refusal> {
        let vmid = self.smmu.vmid(stage2)?;
        let cmdqv = self.cmdqv()?;
        let guests = cmdqv.vintfs.len() - 1;
        let free = (1..cmdqv.vintfs.len()).find(|&number| cmdqv.vintfs[number].is_none());
        let free = free.ok_or_else(|| {
            Refusal::new(Refusal::ENOSPC, format!("VINTFs exhausted: all {guests} that guests can have are in use"))
        })?;
        let (number, slots) = (free as u32, cmdqv.param.slots());
        // HYP_OWN stays 0: the queues take what a guest may send, with this VMID, and nothing else.
        self.switch(number, VintfConfig::new().with_vmid(vmid))?;
        if let Err(refusal) = self.switch(number, VintfConfig::new().with_vmid(vmid).with_en(true)) {
            self.write(block(number) + vintf::CONFIG, 0);
            return Err(refusal);
        }
        if let Some(cmdqv) = &mut self.cmdqv {
            cmdqv.vintfs[free] = Some(Interface { slots: vec![None; slots as usize], queues: 0 });
        }
        Ok(VirtualInterface {
            handle: number,
            flags: VirtualInterface::PHYSICAL_QUEUES,
            page: CMDQV + vintf_page0(number),
            page_length: PAGE,
            guest_page: CMDQV + VINTF_PAGES,
        })
    }

    /// Queues first, last to first; then off, then clear; then it may be another's.
    pub(super) fn destroy(&mut self, number: u32) -> Result<(), Refusal> {
        let per_vintf = self.cmdqv()?.param.per_vintf();
        while let Some(last) = self.interface(number)?.queues.checked_sub(1) {
            self.destroy_queue(number * per_vintf + last)?;
        }
        self.switch(number, VintfConfig::new())?;
        let slots = self.interface(number)?.slots.len();
        (0..slots).for_each(|slot| self.clear_slot(number, slot));
        if let Some(cmdqv) = &mut self.cmdqv {
            cmdqv.vintfs[number as usize] = None;
        }
        self.errors.retain(|event| event.stream != number);
        Ok(())
    }

    /// SID_REPLACE before SID_MATCH: a slot that matches says something.
    pub(super) fn set_stream(&mut self, number: u32, virt_id: u32, stream: u32) -> Result<(), Refusal> {
        let slots = &mut self.interface(number)?.slots;
        if virt_id > VIRT_SID_MAX {
            let text = format!("StreamID {virt_id:#x}: a VINTF's queues know StreamIDs up to {VIRT_SID_MAX:#x}");
            return Err(Refusal::new(Refusal::EINVAL, text));
        }
        if slots.contains(&Some(virt_id)) {
            return Err(Refusal::new(Refusal::EEXIST, format!("StreamID {virt_id:#x} has a slot of VINTF {number}")));
        }
        let Some(slot) = slots.iter().position(Option::is_none) else {
            let text = format!("slots of VINTF {number} exhausted: all {} in use", slots.len());
            return Err(Refusal::new(Refusal::ENOSPC, text));
        };
        slots[slot] = Some(virt_id);
        let (at, matches) = (4 * slot as u64, SidMatch::new().with_enable(true).with_virt_sid(virt_id));
        self.write(block(number) + vintf::SID_REPLACE + at, stream);
        self.write(block(number) + vintf::SID_MATCH + at, matches.into_bits());
        Ok(())
    }

    pub(super) fn clear_stream(&mut self, number: u32, virt_id: u32) -> Result<(), Refusal> {
        let slot = self.interface(number)?.slots.iter().position(|slot| *slot == Some(virt_id));
        let missing = || Refusal::new(Refusal::ENOENT, format!("StreamID {virt_id:#x} has no slot of VINTF {number}"));
        let slot = slot.ok_or_else(missing)?;
        self.clear_slot(number, slot);
        self.interface(number)?.slots[slot] = None;
        Ok(())
    }

    fn clear_slot(&self, number: u32, slot: usize) {
        self.write(block(number) + vintf::SID_MATCH + 4 * slot as u64, 0);
        self.write(block(number) + vintf::SID_REPLACE + 4 * slot as u64, 0);
    }

    /// Writes VINTF_CONFIG and waits until VINTF_STATUS follows.
    fn switch(&self, number: u32, config: VintfConfig) -> Result<(), Refusal> {
        self.write(block(number) + vintf::CONFIG, config.into_bits());
        let follows = |status| VintfStatus::from_bits(status).enabled() == config.en();
        let what = format!("VINTF {number} does not follow VINTF_CONFIG");
        poll(self.smmu.hardware(), block(number) + vintf::STATUS, follows, &what)
    }
}
