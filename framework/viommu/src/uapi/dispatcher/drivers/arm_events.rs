//! Where an SMMUv3's event goes: to the guest, to whoever answers page requests, or to nobody but the host.

use crate::uapi::{
    Errno,
    dispatcher::Dispatcher,
    flags::{PGFAULT_PERM_EXEC, PGFAULT_PERM_PRIV, PGFAULT_PERM_READ, PGFAULT_PERM_WRITE, VEVENTQ_TYPE_ARM_SMMUV3},
    payload::{HwptPgfault, VeventArmSmmuv3},
};
use zerocopy::IntoBytes;

/// Events that the driver looks at: C_BAD_STE, F_STREAM_DISABLED, C_BAD_SUBSTREAMID, C_BAD_CD and the translation's.
const HANDLED: [u64; 8] = [0x04, 0x06, 0x08, 0x0a, 0x10, 0x11, 0x12, 0x13];

/// The hardware reports an event (SMMUv3 manual 7.3, little-endian words) of a device. A stalled one is a page request; one
/// of stage 1 goes to the guest with its own name for the device; the others stay with the host. Whether it went anywhere.
///
/// # Errors
/// ENOENT without the device.
pub fn report_arm_event(iommufd: &Dispatcher, device: u32, event: [u64; 4]) -> Result<bool, Errno> {
    let words = event.map(u64::from_le);
    let bit = |number: u32| words[1] >> number & 1 != 0;
    if !HANDLED.contains(&(words[0] & 0xff)) {
        return Ok(false);
    }
    if bit(31) {
        let pasid = if words[0] >> 11 & 1 != 0 { (words[0] >> 12 & 0xf_ffff) as u32 } else { 0 };
        let access = match (bit(34), bit(35)) {
            (true, _) => PGFAULT_PERM_EXEC,
            (_, true) => PGFAULT_PERM_READ,
            _ => PGFAULT_PERM_WRITE,
        };
        iommufd.page_request(HwptPgfault {
            dev_id: device,
            pasid,
            grpid: words[1] as u32 & 0xffff,
            perm: access | if bit(33) { PGFAULT_PERM_PRIV } else { 0 },
            addr: words[2],
            ..HwptPgfault::default()
        })?;
        return Ok(true);
    }
    let Some((viommu, virt_id)) = iommufd.event_target(device).filter(|_| !bit(39)) else { return Ok(false) };
    let named = words[0] & 0xffff_ffff | virt_id << 32;
    let evt = [named, words[1], words[2], words[3]].map(u64::to_le);
    let reported = iommufd.report_event(viommu, VEVENTQ_TYPE_ARM_SMMUV3, VeventArmSmmuv3 { evt }.as_bytes());
    Ok(reported.is_ok())
}
