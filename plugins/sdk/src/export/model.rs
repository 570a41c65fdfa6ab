//! Shims of [`crate::Model`].

use super::{lent, lent_mut};
use crate::abi::{ModelHostCalls, ModelSetup};
use crate::{Answer, CacheStats, Message, ModelConfig, ModelHost, Request, Unreadable, Vendor};
use std::ffi::c_void;

pub(super) unsafe extern "C" fn create<V: Vendor>(
    host: *const ModelHostCalls,
    setup: *const ModelSetup,
    instance: *mut *mut c_void,
    why: *mut Message,
) -> i64 {
    let make = || {
        // SAFETY: the host promises what abi.rs documents for this slot; see the head of export.rs.
        let (host, setup) = unsafe { (super::copy_table(host), super::copy_table(setup)) };
        // SAFETY: as above.
        let registers = unsafe { lent(setup.registers, setup.register_count) };
        let config = ModelConfig { registers, atc: setup.atc != 0, tlb_capacity: setup.tlb_capacity };
        V::model(Box::new(LentHost(host)), config)
    };
    // SAFETY: as above.
    unsafe { super::create(instance, why, make) }
}

shims! { Model:
    exclusive fn mmio_read(offset: u64, size: u32, value: *mut u64) |this| {
        value.write(this.mmio_read(offset, size));
        0
    };
    exclusive fn mmio_write(offset: u64, size: u32, value: u64) |this| {
        this.mmio_write(offset, size, value);
        0
    };
    exclusive fn step(budget: u32) |this| i64::from(this.step(budget));
    exclusive fn translate(
        requests: *const Request,
        request_count: usize,
        answers: *mut Answer,
        answer_room: usize
    ) |this| this.translate(lent(requests, request_count), lent_mut(answers, answer_room)) as i64;
    exclusive fn explain(request: *const Request, text: *mut Message) |this| {
        this.explain(&*request, &mut *text);
        0
    };
    shared fn stats(stats: *mut CacheStats) |this| {
        stats.write(this.stats());
        0
    };
    exclusive fn atc_unresponsive(stream: u32, unresponsive: u32) |this| {
        this.atc_unresponsive(stream, unresponsive != 0);
        0
    };
    exclusive fn reset() |this| {
        this.reset();
        0
    };
}

/// Memory and interrupt lines, lent from create to destroy.
struct LentHost(ModelHostCalls);

// SAFETY: the host lets `ctx` be used from whichever thread calls the instance, one at a time.
unsafe impl Send for LentHost {}

impl ModelHost for LentHost {
    #[inline]
    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let read = self.0.read.ok_or(Unreadable)?;
        // SAFETY: lent until the instance is destroyed, and we are in one of its calls; the bytes are ours.
        let status = unsafe { read(self.0.ctx, pa, bytes.as_mut_ptr(), bytes.len()) };
        if status < 0 { Err(Unreadable) } else { Ok(()) }
    }

    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        let write = self.0.write.ok_or(Unreadable)?;
        // SAFETY: as in read.
        let status = unsafe { write(self.0.ctx, pa, bytes.as_ptr(), bytes.len()) };
        if status < 0 { Err(Unreadable) } else { Ok(()) }
    }

    fn irq(&self, line: u32) {
        if let Some(irq) = self.0.irq {
            // SAFETY: as in read.
            unsafe { irq(self.0.ctx, line) }
        }
    }
}
