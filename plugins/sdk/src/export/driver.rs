//! Shims of [`crate::Driver`].

use super::{done, lent_mut};
use crate::abi::HardwareCalls;
use crate::{
    DriverInfo, EntryKey, Hardware, HostEvent, HostInvalidation, HwQueueRequest, Message, QueueFault, Refusal, Register,
};
use crate::{TranslationMode, Unreadable, Vendor, VirtualInterface};
use std::ffi::c_void;

pub(super) unsafe extern "C" fn create<V: Vendor>(
    hardware: *const HardwareCalls,
    instance: *mut *mut c_void,
    why: *mut Message,
) -> i64 {
    // SAFETY: the host promises what abi.rs documents for this slot; see the head of export.rs.
    unsafe { super::create(instance, why, || V::driver(Box::new(LentHardware(super::copy_table(hardware))))) }
}

shims! { Driver:
    shared fn info(info: *mut DriverInfo) |this| {
        info.write(this.info());
        0
    };
    shared fn guest_registers(mode: TranslationMode, registers: *mut Register, room: usize) |this| {
        let all = this.guest_registers(mode);
        let fits = all.len().min(room);
        lent_mut(registers, room)[..fits].copy_from_slice(&all[..fits]);
        all.len() as i64
    };
    exclusive fn stage2_create(tag: u32, stage2: *mut u32, why: *mut Message) |this| {
        done(why, this.stage2_create(tag).map(|handle| stage2.write(handle)))
    };
    exclusive fn stage2_map(stage2: u32, ipa: u64, pa: u64, len: u64, access: u32, why: *mut Message) |this| {
        done(why, this.stage2_map(stage2, ipa, pa, len, access))
    };
    exclusive fn stage2_unmap(stage2: u32, ipa: u64, len: u64, why: *mut Message) |this| {
        done(why, this.stage2_unmap(stage2, ipa, len))
    };
    exclusive fn stage2_destroy(stage2: u32) |this| {
        this.stage2_destroy(stage2);
        0
    };
    exclusive fn attach(stream: u32, stage2: u32, tag: u32, key: *const EntryKey, why: *mut Message) |this| {
        done(why, this.attach(stream, stage2, tag, &*key))
    };
    exclusive fn detach(stream: u32, why: *mut Message) |this| done(why, this.detach(stream));
    shared fn encode(what: *const HostInvalidation, out: *mut u64, out_words: usize) |this| {
        this.encode(&*what, lent_mut(out, out_words)) as i64
    };
    exclusive fn queue_fault(fault: *mut QueueFault) |this| {
        this.queue_fault().map_or(0, |found| {
            fault.write(found);
            1
        })
    };
    exclusive fn queue_resume() |this| {
        this.queue_resume();
        0
    };
    exclusive fn event(event: *mut HostEvent) |this| {
        this.event().map_or(0, |found| {
            event.write(found);
            1
        })
    };
    exclusive fn interrupt(line: u32) |this| {
        this.interrupt(line);
        0
    };
    exclusive fn interface_create(stage2: u32, interface: *mut VirtualInterface, why: *mut Message) |this| {
        done(why, this.interface_create(stage2).map(|made| interface.write(made)))
    };
    exclusive fn interface_destroy(interface: u32, why: *mut Message) |this| {
        done(why, this.interface_destroy(interface))
    };
    exclusive fn interface_stream_set(interface: u32, virt_id: u32, stream: u32, why: *mut Message) |this| {
        done(why, this.interface_stream_set(interface, virt_id, stream))
    };
    exclusive fn interface_stream_clear(interface: u32, virt_id: u32, why: *mut Message) |this| {
        done(why, this.interface_stream_clear(interface, virt_id))
    };
    exclusive fn interface_domain_set(interface: u32, domain: u32, tag: u32, why: *mut Message) |this| {
        done(why, this.interface_domain_set(interface, domain, tag))
    };
    exclusive fn interface_domain_clear(interface: u32, domain: u32, why: *mut Message) |this| {
        done(why, this.interface_domain_clear(interface, domain))
    };
    exclusive fn hw_queue_create(
        interface: u32,
        queue: *const HwQueueRequest,
        pa: u64,
        handle: *mut u32,
        why: *mut Message
    ) |this| {
        done(why, this.hw_queue_create(interface, &*queue, pa).map(|made| handle.write(made)))
    };
    exclusive fn hw_queue_destroy(queue: u32, why: *mut Message) |this| done(why, this.hw_queue_destroy(queue));
}

/// The machine, lent from create to destroy.
struct LentHardware(HardwareCalls);

// SAFETY: the host lets `ctx` be used from whichever thread calls the instance, one at a time.
unsafe impl Send for LentHardware {}

impl Hardware for LentHardware {
    fn mmio_read(&self, offset: u64, size: u32) -> u64 {
        // SAFETY: lent until the instance is destroyed, and we are in one of its calls.
        self.0.mmio_read.map_or(u64::MAX, |read| unsafe { read(self.0.ctx, offset, size) })
    }

    fn mmio_write(&self, offset: u64, size: u32, value: u64) {
        if let Some(write) = self.0.mmio_write {
            // SAFETY: as in mmio_read.
            unsafe { write(self.0.ctx, offset, size, value) }
        }
    }

    fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let read = self.0.read.ok_or(Unreadable)?;
        // SAFETY: as in mmio_read; the bytes are ours.
        let status = unsafe { read(self.0.ctx, pa, bytes.as_mut_ptr(), bytes.len()) };
        if status < 0 { Err(Unreadable) } else { Ok(()) }
    }

    fn write(&self, pa: u64, bytes: &[u8]) -> Result<(), Unreadable> {
        let write = self.0.write.ok_or(Unreadable)?;
        // SAFETY: as in mmio_read; the bytes are ours.
        let status = unsafe { write(self.0.ctx, pa, bytes.as_ptr(), bytes.len()) };
        if status < 0 { Err(Unreadable) } else { Ok(()) }
    }

    fn alloc(&self, len: u64, align: u64) -> Result<u64, Refusal> {
        let alloc = self.0.alloc.ok_or_else(|| missing("alloc"))?;
        let (mut pa, mut why) = (0, Message::default());
        // SAFETY: as in mmio_read; both pointers are to our own.
        let status = unsafe { alloc(self.0.ctx, len, align, &mut pa, &mut why) };
        if status < 0 { Err(refusal(status, &why)) } else { Ok(pa) }
    }

    fn free(&self, pa: u64, len: u64) {
        if let Some(free) = self.0.free {
            // SAFETY: as in mmio_read.
            unsafe { free(self.0.ctx, pa, len) }
        }
    }

    fn issue(&self, commands: &[u64]) -> Result<(), Refusal> {
        let issue = self.0.issue.ok_or_else(|| missing("issue"))?;
        let mut why = Message::default();
        // SAFETY: as in mmio_read; the words and the text are ours.
        let status = unsafe { issue(self.0.ctx, commands.as_ptr(), commands.len(), &mut why) };
        if status < 0 { Err(refusal(status, &why)) } else { Ok(()) }
    }
}

fn missing(callback: &str) -> Refusal {
    Refusal::new(Refusal::EOPNOTSUPP, format!("the host offers no {callback}"))
}

fn refusal(status: i64, why: &Message) -> Refusal {
    Refusal::new(i32::try_from(-status).unwrap_or(Refusal::EIO), why.text())
}
