//! The garbage table: sizes, versions, facts and slots as the input says, and functions that answer from the input.
//!
//! UNSAFETY: the plugin's side of the C boundary. Every function writes garbage where the contract lets it write, and
//! nowhere else.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use viommu_plugin::abi::{GuestMemoryCalls, HardwareCalls, HostIdTable, ModelHostCalls, ModelSetup, PluginEntry, Text};
use viommu_plugin::*;
use viommu_plugin_host::{LoadError, Plugin};

/// Bytes of input that shape the table.
pub const SHAPE: usize = 32;

thread_local! {
    static ANSWERS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static AT: Cell<usize> = const { Cell::new(0) };
}

/// Answers come from `bytes` from now on; when they are used up, from the first again.
pub fn give(bytes: &[u8]) {
    ANSWERS.with_borrow_mut(|answers| {
        answers.clear();
        answers.extend(bytes);
    });
    AT.set(0);
}

fn byte() -> u8 {
    ANSWERS.with_borrow(|answers| {
        let at = AT.get();
        AT.set(at + 1);
        if answers.is_empty() { 0 } else { answers[at % answers.len()] }
    })
}

/// What a slot returns: mostly success, else a small count, an errno, or any number.
fn answer() -> i64 {
    match byte() {
        0..=159 => 0,
        160..=199 => i64::from(byte() % 16),
        200..=219 => -i64::from(byte()),
        220..=229 => i64::from(byte()) << 4,
        230..=239 => [i64::MIN, i64::MAX, -4095, -4096, 1 << 32, abi::PANICKED, abi::DEAD, -1][usize::from(byte() % 8)],
        _ => i64::from_le_bytes([(); 8].map(|()| byte())),
    }
}

/// Values of what is lent: mostly small, so that some of them make sense.
fn scribble<T>(to: *mut T, count: usize) {
    let bytes = count * size_of::<T>();
    if byte() < 64 || bytes == 0 {
        return;
    }
    let dense = byte() < 64;
    for at in 0..bytes {
        let value = if dense || at % 4 == 0 { byte() } else { 0 };
        // SAFETY: the host lends `count` values; all of them are plain numbers, for which any bytes will do.
        unsafe { to.cast::<u8>().add(at).write(value) };
    }
}

/// Texts that live for ever, right and wrong; the last is longer than a host takes and need not be there.
fn text(which: u8) -> Text {
    const WRONG: &[u8] = b"\xff\xfe not UTF-8";
    const LONG: &str =
        "looooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooooong";
    match which % 8 {
        0..=2 => Text::of("garbage"),
        3 => Text::NONE,
        4 => Text::of(""),
        5 => Text { bytes: WRONG.as_ptr().cast(), len: WRONG.len() },
        6 => Text::of(LONG),
        _ => Text { len: usize::MAX, ..Text::of("beyond") },
    }
}

fn name(to: *mut Text) {
    // SAFETY: the host lends one text.
    unsafe { to.write(text(byte())) };
}

/// Something to point at.
static INSTANCE: u8 = 0;

fn instance(to: *mut *mut c_void) {
    if byte() < 224 {
        // SAFETY: the host lends room for one pointer; it only hands this one back.
        unsafe { to.write((&raw const INSTANCE).cast_mut().cast()) };
    }
}

/// Functions that scribble over what is lent and answer anything.
macro_rules! slots {
    ($($slot:ident($($arg:ident: $type:ty),*) $body:block)*) => {$(
        unsafe extern "C" fn $slot($($arg: $type),*) -> i64 {
            $body
            answer()
        }
    )*
        /// A table with these slots, of which those whose bit is set in `gone` are missing.
        fn with_slots(mut entry: PluginEntry, gone: &dyn Fn(usize) -> bool) -> (PluginEntry, Vec<&'static str>) {
            let (mut number, mut missing) = (0, Vec::new());
            $(
                entry.$slot = Some($slot);
                if gone(number) {
                    entry.$slot = None;
                    missing.push(stringify!($slot));
                }
                number += 1;
            )*
            let _ = number;
            (entry, missing)
        }
    };
}

type This = *mut c_void;

slots! {
    frontend_create(_registers: *const Register, _count: usize, to: *mut This, why: *mut Message) { instance(to); scribble(why, 1); }
    frontend_destroy(_this: This) {}
    frontend_read(_this: This, _offset: u64, _size: u32, value: *mut u64) { scribble(value, 1); }
    frontend_write(_this: This, _offset: u64, _size: u32, _value: u64, effects: *mut Effects) { scribble(effects, 1); }
    frontend_queue(_this: This, queue: *mut GuestQueue) { scribble(queue, 1); }
    frontend_advance(_this: This, _commands: u32) {}
    frontend_fault(_this: This, _fault: GuestFault, effects: *mut Effects) { scribble(effects, 1); }
    frontend_sync_done(_this: This, _command: *const u64, _words: usize, effects: *mut Effects) { scribble(effects, 1); }
    frontend_event(_this: This, _id: u32, _record: *const u64, _words: usize, effects: *mut Effects) { scribble(effects, 1); }
    frontend_event_lost(_this: This, effects: *mut Effects) { scribble(effects, 1); }
    frontend_mode(_this: This, mode: *mut Mode) { scribble(mode, 1); }
    frontend_entry(_this: This, _memory: *const GuestMemoryCalls, _id: u32, entry: *mut u64, words: usize, found: *mut Lookup) {
        scribble(entry, words);
        scribble(found, 1);
    }
    frontend_reset(_this: This) {}
    frontend_register_name(_this: This, _offset: u64, to: *mut Text) { name(to); }
    frontend_trouble(_this: This, why: *mut Message) { scribble(why, 1); }
    codec_create(_registers: *const Register, _count: usize, to: *mut This, why: *mut Message) { instance(to); scribble(why, 1); }
    codec_destroy(_this: This) {}
    codec_rewrite(_this: This, _guest: *const u64, _words: usize, _before: Classes, _ids: *const HostIdTable, out: *mut u64, room: usize, done: *mut Rewritten) {
        scribble(out, room);
        scribble(done, 1);
    }
    codec_configuration(_this: This, _command: *const u64, _words: usize, scope: *mut Configuration) { scribble(scope, 1); }
    codec_entry_key(_this: This, _entry: *const u64, _words: usize, key: *mut EntryKey) { scribble(key, 1); }
    codec_opcode(_this: This, _command: *const u64, _words: usize) {}
    codec_opcode_name(_this: This, _opcode: u8, to: *mut Text) { name(to); }
    codec_describe(_this: This, _command: *const u64, _words: usize, text: *mut Message) { scribble(text, 1); }
    driver_create(_hardware: *const HardwareCalls, to: *mut This, why: *mut Message) { instance(to); scribble(why, 1); }
    driver_destroy(_this: This) {}
    driver_info(_this: This, info: *mut DriverInfo) { scribble(info, 1); }
    driver_guest_registers(_this: This, _mode: TranslationMode, registers: *mut Register, room: usize) { scribble(registers, room); }
    driver_stage2_create(_this: This, _tag: u32, handle: *mut u32, why: *mut Message) { scribble(handle, 1); scribble(why, 1); }
    driver_stage2_map(_this: This, _handle: u32, _ipa: u64, _pa: u64, _len: u64, _access: u32, why: *mut Message) { scribble(why, 1); }
    driver_stage2_unmap(_this: This, _handle: u32, _ipa: u64, _len: u64, why: *mut Message) { scribble(why, 1); }
    driver_stage2_destroy(_this: This, _handle: u32) {}
    driver_attach(_this: This, _stream: u32, _handle: u32, _tag: u32, _key: *const EntryKey, why: *mut Message) { scribble(why, 1); }
    driver_detach(_this: This, _stream: u32, why: *mut Message) { scribble(why, 1); }
    driver_encode(_this: This, _what: *const HostInvalidation, out: *mut u64, room: usize) { scribble(out, room); }
    driver_queue_fault(_this: This, fault: *mut QueueFault) { scribble(fault, 1); }
    driver_queue_resume(_this: This) {}
    driver_event(_this: This, event: *mut HostEvent) { scribble(event, 1); }
    model_create(_host: *const ModelHostCalls, _setup: *const ModelSetup, to: *mut This, why: *mut Message) { instance(to); scribble(why, 1); }
    model_destroy(_this: This) {}
    model_mmio_read(_this: This, _offset: u64, _size: u32, value: *mut u64) { scribble(value, 1); }
    model_mmio_write(_this: This, _offset: u64, _size: u32, _value: u64) {}
    model_step(_this: This, _budget: u32) {}
    model_translate(_this: This, _requests: *const Request, _count: usize, answers: *mut Answer, room: usize) { scribble(answers, room); }
    model_explain(_this: This, _request: *const Request, text: *mut Message) { scribble(text, 1); }
    model_stats(_this: This, stats: *mut CacheStats) { scribble(stats, 1); }
    model_atc_unresponsive(_this: This, _stream: u32, _unresponsive: u32) {}
    model_reset(_this: This) {}
    frontend_save(_this: This, bytes: *mut u8, room: usize) { scribble(bytes, room); }
    frontend_restore(_this: This, _bytes: *const u8, _len: usize, why: *mut Message) { scribble(why, 1); }
    frontend_covers(_offered: *const Register, _offered_count: usize, _shown: *const Register, _shown_count: usize, why: *mut Message) { scribble(why, 1); }
    frontend_watched(_this: This, _memory: *const GuestMemoryCalls, _streams: *const u32, _count: usize, _from: u32, pages: *mut u64, room: usize) { scribble(pages, room); }
    frontend_hw_queues(_this: This, queues: *mut HwQueueRequest, room: usize) { scribble(queues, room); }
    codec_mode(_this: This) {}
    codec_traits(_this: This) {}
    codec_shadow_range(_this: This, _command: *const u64, _words: usize, range: *mut ShadowRange) { scribble(range, 1); }
    codec_walk(_this: This, _key: *const EntryKey, _memory: *const GuestMemoryCalls, _first: u64, _last: u64, leaves: *mut GuestMapping, room: usize, walked: *mut Walked) {
        scribble(leaves, room);
        scribble(walked, 1);
    }
    driver_interrupt(_this: This, _line: u32) {}
    driver_interface_create(_this: This, _stage2: u32, interface: *mut VirtualInterface, why: *mut Message) { scribble(interface, 1); scribble(why, 1); }
    driver_interface_destroy(_this: This, _interface: u32, why: *mut Message) { scribble(why, 1); }
    driver_interface_stream_set(_this: This, _interface: u32, _virt_id: u32, _stream: u32, why: *mut Message) { scribble(why, 1); }
    driver_interface_stream_clear(_this: This, _interface: u32, _virt_id: u32, why: *mut Message) { scribble(why, 1); }
    driver_interface_domain_set(_this: This, _interface: u32, _domain: u32, _tag: u32, why: *mut Message) { scribble(why, 1); }
    driver_interface_domain_clear(_this: This, _interface: u32, _domain: u32, why: *mut Message) { scribble(why, 1); }
    driver_hw_queue_create(_this: This, _interface: u32, _queue: *const HwQueueRequest, _pa: u64, handle: *mut u32, why: *mut Message) { scribble(handle, 1); scribble(why, 1); }
    driver_hw_queue_destroy(_this: This, _queue: u32, why: *mut Message) { scribble(why, 1); }
}

/// A table in as many bytes as it says it has, so that a read beyond them is seen.
pub struct Garbage {
    bytes: Vec<u8>,
    missing: Vec<&'static str>,
}

impl Garbage {
    /// Size, major, minor, facts and missing slots from 32 bytes. All zeros is a table that is right.
    pub fn new(shape: &[u8; SHAPE]) -> Self {
        let right = size_of::<PluginEntry>() as u32;
        let size = match shape[0] {
            0..=127 => right,
            128..=191 => PluginEntry::SIZE_MIN - 16 + u32::from(shape[1]),
            192..=223 => right + u32::from(shape[1]),
            _ => u32::from_le_bytes([shape[1], shape[2], shape[3], shape[4]]),
        };
        let count = |at: usize, right: u32| match shape[at] {
            0..=191 => right,
            other => u32::from_le_bytes([other - 192, shape[at + 1] & 3, 0, shape[at + 1] & 0x80]),
        };
        let entry = PluginEntry {
            size,
            abi_major: if shape[5] < 224 { abi::ABI_MAJOR } else { u32::from(shape[5]) - 224 },
            abi_minor: shape[6].into(),
            vendor: shape[7].into(),
            name: text(shape[8] / 32),
            version: text(shape[9] / 32),
            stream_name: text(shape[10] / 32),
            command_words: count(11, 2),
            entry_words: count(13, 8),
            event_words: count(15, 4),
            reserved: 0,
            frame_bytes: if shape[17] < 192 { 0x2_0000 } else { u64::from(shape[18]) << (shape[17] - 192) },
            // SAFETY: a table in which every slot is null, which is valid; those that count are set below.
            ..unsafe { std::mem::zeroed() }
        };
        let gone = |number: usize| shape[20 + number / 8] >> (number % 8) & 1 != 0;
        let (entry, missing) = with_slots(entry, &gone);
        // The table ends where it says, or where the host cannot know more of it.
        let there = (size as usize).clamp(8, size_of::<PluginEntry>() + 64);
        let mut bytes = vec![0xa5; there];
        let known = there.min(size_of::<PluginEntry>());
        // SAFETY: both have `known` bytes; padding there is none.
        unsafe { std::ptr::copy_nonoverlapping((&raw const entry).cast::<u8>(), bytes.as_mut_ptr(), known) };
        Self { bytes, missing }
    }

    /// The host's view of it.
    pub fn plugin(&self) -> Result<Plugin, LoadError> {
        // SAFETY: as many bytes as it says, with functions that keep to the contract on memory; texts are static, but
        // for those that are too long to be taken.
        unsafe { Plugin::at(self.bytes.as_ptr().cast()) }
    }

    /// Whether every part in `parts` has all the slots that it must have.
    pub fn complete(&self, parts: &[&str]) -> bool {
        const LATER: &[&str] = &[
            "frontend_save",
            "frontend_restore",
            "frontend_covers",
            "frontend_watched",
            "frontend_hw_queues",
            "codec_mode",
            "codec_traits",
            "codec_shadow_range",
            "codec_walk",
            "driver_interrupt",
            "driver_interface_create",
            "driver_interface_destroy",
            "driver_interface_stream_set",
            "driver_interface_stream_clear",
            "driver_interface_domain_set",
            "driver_interface_domain_clear",
            "driver_hw_queue_create",
            "driver_hw_queue_destroy",
            "kernel_facts",
            "kernel_registers",
            "kernel_hwpt_data",
            "kernel_entries",
            "kernel_repeatable",
            "kernel_event",
            "kernel_interface",
        ];
        self.missing
            .iter()
            .filter(|slot| !LATER.contains(slot))
            .all(|slot| !parts.iter().any(|part| slot.starts_with(part)))
    }
}
