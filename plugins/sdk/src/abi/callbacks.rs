//! What the host lends to a plugin: tables of functions with a context each.
//!
//! A function returns 0, or a negative errno. None may be called outside a slot's call. A function that is null is not
//! offered. The tables grow by appending, as the plugin's does.

use crate::Message;
use std::ffi::c_void;

/// [`crate::GuestMemory`] as it crosses the boundary; lent for one call.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GuestMemoryCalls {
    /// Bytes of this struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Handed to every function.
    pub ctx: *mut c_void,
    /// Fills `bytes` from guest physical `gpa`.
    pub read: Option<unsafe extern "C" fn(ctx: *mut c_void, gpa: u64, bytes: *mut u8, len: usize) -> i64>,
}

/// [`crate::Hardware`] as it crosses the boundary.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HardwareCalls {
    /// Bytes of this struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Handed to every function.
    pub ctx: *mut c_void,
    /// Reads 4 or 8 bytes of the register frame; all ones if that failed.
    pub mmio_read: Option<unsafe extern "C" fn(ctx: *mut c_void, offset: u64, size: u32) -> u64>,
    /// Writes 4 or 8 bytes of the register frame.
    pub mmio_write: Option<unsafe extern "C" fn(ctx: *mut c_void, offset: u64, size: u32, value: u64)>,
    /// Reads host memory.
    pub read: Option<unsafe extern "C" fn(ctx: *mut c_void, pa: u64, bytes: *mut u8, len: usize) -> i64>,
    /// Writes host memory.
    pub write: Option<unsafe extern "C" fn(ctx: *mut c_void, pa: u64, bytes: *const u8, len: usize) -> i64>,
    /// Allocates zeroed DMA memory.
    pub alloc:
        Option<unsafe extern "C" fn(ctx: *mut c_void, len: u64, align: u64, pa: *mut u64, why: *mut Message) -> i64>,
    /// Frees it.
    pub free: Option<unsafe extern "C" fn(ctx: *mut c_void, pa: u64, len: u64)>,
    /// Puts commands and a SYNC on the physical queue and waits for them.
    pub issue:
        Option<unsafe extern "C" fn(ctx: *mut c_void, commands: *const u64, words: usize, why: *mut Message) -> i64>,
}

/// [`crate::ModelHost`] as it crosses the boundary.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ModelHostCalls {
    /// Bytes of this struct.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Handed to every function.
    pub ctx: *mut c_void,
    /// Reads physical memory.
    pub read: Option<unsafe extern "C" fn(ctx: *mut c_void, pa: u64, bytes: *mut u8, len: usize) -> i64>,
    /// Writes physical memory.
    pub write: Option<unsafe extern "C" fn(ctx: *mut c_void, pa: u64, bytes: *const u8, len: usize) -> i64>,
    /// Pulses a wired interrupt line.
    pub irq: Option<unsafe extern "C" fn(ctx: *mut c_void, line: u32)>,
}
