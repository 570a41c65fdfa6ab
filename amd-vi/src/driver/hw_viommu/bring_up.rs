//! Turning an IOMMU's vIOMMU on, before it takes commands.

use super::HwViommu;
use crate::spec::registers::{Control, offset};
use crate::spec::viommu::{OWN_DEVICE, PAGE, PRIVATE_DOMAIN, tables};
use crate::tables::{DeviceTable, Geometry, HostTable, physical_dte};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use viommu_plugin::{EntryKey, Hardware, KeyKind, Refusal};

/// Builds the private address space, and turns the vIOMMU on; CONTROL as it is then. `None`: GstBufferTRPMode or another
/// bit does not stick, and CONTROL is as it was. `flush` makes the IOMMU forget what it had cached.
///
/// # Errors
/// If there is no memory, or `flush` fails.
pub(in crate::driver) fn bring_up(
    hardware: &dyn Hardware,
    devices: &DeviceTable,
    geometry: Geometry,
    control: Control,
    flush: impl Fn() -> Result<(), Refusal>,
) -> Result<(Option<HwViommu>, Control), Refusal> {
    // Whether all that is new sticks.
    let set = |new: Control| {
        hardware.mmio_write(offset::CONTROL, 8, new.into_bits());
        let wanted = new.into_bits() & !control.into_bits();
        hardware.mmio_read(offset::CONTROL, 8) & wanted == wanted
    };
    let with_buffers = control.with_gst_buffer_trp_mode(true);
    if !set(with_buffers) {
        set(control);
        return Ok((None, control));
    }
    // 1. The private address space, behind the IOMMU's own entry.
    let mut private = HostTable::new(hardware, geometry, PRIVATE_DOMAIN)?;
    let notes = hardware.alloc(tables::NOTES_BYTES, PAGE)?;
    private.map(hardware, 0, notes, tables::NOTES_BYTES, 3)?;
    let bypass = EntryKey { kind: KeyKind::BYPASS, ..EntryKey::default() };
    let dte = physical_dte(&bypass, &private, PRIVATE_DOMAIN, false);
    for word in [3, 2, 1, 0] {
        devices.write(hardware, OWN_DEVICE.into(), word, dte[word])?;
    }
    flush()?;
    // 2. On, the commands first.
    let with_commands = with_buffers.with_vcmd_en(true);
    let on = with_commands.with_viommu_en(true);
    if set(with_commands) && set(on) {
        let (guests, lost, names, events) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new(), VecDeque::new());
        return Ok((Some(HwViommu { private, guests, lost, names, events }), on));
    }
    set(control);
    // Nothing was reached through it: its entry is the only thing that may be cached.
    devices.write(hardware, OWN_DEVICE.into(), 0, crate::tables::ABORT[0])?;
    flush()?;
    private.destroy(hardware);
    hardware.free(notes, tables::NOTES_BYTES);
    Ok((None, control))
}
