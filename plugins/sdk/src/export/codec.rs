//! Shims of [`crate::Codec`].

use super::frontend::LentMemory;
use super::{lent, lent_mut};
use crate::abi::{GuestMemoryCalls, HostIdTable, Text};
use crate::{Classes, Configuration, EntryKey, GuestMapping, HostIds, Message, Register, Rewritten, ShadowRange};
use crate::{Vendor, Walked};
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
        let HostIdTable { streams, stream_count, domains, domain_count, tag, .. } = *ids;
        let ids = HostIds { tag, streams: lent(streams, stream_count), domains: lent(domains, domain_count) };
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
    shared fn mode() |this| i64::from(this.mode().0);
    shared fn traits() |this| i64::from(this.traits().0);
    shared fn shadow_range(command: *const u64, words: usize, range: *mut ShadowRange) |this| {
        range.write(this.shadow_range(lent(command, words)));
        0
    };
    shared fn walk(
        key: *const EntryKey,
        memory: *const GuestMemoryCalls,
        first: u64,
        last: u64,
        mappings: *mut GuestMapping,
        room: usize,
        walked: *mut Walked
    ) |this| {
        let memory = LentMemory(super::copy_table(memory));
        walked.write(this.walk(&*key, &memory, first, last, lent_mut(mappings, room)));
        0
    };
}
