//! From safe Rust to the C table: [`PluginEntry::of`] and `export_plugin!`.
//!
//! Every shim goes through [`create`], [`ask`], [`shared`] or [`exclusive`]: they catch what a vendor's code panics with, and an
//! instance that panicked answers [`DEAD`] from then on.
//!
//! UNSAFETY: the inside of the C boundary. The host promises what `abi.rs` documents: instances come from the create
//! slot of the same part and are not used after destroy, pointers are valid for the length beside them and for the
//! length of the call, and only `[any-thread]` slots are called concurrently on one instance.
#![expect(unsafe_code)]

use crate::abi::{ABI_MAJOR, ABI_MINOR, DEAD, PANICKED, PluginEntry, Text};
use crate::{Message, Refusal, Vendor, VendorInfo};
use std::any::Any;
use std::ffi::c_void;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Defines the shims of a part: each enters the instance as [`shared`] or [`exclusive`] and runs its body there.
macro_rules! shims {
    ($part:ident: $($enter:ident fn $name:ident($($arg:ident: $type:ty),*) |$this:ident| $body:expr;)*) => {$(
        pub(super) unsafe extern "C" fn $name<T: $crate::$part>(instance: *mut c_void $(, $arg: $type)*) -> i64 {
            // SAFETY: the host promises what abi.rs documents for this slot; see the head of export.rs.
            unsafe { super::$enter::<T>(instance, |$this| $body) }
        }
    )*};
}

mod codec;
mod driver;
mod frontend;
mod kernel;
mod model;

/// Exports a [`Vendor`] as this library's plugin: `viommu_plugin::export_plugin!(arm_smmuv3::ArmSmmuv3);`.
///
/// Once in a library of crate-type `cdylib`.
#[macro_export]
macro_rules! export_plugin {
    ($vendor:ty) => {
        /// The plugin's table, found by this name in the library.
        #[allow(non_upper_case_globals)]
        #[unsafe(no_mangle)]
        pub static viommu_plugin_entry: $crate::abi::PluginEntry = $crate::abi::PluginEntry::of::<$vendor>();
    };
}

// SAFETY: the table is read only, and its pointers lead to functions and to text that live for ever.
unsafe impl Sync for PluginEntry {}
// SAFETY: as above.
unsafe impl Send for PluginEntry {}

impl PluginEntry {
    /// The table of a vendor written in Rust.
    pub const fn of<V: Vendor>() -> Self {
        const { assert!(sane(&V::INFO), "Vendor::INFO has a number out of range") };
        let info = V::INFO;
        Self {
            size: size_of::<Self>() as u32,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            vendor: info.vendor,
            name: Text::of(info.name),
            version: Text::of(info.version),
            stream_name: Text::of(info.stream_name),
            command_words: info.command_words,
            entry_words: info.entry_words,
            event_words: info.event_words,
            reserved: 0,
            frame_bytes: info.frame_bytes,
            extension: None,
            frontend_create: Some(frontend::create::<V>),
            frontend_destroy: Some(destroy::<V::Frontend>),
            frontend_read: Some(frontend::read::<V::Frontend>),
            frontend_write: Some(frontend::write::<V::Frontend>),
            frontend_queue: Some(frontend::queue::<V::Frontend>),
            frontend_advance: Some(frontend::advance::<V::Frontend>),
            frontend_fault: Some(frontend::fault::<V::Frontend>),
            frontend_sync_done: Some(frontend::sync_done::<V::Frontend>),
            frontend_event: Some(frontend::event::<V::Frontend>),
            frontend_event_lost: Some(frontend::event_lost::<V::Frontend>),
            frontend_mode: Some(frontend::mode::<V::Frontend>),
            frontend_entry: Some(frontend::entry::<V::Frontend>),
            frontend_reset: Some(frontend::reset::<V::Frontend>),
            frontend_register_name: Some(frontend::register_name::<V::Frontend>),
            frontend_trouble: Some(frontend::trouble::<V::Frontend>),
            codec_create: Some(codec::create::<V>),
            codec_destroy: Some(destroy::<V::Codec>),
            codec_rewrite: Some(codec::rewrite::<V::Codec>),
            codec_configuration: Some(codec::configuration::<V::Codec>),
            codec_entry_key: Some(codec::entry_key::<V::Codec>),
            codec_opcode: Some(codec::opcode::<V::Codec>),
            codec_opcode_name: Some(codec::opcode_name::<V::Codec>),
            codec_describe: Some(codec::describe::<V::Codec>),
            driver_create: Some(driver::create::<V>),
            driver_destroy: Some(destroy::<V::Driver>),
            driver_info: Some(driver::info::<V::Driver>),
            driver_guest_registers: Some(driver::guest_registers::<V::Driver>),
            driver_stage2_create: Some(driver::stage2_create::<V::Driver>),
            driver_stage2_map: Some(driver::stage2_map::<V::Driver>),
            driver_stage2_unmap: Some(driver::stage2_unmap::<V::Driver>),
            driver_stage2_destroy: Some(driver::stage2_destroy::<V::Driver>),
            driver_attach: Some(driver::attach::<V::Driver>),
            driver_detach: Some(driver::detach::<V::Driver>),
            driver_encode: Some(driver::encode::<V::Driver>),
            driver_queue_fault: Some(driver::queue_fault::<V::Driver>),
            driver_queue_resume: Some(driver::queue_resume::<V::Driver>),
            driver_event: Some(driver::event::<V::Driver>),
            model_create: Some(model::create::<V>),
            model_destroy: Some(destroy::<V::Model>),
            model_mmio_read: Some(model::mmio_read::<V::Model>),
            model_mmio_write: Some(model::mmio_write::<V::Model>),
            model_step: Some(model::step::<V::Model>),
            model_translate: Some(model::translate::<V::Model>),
            model_explain: Some(model::explain::<V::Model>),
            model_stats: Some(model::stats::<V::Model>),
            model_atc_unresponsive: Some(model::atc_unresponsive::<V::Model>),
            model_reset: Some(model::reset::<V::Model>),
            frontend_save: Some(frontend::save::<V::Frontend>),
            frontend_restore: Some(frontend::restore::<V::Frontend>),
            frontend_covers: Some(frontend::covers::<V>),
            frontend_watched: Some(frontend::watched::<V::Frontend>),
            codec_mode: Some(codec::mode::<V::Codec>),
            codec_shadow_range: Some(codec::shadow_range::<V::Codec>),
            codec_walk: Some(codec::walk::<V::Codec>),
            frontend_hw_queues: Some(frontend::hw_queues::<V::Frontend>),
            driver_interrupt: Some(driver::interrupt::<V::Driver>),
            driver_interface_create: Some(driver::interface_create::<V::Driver>),
            driver_interface_destroy: Some(driver::interface_destroy::<V::Driver>),
            driver_interface_stream_set: Some(driver::interface_stream_set::<V::Driver>),
            driver_interface_stream_clear: Some(driver::interface_stream_clear::<V::Driver>),
            driver_interface_domain_set: Some(driver::interface_domain_set::<V::Driver>),
            driver_interface_domain_clear: Some(driver::interface_domain_clear::<V::Driver>),
            driver_hw_queue_create: Some(driver::hw_queue_create::<V::Driver>),
            driver_hw_queue_destroy: Some(driver::hw_queue_destroy::<V::Driver>),
            codec_traits: Some(codec::traits::<V::Codec>),
            kernel_facts: if V::KERNEL.is_some() { Some(kernel::facts::<V>) } else { None },
            kernel_registers: if V::KERNEL.is_some() { Some(kernel::registers::<V>) } else { None },
            kernel_hwpt_data: if V::KERNEL.is_some() { Some(kernel::hwpt_data::<V>) } else { None },
            kernel_entries: if V::KERNEL.is_some() { Some(kernel::entries::<V>) } else { None },
            kernel_repeatable: if V::KERNEL.is_some() { Some(kernel::repeatable::<V>) } else { None },
            kernel_event: if V::KERNEL.is_some() { Some(kernel::event::<V>) } else { None },
            kernel_interface: if V::KERNEL.is_some() { Some(kernel::interface::<V>) } else { None },
            kernel_forget: if V::KERNEL.is_some() { Some(kernel::forget::<V>) } else { None },
        }
    }
}

/// What the host checks again when it loads the plugin; here a wrong constant does not compile.
const fn sane(info: &VendorInfo) -> bool {
    let words = info.command_words >= 1 && info.command_words <= 8 && info.event_words >= 1 && info.event_words <= 8;
    words && info.entry_words >= 1 && info.entry_words <= 16 && info.frame_bytes >= 8 && !info.name.is_empty()
}

/// What an instance pointer leads to.
struct Instance<T> {
    dead: AtomicBool,
    value: T,
}

/// Makes an instance, or says why not.
///
/// # Safety
/// `instance` and `why` are valid for writes.
unsafe fn create<T>(instance: *mut *mut c_void, why: *mut Message, make: impl FnOnce() -> Result<T, Refusal>) -> i64 {
    match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Ok(value)) => {
            let made = Box::into_raw(Box::new(Instance { dead: AtomicBool::new(false), value }));
            // SAFETY: valid for writes, as this function requires.
            unsafe { instance.write(made.cast()) };
            0
        }
        // SAFETY: valid, as this function requires.
        Ok(Err(refusal)) => refuse(unsafe { &mut *why }, &refusal),
        Err(payload) => panicked(payload),
    }
}

/// Frees an instance, dead or not. A value that panics while it is dropped is leaked.
///
/// # Safety
/// `instance` came from [`create`] with the same `T` and is not used again.
unsafe extern "C" fn destroy<T>(instance: *mut c_void) -> i64 {
    // SAFETY: as this function requires.
    let instance = unsafe { Box::from_raw(instance.cast::<Instance<T>>()) };
    match catch_unwind(AssertUnwindSafe(|| drop(instance))) {
        Ok(()) => 0,
        Err(payload) => panicked(payload),
    }
}

/// Asks the vendor, without an instance.
///
/// # Safety
/// `why` is valid for writes.
unsafe fn ask(why: *mut Message, question: impl FnOnce() -> Result<(), Refusal>) -> i64 {
    match catch_unwind(AssertUnwindSafe(question)) {
        // SAFETY: valid, as this function requires.
        Ok(outcome) => unsafe { done(why, outcome) },
        Err(payload) => panicked(payload),
    }
}

/// Calls into an instance that others may be in.
///
/// # Safety
/// `instance` came from [`create`] with the same `T`, is not destroyed, and no one is in [`exclusive`] with it.
#[inline]
unsafe fn shared<T>(instance: *mut c_void, body: impl FnOnce(&T) -> i64) -> i64 {
    // SAFETY: alive and not exclusively borrowed, as this function requires.
    let instance = unsafe { &*instance.cast::<Instance<T>>() };
    if instance.dead.load(Relaxed) {
        return DEAD;
    }
    catch_unwind(AssertUnwindSafe(|| body(&instance.value))).unwrap_or_else(|payload| {
        instance.dead.store(true, Relaxed);
        panicked(payload)
    })
}

/// Calls into an instance that nobody else is in.
///
/// # Safety
/// `instance` came from [`create`] with the same `T`, is not destroyed, and no one else is in it.
#[inline]
unsafe fn exclusive<T>(instance: *mut c_void, body: impl FnOnce(&mut T) -> i64) -> i64 {
    // SAFETY: alive and not borrowed, as this function requires.
    let instance = unsafe { &mut *instance.cast::<Instance<T>>() };
    if *instance.dead.get_mut() {
        return DEAD;
    }
    catch_unwind(AssertUnwindSafe(|| body(&mut instance.value))).unwrap_or_else(|payload| {
        *instance.dead.get_mut() = true;
        panicked(payload)
    })
}

/// The payload is leaked: its destructor is the vendor's code too and might panic.
#[cold]
fn panicked(payload: Box<dyn Any + Send>) -> i64 {
    std::mem::forget(payload);
    PANICKED
}

#[cold]
fn refuse(why: &mut Message, refusal: &Refusal) -> i64 {
    *why = Message::default();
    // Writing into a Message cuts and does not fail.
    let _ = why.write_str(&refusal.text);
    let errno = i64::from(refusal.errno);
    if errno <= 0 || -errno == PANICKED || -errno == DEAD { -i64::from(Refusal::EIO) } else { -errno }
}

/// 0, or the errno with its text.
///
/// # Safety
/// `why` is valid.
unsafe fn done(why: *mut Message, outcome: Result<(), Refusal>) -> i64 {
    match outcome {
        Ok(()) => 0,
        // SAFETY: valid, as this function requires.
        Err(refusal) => refuse(unsafe { &mut *why }, &refusal),
    }
}

/// Lent memory as a slice; a C host may pass null for nothing.
///
/// # Safety
/// `first` is valid for reads of `len` values for as long as `'a`.
#[inline]
unsafe fn lent<'a, T>(first: *const T, len: usize) -> &'a [T] {
    // SAFETY: as this function requires; null only where nothing is read.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(first, len) } }
}

/// Lent memory as a slice to write to.
///
/// # Safety
/// `first` is valid for reads and writes of `len` values for as long as `'a`, and nobody else uses it.
#[inline]
unsafe fn lent_mut<'a, T>(first: *mut T, len: usize) -> &'a mut [T] {
    // SAFETY: as this function requires; null only where nothing is touched.
    if len == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(first, len) } }
}

/// Copies a table of callbacks that may be shorter or longer than the one known here.
///
/// # Safety
/// `table` leads to `size` bytes, `size` being the u32 it begins with; all zero is a valid `T`.
unsafe fn copy_table<T: Copy>(table: *const T) -> T {
    let mut own = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: the table begins with its size, and both sides have the bytes copied; all zero is valid for the rest.
    unsafe {
        let size = (*table.cast::<u32>()) as usize;
        std::ptr::copy_nonoverlapping(table.cast::<u8>(), own.as_mut_ptr().cast::<u8>(), size.min(size_of::<T>()));
        own.assume_init()
    }
}
