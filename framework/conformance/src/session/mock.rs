//! The mock driver's own commands.

use super::{Failed, Session};
use viommu::uapi::Command;
use viommu::uapi::selftest::{self, TestCommand, op};

/// What tests put into a nested HWPT's cache slots.
pub(crate) const IOTLB: u32 = 0xbad_beef;

/// The machine's pages.
const PAGE: u64 = 4096;

/// A mock device, made and attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device {
    /// What makes it: destroying this destroys the device.
    pub(crate) stdev: u32,
    /// The HWPT it is attached to.
    pub(crate) hwpt: u32,
    /// The device object.
    pub(crate) idev: u32,
}

impl Session<'_> {
    /// One command of the mock driver, its words at their offsets.
    pub(crate) fn test(&self, op: u32, id: u32, words: &[(usize, u32)]) -> Result<TestCommand, Failed> {
        let mut command = TestCommand { op, id, ..Default::default() };
        for (offset, value) in words {
            command.set_u32_at(*offset, *value);
        }
        self.call(Command::Test, &mut command, &mut [])?;
        Ok(command)
    }

    /// A plain device, attached.
    pub(crate) fn device(&self, pt_id: u32) -> Result<Device, Failed> {
        Ok(made(&self.test(op::MOCK_DOMAIN, pt_id, &[])?))
    }

    /// A device with flags, attached.
    pub(crate) fn device_of(&self, pt_id: u32, flags: u32) -> Result<Device, Failed> {
        Ok(made(&self.test(op::MOCK_DOMAIN_FLAGS, pt_id, &[(28, flags)])?))
    }

    /// Attaches the device to something else: the HWPT that it came to.
    pub(crate) fn replace(&self, device: Device, pt_id: u32) -> Result<u32, Failed> {
        Ok(self.test(op::MOCK_DOMAIN_REPLACE, device.stdev, &[(16, pt_id)])?.u32_at(16))
    }

    pub(crate) fn pasid_attach(&self, device: Device, pasid: u32, pt_id: u32) -> Result<(), Failed> {
        self.pasids.borrow_mut().push((device, pasid));
        self.test(op::PASID_ATTACH, device.stdev, &[(16, pasid), (20, pt_id)]).map(drop)
    }

    pub(crate) fn pasid_replace(&self, device: Device, pasid: u32, pt_id: u32) -> Result<(), Failed> {
        self.test(op::PASID_REPLACE, device.stdev, &[(16, pasid), (20, pt_id)]).map(drop)
    }

    pub(crate) fn pasid_detach(&self, device: Device, pasid: u32) -> Result<(), Failed> {
        self.test(op::PASID_DETACH, device.stdev, &[(16, pasid)]).map(drop)
    }

    /// Detaches every PASID.
    pub(super) fn detach_pasids(&self) {
        for (device, pasid) in self.pasids.take() {
            // One that a row has detached, or never attached, is no error.
            self.pasid_detach(device, pasid).ok();
        }
    }

    /// Whether exactly this HWPT is attached to the PASID; 0 asks whether none is.
    pub(crate) fn pasid_has(&self, device: Device, pasid: u32, hwpt: u32) -> bool {
        self.test(op::PASID_CHECK_HWPT, device.stdev, &[(16, pasid), (20, hwpt)]).is_ok()
    }

    /// Refused unless the first page of the session's memory is pinned so often.
    pub(crate) fn pins(&self, pins: u32) -> Result<(), Failed> {
        let mut command = TestCommand { op: op::MD_CHECK_REFS, ..Default::default() };
        command.set_u64_at(16, PAGE);
        command.set_u64_at(24, self.memory().address(0));
        command.set_u32_at(32, pins);
        self.call(Command::Test, &mut command, &mut [])
    }

    /// A page request of the device.
    pub(crate) fn trigger_iopf(&self, device: Device, pasid: u32) -> Result<(), Failed> {
        let words = [(16, device.idev), (20, pasid), (24, 7), (28, 3), (32, 0xdead_b000), (36, 0)];
        self.test(op::TRIGGER_IOPF, 0, &words).map(drop)
    }

    /// An event of the device, for its vIOMMU.
    pub(crate) fn trigger_vevent(&self, device: Device) -> Result<(), Failed> {
        self.test(op::TRIGGER_VEVENT, 0, &[(16, device.idev)]).map(drop)
    }

    /// What a nested HWPT's cache slots hold.
    pub(crate) fn iotlb(&self, hwpt: u32) -> String {
        self.slots(op::MD_CHECK_IOTLB, hwpt, IOTLB)
    }

    /// What a device's cache slots hold.
    pub(crate) fn cache(&self, device: Device) -> String {
        self.slots(op::DEV_CHECK_CACHE, device.idev, selftest::DEVICE_CACHE)
    }

    /// The mock only says whether a slot holds a value: a letter a slot, `f` for full, `0` for cleared.
    fn slots(&self, op: u32, id: u32, full: u32) -> String {
        let holds = |slot, value| self.test(op, id, &[(16, slot), (20, value)]).is_ok();
        let slot = |slot| match (holds(slot, full), holds(slot, 0)) {
            (true, false) => 'f',
            (false, true) => '0',
            _ => '?',
        };
        (0..4).map(slot).collect()
    }
}

fn made(command: &TestCommand) -> Device {
    Device { stdev: command.u32_at(16), hwpt: command.u32_at(20), idev: command.u32_at(24) }
}
