//! The tables that physical hardware reads: host page tables (v1), device table entries, the device table.

mod device_table;
mod dte_update;
mod host_table;

use crate::codec::GUEST;
use crate::spec::dte::{DTE_WORDS, DteWord0, DteWord1};
pub use device_table::DeviceTable;
pub use dte_update::{Step, plan};
pub use host_table::{Geometry, HostTable};
use viommu_plugin::{EntryKey, KeyKind, Refusal, Unreadable};

/// A device table entry in words.
pub type Dte = [u64; DTE_WORDS];

/// The DTE in which no DMA passes: valid, but without translation fields. An entry that is not valid would let all pass.
pub const ABORT: Dte = [DteWord0::new().with_v(true).into_bits(), 0, 0, 0];

/// The physical DTE that does what a guest's entry asks for, on top of `table`, cached under `tag`.
///
/// Bypass becomes the host's table alone. Translate adds the guest's GCR3 table, which hardware reads through the host's
/// (CONTROL.GCR3TRPMode); of the guest's entry come GIOV, GLX, the pointer, GuestPagingMode, and of IR, IW and I only what
/// the guest does not have. A key without GCR3 table is one whose tables were composed into `table`: IR and IW are in
/// there. ATS is on only for a guest that turned it on and so invalidates device caches; in bypass it is off.
pub fn physical_dte(key: &EntryKey, table: &HostTable, tag: u16, ats: bool) -> Dte {
    let host0 = DteWord0::new().with_v(true).with_tv(true).with_mode(table.levels()).with_host_root(table.root() >> 12);
    let host0 = host0.with_ir(true).with_iw(true);
    let host1 = DteWord1::new().with_domain_id(tag);
    let guest0 = DteWord0::from_bits(key.words[0] & GUEST[0]);
    let guest1 = DteWord1::from_bits(key.words[1] & GUEST[1]);
    match key.kind {
        KeyKind::BYPASS => [host0.into_bits(), host1.into_bits(), 0, 0],
        KeyKind::TRANSLATE if guest0.gv() => [
            host0.with_ir(false).with_iw(false).into_bits() | guest0.into_bits(),
            guest1.with_domain_id(tag).with_i(ats && guest1.i()).into_bits(),
            key.words[2] & GUEST[2],
            0,
        ],
        KeyKind::TRANSLATE => [host0.into_bits(), host1.with_i(ats && guest1.i()).into_bits(), 0, 0],
        _ => ABORT,
    }
}

/// Memory that the driver allocated itself cannot be reached.
pub(crate) fn broken(_: Unreadable) -> Refusal {
    Refusal::new(Refusal::EIO, "IOMMU tables: memory that was allocated for them is not accessible")
}
