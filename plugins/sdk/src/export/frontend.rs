//! Shims of [`crate::Frontend`].

use super::{done, lent, lent_mut};
use crate::abi::{GuestMemoryCalls, Text};
use crate::{
    Effects, GuestFault, GuestMemory, GuestQueue, HwQueueRequest, Lookup, Message, Mode, Register, Unreadable, Vendor,
};
use std::ffi::c_void;

pub(super) unsafe extern "C" fn create<V: Vendor>(
    registers: *const Register,
    register_count: usize,
    instance: *mut *mut c_void,
    why: *mut Message,
) -> i64 {
    // SAFETY: the host promises what abi.rs documents for this slot; see the head of export.rs.
    unsafe { super::create(instance, why, || V::frontend(lent(registers, register_count))) }
}

pub(super) unsafe extern "C" fn covers<V: Vendor>(
    offered: *const Register,
    offered_count: usize,
    shown: *const Register,
    shown_count: usize,
    why: *mut Message,
) -> i64 {
    // SAFETY: as above.
    unsafe { super::ask(why, || V::covers(lent(offered, offered_count), lent(shown, shown_count))) }
}

shims! { Frontend:
    shared fn read(offset: u64, size: u32, value: *mut u64) |this| {
        value.write(this.read(offset, size));
        0
    };
    exclusive fn write(offset: u64, size: u32, value: u64, effects: *mut Effects) |this| {
        effects.write(this.write(offset, size, value));
        0
    };
    shared fn queue(queue: *mut GuestQueue) |this| {
        queue.write(this.queue());
        0
    };
    exclusive fn advance(commands: u32) |this| {
        this.advance(commands);
        0
    };
    exclusive fn fault(fault: GuestFault, effects: *mut Effects) |this| {
        effects.write(this.fault(fault));
        0
    };
    exclusive fn sync_done(command: *const u64, words: usize, effects: *mut Effects) |this| {
        effects.write(this.sync_done(lent(command, words)));
        0
    };
    exclusive fn event(virt_id: u32, record: *const u64, words: usize, effects: *mut Effects) |this| {
        effects.write(this.event(virt_id, lent(record, words)));
        0
    };
    exclusive fn event_lost(effects: *mut Effects) |this| {
        effects.write(this.event_lost());
        0
    };
    shared fn mode(mode: *mut Mode) |this| {
        mode.write(this.mode());
        0
    };
    shared fn entry(
        memory: *const GuestMemoryCalls,
        virt_id: u32,
        entry: *mut u64,
        words: usize,
        lookup: *mut Lookup
    ) |this| {
        let memory = LentMemory(super::copy_table(memory));
        lookup.write(this.entry(&memory, virt_id, lent_mut(entry, words)));
        0
    };
    shared fn watched(
        memory: *const GuestMemoryCalls,
        streams: *const u32,
        stream_count: usize,
        from: u32,
        pages: *mut u64,
        room: usize
    ) |this| {
        let memory = LentMemory(super::copy_table(memory));
        i64::from(this.watched(&memory, lent(streams, stream_count), from, lent_mut(pages, room)))
    };
    exclusive fn reset() |this| {
        this.reset();
        0
    };
    shared fn register_name(offset: u64, name: *mut Text) |this| {
        name.write(this.register_name(offset).map_or(Text::NONE, Text::of));
        0
    };
    shared fn trouble(text: *mut Message) |this| {
        this.trouble(&mut *text);
        0
    };
    shared fn save(bytes: *mut u8, room: usize) |this| {
        let all = this.save();
        let fits = all.len().min(room);
        lent_mut(bytes, room)[..fits].copy_from_slice(&all[..fits]);
        all.len() as i64
    };
    exclusive fn restore(bytes: *const u8, len: usize, why: *mut Message) |this| {
        done(why, this.restore(lent(bytes, len)))
    };
    shared fn hw_queues(queues: *mut HwQueueRequest, room: usize) |this| {
        this.hw_queues(lent_mut(queues, room)) as i64
    };
}

/// Guest memory, lent for one call.
pub(super) struct LentMemory(pub(super) GuestMemoryCalls);

impl GuestMemory for LentMemory {
    fn read(&self, gpa: u64, bytes: &mut [u8]) -> Result<(), Unreadable> {
        let read = self.0.read.ok_or(Unreadable)?;
        // SAFETY: the table is lent for the call we are in, the bytes are ours.
        let status = unsafe { read(self.0.ctx, gpa, bytes.as_mut_ptr(), bytes.len()) };
        if status < 0 { Err(Unreadable) } else { Ok(()) }
    }
}
