//! The plugin's C table: one exported data symbol, `viommu_plugin_entry`, of type [`PluginEntry`].
//!
//! ```text
//!   host                                    plugin
//!   ────                                    ──────
//!   size, abi_major  ── raw reads ────────► viommu_plugin_entry { size, abi_major, abi_minor, facts, slots }
//!   min(size, own)   ── copy ─────────────►
//!   slot(instance, lent buffers) ─────────► count or 0, or a negative errno
//!                    ◄── callback(ctx, ..)  HardwareCalls, ModelHostCalls, GuestMemoryCalls
//! ```
//!
//! Every slot returns a count (or 0), or a negative errno with the uAPI's meaning; [`PANICKED`] and [`DEAD`] are two of
//! them. What a slot hands out beside that goes into memory lent for the call; nothing lent is kept. An instance
//! belongs to the plugin from create to destroy. Each slot is tagged:
//! - `[control-thread]`: a thread that may wait;
//! - `[guest-thread]`: the thread that trapped a guest's access; does not wait;
//! - `[any-thread]`: several threads at a time on one instance;
//! - `[model-thread]`: whichever thread steps the model.
//!
//! Except under `[any-thread]`, the host serialises the calls on one instance, which may come from different threads.
//! `attached`: only while a stage 2 or stream of that number exists.

use crate::Register;
use std::ffi::c_char;

mod callbacks;
mod entry;
pub use callbacks::*;
pub use entry::*;

/// Version of the table's layout that cannot be read by a host of another major version.
pub const ABI_MAJOR: u32 = 2;
/// Counts the slots appended since [`ABI_MAJOR`] began.
pub const ABI_MINOR: u32 = 3;
/// What a slot returns when the plugin panicked in this call (-EOWNERDEAD).
pub const PANICKED: i64 = -130;
/// What a slot returns on an instance that panicked in an earlier call (-ENOTRECOVERABLE).
pub const DEAD: i64 = -131;

/// UTF-8 text that lives as long as the library is mapped, which is for ever. `bytes` is null for no text.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// The first byte; no terminating zero is needed.
    pub bytes: *const c_char,
    /// Length in bytes.
    pub len: usize,
}

impl Text {
    /// No text.
    pub const NONE: Self = Self { bytes: std::ptr::null(), len: 0 };

    /// This text.
    pub const fn of(text: &'static str) -> Self {
        Self { bytes: text.as_ptr().cast(), len: text.len() }
    }
}

/// [`crate::HostIds`] as it crosses the boundary.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HostIdTable {
    /// Host stream by guest ID, `u32::MAX` where no vdevice is.
    pub streams: *const u32,
    /// Entries of `streams`.
    pub stream_count: usize,
    /// Host tag by the guest's own domain number, `u32::MAX` where no nested HWPT has it.
    pub domains: *const u32,
    /// Entries of `domains`.
    pub domain_count: usize,
    /// The translation tag of the guest's nesting parent.
    pub tag: u32,
    /// Zero.
    pub reserved: u32,
}

/// [`crate::ModelConfig`] as it crosses the boundary.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ModelSetup {
    /// Bytes of this struct.
    pub size: u32,
    /// 1 if devices have a cache of their own (ATC), else 0.
    pub atc: u32,
    /// TLB entries kept per tag; 0 for the model's own.
    pub tlb_capacity: u32,
    /// Zero.
    pub reserved: u32,
    /// ID registers.
    pub registers: *const Register,
    /// Entries of `registers`.
    pub register_count: usize,
}
