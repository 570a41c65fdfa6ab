//! The register frame (§11.4). 64-bit registers may be written in two halves.

mod capability;
mod control;
mod fault;
mod queue;

pub use capability::*;
pub use control::*;
pub use fault::*;
pub use queue::*;

/// Bytes of the register frame: the fault recording and IOTLB registers, which CAP and ECAP place, lie inside.
pub const FRAME_BYTES: u64 = 0x1000;

macro_rules! registers {
    ($($name:ident = $offset:literal, $bytes:literal, $text:literal;)*) => {
        /// Byte offsets of the registers.
        pub mod offset {
            $(#[doc = $text] pub const $name: u64 = $offset;)*
        }

        /// The register's name at `offset`, `None` where no register with a fixed place starts.
        pub const fn register_name(offset: u64) -> Option<&'static str> {
            Some(match offset {
                $($offset => stringify!($name),)*
                _ => return None,
            })
        }

        /// Bytes (4 or 8) of the register at `offset`, `None` as [`register_name`].
        pub const fn register_bytes(offset: u64) -> Option<u64> {
            Some(match offset {
                $($offset => $bytes,)*
                _ => return None,
            })
        }
    };
}

registers! {
    VER = 0x00, 4, "Version.";
    CAP = 0x08, 8, "Capability, see [`Cap`](super::Cap).";
    ECAP = 0x10, 8, "Extended capability, see [`Ecap`](super::Ecap).";
    GCMD = 0x18, 4, "Global command, see [`Global`](super::Global).";
    GSTS = 0x1c, 4, "Global status, see [`Global`](super::Global).";
    RTADDR = 0x20, 8, "Root table address, see [`RootTable`](super::RootTable).";
    CCMD = 0x28, 8, "Context command, see [`ContextCommand`](super::ContextCommand).";
    FSTS = 0x34, 4, "Fault status, see [`FaultStatus`](super::FaultStatus).";
    FECTL = 0x38, 4, "Fault event control, see [`EventControl`](super::EventControl).";
    FEDATA = 0x3c, 4, "Fault event data.";
    FEADDR = 0x40, 4, "Fault event address.";
    FEUADDR = 0x44, 4, "Fault event upper address.";
    PMEN = 0x64, 4, "Protected memory enable, see [`ProtectedMemory`](super::ProtectedMemory).";
    PLMBASE = 0x68, 4, "Protected low memory base.";
    PLMLIMIT = 0x6c, 4, "Protected low memory limit.";
    PHMBASE = 0x70, 8, "Protected high memory base.";
    PHMLIMIT = 0x78, 8, "Protected high memory limit.";
    IQH = 0x80, 8, "Invalidation queue head: bytes from the base.";
    IQT = 0x88, 8, "Invalidation queue tail: bytes from the base.";
    IQA = 0x90, 8, "Invalidation queue address, see [`QueueAddress`](super::QueueAddress).";
    ICS = 0x9c, 4, "Invalidation completion status, see [`CompletionStatus`](super::CompletionStatus).";
    IECTL = 0xa0, 4, "Invalidation event control, see [`EventControl`](super::EventControl).";
    IEDATA = 0xa4, 4, "Invalidation event data.";
    IEADDR = 0xa8, 4, "Invalidation event address.";
    IEUADDR = 0xac, 4, "Invalidation event upper address.";
    IQERCD = 0xb0, 8, "Invalidation queue error record, see [`QueueError`](super::QueueError).";
    IRTA = 0xb8, 8, "Interrupt remapping table address, see [`InterruptTable`](super::InterruptTable).";
    PQH = 0xc0, 8, "Page request queue head.";
    PQT = 0xc8, 8, "Page request queue tail.";
    PQA = 0xd0, 8, "Page request queue address.";
    PRS = 0xdc, 4, "Page request status.";
    PECTL = 0xe0, 4, "Page request event control, see [`EventControl`](super::EventControl).";
    PEDATA = 0xe4, 4, "Page request event data.";
    PEADDR = 0xe8, 4, "Page request event address.";
    PEUADDR = 0xec, 4, "Page request event upper address.";
}
