//! Shims of [`crate::Codec`].

use super::{lent, lent_mut};
use crate::abi::{HostIdTable, Text};
use crate::{Classes, Configuration, EntryKey, HostIds, Message, Register, Rewritten, Vendor};
use std::ffi::c_void;

pub(super) unsafe extern "C" fn create<V: Vendor>(
    registers: *const Register,
    register_count: usize,
    instance: *mut *mut c_void,
    why: *mut Message,
) -> i64 {
    // SAFETY: the host promises what abi.rs documents for this slot; see the head of export.rs.
    unsafe { super::create(instance, why, || V::codec(lent(registers, register_count))) }
}

shims! { Codec:
    shared fn rewrite(
        guest: *const u64,
        guest_words: usize,
        before: Classes,
        ids: *const HostIdTable,
        out: *mut u64,
        out_words: usize,
        rewritten: *mut Rewritten
    ) |this| {
        let ids = HostIds { tag: (*ids).tag, streams: lent((*ids).streams, (*ids).stream_count) };
        rewritten.write(this.rewrite(lent(guest, guest_words), before, ids, lent_mut(out, out_words)));
        0
    };
    shared fn configuration(command: *const u64, words: usize, scope: *mut Configuration) |this| {
        scope.write(this.configuration(lent(command, words)));
        0
    };
    shared fn entry_key(entry: *const u64, words: usize, key: *mut EntryKey) |this| {
        key.write(this.entry_key(lent(entry, words)));
        0
    };
    shared fn opcode(command: *const u64, words: usize) |this| i64::from(this.opcode(lent(command, words)));
    shared fn opcode_name(opcode: u8, name: *mut Text) |this| {
        name.write(this.opcode_name(opcode).map_or(Text::NONE, Text::of));
        0
    };
    shared fn describe(command: *const u64, words: usize, text: *mut Message) |this| {
        this.describe(lent(command, words), &mut *text);
        0
    };
}
