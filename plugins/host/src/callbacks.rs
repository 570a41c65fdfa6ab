//! What the host lends to a plugin. A panic of the host's own code is caught here: it must not cross the boundary.
//!
//! UNSAFETY: turns the context pointer that a plugin hands back into the host's object.
#![expect(unsafe_code)]

use crate::CallError;
use std::cell::Cell;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use viommu_plugin::abi::{GuestMemoryCalls, HardwareCalls, ModelHostCalls};
use viommu_plugin::{GuestMemory, Hardware, Message, ModelHost, Refusal, Unreadable};

const FAULT: i64 = -14;
const IO: i64 = -5;

/// The host's object behind a context pointer.
struct Lent<H> {
    panicked: Cell<Option<&'static str>>,
    host: H,
}

impl<H> Lent<H> {
    /// Runs a callback; if it panics, notes which and answers `failed`.
    fn guard<T>(&self, callback: &'static str, failed: T, body: impl FnOnce(&H) -> T) -> T {
        catch_unwind(AssertUnwindSafe(|| body(&self.host))).unwrap_or_else(|payload| {
            // Its destructor may panic as well.
            std::mem::forget(payload);
            self.panicked.set(Some(callback));
            failed
        })
    }

    fn check<T>(&self, slot: &'static str, outcome: Result<T, CallError>) -> Result<T, CallError> {
        match self.panicked.take() {
            None => outcome,
            Some(callback) => Err(CallError::Callback { slot, callback }),
        }
    }
}

/// An object lent from create to destroy: the owner of what a context pointer leads to.
pub(crate) struct Loan<H>(NonNull<Lent<H>>);

// SAFETY: it is the only owner, like a Box.
unsafe impl<H: Send> Send for Loan<H> {}

impl<H> Loan<H> {
    pub(crate) fn new(host: H) -> Self {
        let lent = Box::new(Lent { panicked: Cell::new(None), host });
        Self(NonNull::from(Box::leak(lent)))
    }

    fn ctx(&self) -> *mut c_void {
        self.0.as_ptr().cast()
    }

    /// The outcome of a call of `slot`, unless a callback panicked in it: that comes first.
    #[inline]
    pub(crate) fn check<T>(&self, slot: &'static str, outcome: Result<T, CallError>) -> Result<T, CallError> {
        // SAFETY: ours until dropped; only shared references to it exist.
        unsafe { self.0.as_ref() }.check(slot, outcome)
    }
}

impl<H> Drop for Loan<H> {
    fn drop(&mut self) {
        // SAFETY: it came from a Box, and the instance that knew the pointer is destroyed (field order).
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl<H> std::fmt::Debug for Loan<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loan")
    }
}

/// The object behind `ctx`.
///
/// # Safety
/// `ctx` is the context of a live [`Loan`] or [`with_memory`] of this type.
unsafe fn lent<'a, H>(ctx: *mut c_void) -> &'a Lent<H> {
    // SAFETY: as this function requires.
    unsafe { &*ctx.cast::<Lent<H>>() }
}

/// # Safety
/// `first` is valid for `len` values during the callback; null for none.
unsafe fn slice<'a, T>(first: *const T, len: usize) -> &'a [T] {
    // SAFETY: as this function requires.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(first, len) } }
}

/// # Safety
/// `first` is valid for writes of `len` initialised values during the callback; null for none.
unsafe fn slice_mut<'a, T>(first: *mut T, len: usize) -> &'a mut [T] {
    // SAFETY: as this function requires.
    if len == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(first, len) } }
}

fn status(outcome: Result<(), Unreadable>) -> i64 {
    if outcome.is_ok() { 0 } else { FAULT }
}

/// Hands a refusal's text over; its errno.
fn refuse(refusal: &Refusal, why: Option<&mut Message>) -> i64 {
    if let Some(why) = why {
        // Writing into a Message cuts and does not fail.
        let _ = std::fmt::Write::write_str(why, &refusal.text);
    }
    if refusal.errno > 0 { -i64::from(refusal.errno) } else { IO }
}

/// Defines callbacks: the object behind `ctx` is `$host`, a panic answers `$failed`.
macro_rules! callbacks {
    ($object:ty: $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $answer:ty)? $(, or $failed:expr)?; |$host:ident| $body:expr;)*) => {$(
        pub(super) unsafe extern "C" fn $name(ctx: *mut c_void $(, $arg: $type)*) $(-> $answer)? {
            // SAFETY: the plugin hands back the context it was given, and memory of its own valid for the callback.
            unsafe { lent::<$object>(ctx).guard(stringify!($name), ($($failed)?), |$host| $body) }
        }
    )*};
}

mod hardware {
    use super::*;
    callbacks! { Box<dyn Hardware>:
        fn mmio_read(offset: u64, size: u32) -> u64, or u64::MAX; |host| host.mmio_read(offset, size);
        fn mmio_write(offset: u64, size: u32, value: u64); |host| host.mmio_write(offset, size, value);
        fn read(pa: u64, bytes: *mut u8, len: usize) -> i64, or IO; |host| status(host.read(pa, slice_mut(bytes, len)));
        fn write(pa: u64, bytes: *const u8, len: usize) -> i64, or IO; |host| status(host.write(pa, slice(bytes, len)));
        fn alloc(len: u64, align: u64, pa: *mut u64, why: *mut Message) -> i64, or IO; |host| {
            match host.alloc(len, align) {
                Ok(address) => {
                    pa.write(address);
                    0
                }
                Err(refusal) => refuse(&refusal, why.as_mut()),
            }
        };
        fn free(pa: u64, len: u64); |host| host.free(pa, len);
        fn issue(commands: *const u64, words: usize, why: *mut Message) -> i64, or IO; |host| {
            host.issue(slice(commands, words)).map_or_else(|refusal| refuse(&refusal, why.as_mut()), |()| 0)
        };
    }
}

mod model_host {
    use super::*;
    callbacks! { Box<dyn ModelHost>:
        fn read(pa: u64, bytes: *mut u8, len: usize) -> i64, or IO; |host| status(host.read(pa, slice_mut(bytes, len)));
        fn write(pa: u64, bytes: *const u8, len: usize) -> i64, or IO; |host| status(host.write(pa, slice(bytes, len)));
        fn irq(line: u32); |host| host.irq(line);
    }
}

mod memory {
    use super::*;
    callbacks! { &dyn GuestMemory:
        fn read(gpa: u64, bytes: *mut u8, len: usize) -> i64, or IO; |host| status(host.read(gpa, slice_mut(bytes, len)));
    }
}

impl Loan<Box<dyn Hardware>> {
    /// The table to lend at create.
    pub(crate) fn calls(&self) -> HardwareCalls {
        HardwareCalls {
            size: size_of::<HardwareCalls>() as u32,
            reserved: 0,
            ctx: self.ctx(),
            mmio_read: Some(hardware::mmio_read),
            mmio_write: Some(hardware::mmio_write),
            read: Some(hardware::read),
            write: Some(hardware::write),
            alloc: Some(hardware::alloc),
            free: Some(hardware::free),
            issue: Some(hardware::issue),
        }
    }
}

impl Loan<Box<dyn ModelHost>> {
    /// The table to lend at create.
    pub(crate) fn calls(&self) -> ModelHostCalls {
        ModelHostCalls {
            size: size_of::<ModelHostCalls>() as u32,
            reserved: 0,
            ctx: self.ctx(),
            read: Some(model_host::read),
            write: Some(model_host::write),
            irq: Some(model_host::irq),
        }
    }
}

/// Lends guest memory for one call of `slot`.
pub(crate) fn with_memory<T>(
    memory: &dyn GuestMemory,
    slot: &'static str,
    body: impl FnOnce(&GuestMemoryCalls) -> Result<T, CallError>,
) -> Result<T, CallError> {
    let lent = Lent { panicked: Cell::new(None), host: memory };
    let ctx = (&raw const lent).cast_mut().cast();
    let size = size_of::<GuestMemoryCalls>() as u32;
    let outcome = body(&GuestMemoryCalls { size, reserved: 0, ctx, read: Some(memory::read) });
    lent.check(slot, outcome)
}
