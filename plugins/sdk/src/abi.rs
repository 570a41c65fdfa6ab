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

use crate::{
    Answer, CacheStats, Classes, Configuration, DriverInfo, Effects, EntryKey, GuestFault, GuestMapping, GuestQueue,
    HostEvent, HostInvalidation, HwQueueRequest, Lookup, Message, Mode, QueueFault, Register, Request, Rewritten,
    ShadowRange, TranslationMode, VirtualInterface, Walked,
};
use std::ffi::{c_char, c_void};

mod callbacks;
pub use callbacks::*;

/// Version of the table's layout that cannot be read by a host of another major version.
pub const ABI_MAJOR: u32 = 2;
/// Counts the slots appended since [`ABI_MAJOR`] began.
pub const ABI_MINOR: u32 = 2;
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

/// The type of the symbol `viommu_plugin_entry`.
///
/// A part whose `*_create` is null is not offered; of a part that is offered every slot up to `model_reset` must be there.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PluginEntry {
    /// Bytes of this struct as the plugin knows it.
    pub size: u32,
    /// [`ABI_MAJOR`] the plugin was built with.
    pub abi_major: u32,
    /// [`ABI_MINOR`] the plugin was built with.
    pub abi_minor: u32,
    /// Code of the vendor's recordings.
    pub vendor: u32,
    /// The plugin's name.
    pub name: Text,
    /// The plugin's own version.
    pub version: Text,
    /// What the vendor calls a guest's stream ID.
    pub stream_name: Text,
    /// Words of 8 bytes a command, at most.
    pub command_words: u32,
    /// Words of a guest table entry.
    pub entry_words: u32,
    /// Words of an event record.
    pub event_words: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes of the register frame.
    pub frame_bytes: u64,

    /// `[any-thread]` A table beyond this one by its name with version, "viommu.hw-queue/1"; null if not offered.
    pub extension: Option<unsafe extern "C" fn(name: Text) -> *const c_void>,

    /// `[control-thread]` See [`crate::Vendor::frontend`]; a refusal is an errno with its text in `why`.
    pub frontend_create: Option<
        unsafe extern "C" fn(
            registers: *const Register,
            register_count: usize,
            instance: *mut *mut c_void,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[control-thread]` Frees the instance.
    pub frontend_destroy: Option<unsafe extern "C" fn(instance: *mut c_void) -> i64>,
    /// `[guest-thread]` See [`crate::Frontend::read`].
    pub frontend_read:
        Option<unsafe extern "C" fn(instance: *mut c_void, offset: u64, size: u32, value: *mut u64) -> i64>,
    /// `[guest-thread]` See [`crate::Frontend::write`].
    pub frontend_write: Option<
        unsafe extern "C" fn(instance: *mut c_void, offset: u64, size: u32, value: u64, effects: *mut Effects) -> i64,
    >,
    /// `[guest-thread]` See [`crate::Frontend::queue`].
    pub frontend_queue: Option<unsafe extern "C" fn(instance: *mut c_void, queue: *mut GuestQueue) -> i64>,
    /// `[guest-thread]` See [`crate::Frontend::advance`].
    pub frontend_advance: Option<unsafe extern "C" fn(instance: *mut c_void, commands: u32) -> i64>,
    /// `[guest-thread]` See [`crate::Frontend::fault`].
    pub frontend_fault:
        Option<unsafe extern "C" fn(instance: *mut c_void, fault: GuestFault, effects: *mut Effects) -> i64>,
    /// `[guest-thread]` See [`crate::Frontend::sync_done`].
    pub frontend_sync_done: Option<
        unsafe extern "C" fn(instance: *mut c_void, command: *const u64, words: usize, effects: *mut Effects) -> i64,
    >,
    /// `[guest-thread]` See [`crate::Frontend::event`].
    pub frontend_event: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            virt_id: u32,
            record: *const u64,
            words: usize,
            effects: *mut Effects,
        ) -> i64,
    >,
    /// `[guest-thread]` See [`crate::Frontend::event_lost`].
    pub frontend_event_lost: Option<unsafe extern "C" fn(instance: *mut c_void, effects: *mut Effects) -> i64>,
    /// `[guest-thread]` See [`crate::Frontend::mode`].
    pub frontend_mode: Option<unsafe extern "C" fn(instance: *mut c_void, mode: *mut Mode) -> i64>,
    /// `[control-thread]` See [`crate::Frontend::entry`].
    pub frontend_entry: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            memory: *const GuestMemoryCalls,
            virt_id: u32,
            entry: *mut u64,
            words: usize,
            lookup: *mut Lookup,
        ) -> i64,
    >,
    /// `[guest-thread]` See [`crate::Frontend::reset`].
    pub frontend_reset: Option<unsafe extern "C" fn(instance: *mut c_void) -> i64>,
    /// `[control-thread]` See [`crate::Frontend::register_name`].
    pub frontend_register_name:
        Option<unsafe extern "C" fn(instance: *mut c_void, offset: u64, name: *mut Text) -> i64>,
    /// `[control-thread]` See [`crate::Frontend::trouble`].
    pub frontend_trouble: Option<unsafe extern "C" fn(instance: *mut c_void, text: *mut Message) -> i64>,

    /// `[control-thread]` See [`crate::Vendor::codec`].
    pub codec_create: Option<
        unsafe extern "C" fn(
            registers: *const Register,
            register_count: usize,
            instance: *mut *mut c_void,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[control-thread]` Frees the instance.
    pub codec_destroy: Option<unsafe extern "C" fn(instance: *mut c_void) -> i64>,
    /// `[any-thread]` See [`crate::Codec::rewrite`]. Does not wait or allocate.
    pub codec_rewrite: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            guest: *const u64,
            guest_words: usize,
            before: Classes,
            ids: *const HostIdTable,
            out: *mut u64,
            out_words: usize,
            rewritten: *mut Rewritten,
        ) -> i64,
    >,
    /// `[any-thread]` See [`crate::Codec::configuration`].
    pub codec_configuration: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            command: *const u64,
            words: usize,
            scope: *mut Configuration,
        ) -> i64,
    >,
    /// `[any-thread]` See [`crate::Codec::entry_key`].
    pub codec_entry_key:
        Option<unsafe extern "C" fn(instance: *mut c_void, entry: *const u64, words: usize, key: *mut EntryKey) -> i64>,
    /// `[any-thread]` See [`crate::Codec::opcode`]; it is the value returned.
    pub codec_opcode: Option<unsafe extern "C" fn(instance: *mut c_void, command: *const u64, words: usize) -> i64>,
    /// `[any-thread]` See [`crate::Codec::opcode_name`].
    pub codec_opcode_name: Option<unsafe extern "C" fn(instance: *mut c_void, opcode: u8, name: *mut Text) -> i64>,
    /// `[any-thread]` See [`crate::Codec::describe`].
    pub codec_describe: Option<
        unsafe extern "C" fn(instance: *mut c_void, command: *const u64, words: usize, text: *mut Message) -> i64,
    >,

    /// `[control-thread]` See [`crate::Vendor::driver`]. `hardware` is copied; its `ctx` lives until destroy returns.
    pub driver_create: Option<
        unsafe extern "C" fn(hardware: *const HardwareCalls, instance: *mut *mut c_void, why: *mut Message) -> i64,
    >,
    /// `[control-thread]` Frees the instance.
    pub driver_destroy: Option<unsafe extern "C" fn(instance: *mut c_void) -> i64>,
    /// `[control-thread]` See [`crate::Driver::info`].
    pub driver_info: Option<unsafe extern "C" fn(instance: *mut c_void, info: *mut DriverInfo) -> i64>,
    /// `[control-thread]` See [`crate::Driver::guest_registers`]: writes the first `room`, returns how many there are.
    pub driver_guest_registers: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            mode: TranslationMode,
            registers: *mut Register,
            room: usize,
        ) -> i64,
    >,
    /// `[control-thread]` See [`crate::Driver::stage2_create`].
    pub driver_stage2_create:
        Option<unsafe extern "C" fn(instance: *mut c_void, tag: u32, stage2: *mut u32, why: *mut Message) -> i64>,
    /// `[control-thread & attached]` See [`crate::Driver::stage2_map`].
    pub driver_stage2_map: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            stage2: u32,
            ipa: u64,
            pa: u64,
            len: u64,
            access: u32,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[control-thread & attached]` See [`crate::Driver::stage2_unmap`].
    pub driver_stage2_unmap:
        Option<unsafe extern "C" fn(instance: *mut c_void, stage2: u32, ipa: u64, len: u64, why: *mut Message) -> i64>,
    /// `[control-thread & attached]` See [`crate::Driver::stage2_destroy`].
    pub driver_stage2_destroy: Option<unsafe extern "C" fn(instance: *mut c_void, stage2: u32) -> i64>,
    /// `[control-thread & attached]` See [`crate::Driver::attach`].
    pub driver_attach: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            stream: u32,
            stage2: u32,
            tag: u32,
            key: *const EntryKey,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[control-thread]` See [`crate::Driver::detach`].
    pub driver_detach: Option<unsafe extern "C" fn(instance: *mut c_void, stream: u32, why: *mut Message) -> i64>,
    /// `[guest-thread]` See [`crate::Driver::encode`]; the words written are the value returned.
    pub driver_encode: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            what: *const HostInvalidation,
            out: *mut u64,
            out_words: usize,
        ) -> i64,
    >,
    /// `[guest-thread]` See [`crate::Driver::queue_fault`]: 1 if it stopped, else 0.
    pub driver_queue_fault: Option<unsafe extern "C" fn(instance: *mut c_void, fault: *mut QueueFault) -> i64>,
    /// `[guest-thread]` See [`crate::Driver::queue_resume`].
    pub driver_queue_resume: Option<unsafe extern "C" fn(instance: *mut c_void) -> i64>,
    /// `[control-thread]` See [`crate::Driver::event`]: 1 if there was one, else 0.
    pub driver_event: Option<unsafe extern "C" fn(instance: *mut c_void, event: *mut HostEvent) -> i64>,

    /// `[control-thread]` See [`crate::Vendor::model`]. `host` is copied; its `ctx` lives until destroy returns.
    pub model_create: Option<
        unsafe extern "C" fn(
            host: *const ModelHostCalls,
            setup: *const ModelSetup,
            instance: *mut *mut c_void,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[control-thread]` Frees the instance.
    pub model_destroy: Option<unsafe extern "C" fn(instance: *mut c_void) -> i64>,
    /// `[model-thread]` See [`crate::Model::mmio_read`].
    pub model_mmio_read:
        Option<unsafe extern "C" fn(instance: *mut c_void, offset: u64, size: u32, value: *mut u64) -> i64>,
    /// `[model-thread]` See [`crate::Model::mmio_write`].
    pub model_mmio_write:
        Option<unsafe extern "C" fn(instance: *mut c_void, offset: u64, size: u32, value: u64) -> i64>,
    /// `[model-thread]` See [`crate::Model::step`]; the commands consumed are the value returned.
    pub model_step: Option<unsafe extern "C" fn(instance: *mut c_void, budget: u32) -> i64>,
    /// `[model-thread]` See [`crate::Model::translate`]; the requests answered are the value returned.
    pub model_translate: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            requests: *const Request,
            request_count: usize,
            answers: *mut Answer,
            answer_room: usize,
        ) -> i64,
    >,
    /// `[model-thread]` See [`crate::Model::explain`].
    pub model_explain:
        Option<unsafe extern "C" fn(instance: *mut c_void, request: *const Request, text: *mut Message) -> i64>,
    /// `[model-thread]` See [`crate::Model::stats`].
    pub model_stats: Option<unsafe extern "C" fn(instance: *mut c_void, stats: *mut CacheStats) -> i64>,
    /// `[model-thread]` See [`crate::Model::atc_unresponsive`]; `unresponsive` is 0 or 1.
    pub model_atc_unresponsive:
        Option<unsafe extern "C" fn(instance: *mut c_void, stream: u32, unresponsive: u32) -> i64>,
    /// `[model-thread]` See [`crate::Model::reset`].
    pub model_reset: Option<unsafe extern "C" fn(instance: *mut c_void) -> i64>,

    /// `[control-thread]` See [`crate::Frontend::save`]: writes the first `room` bytes, returns how many there are. Null,
    /// as the two after it, if guests of this plugin cannot be moved.
    pub frontend_save: Option<unsafe extern "C" fn(instance: *mut c_void, bytes: *mut u8, room: usize) -> i64>,
    /// `[control-thread]` See [`crate::Frontend::restore`].
    pub frontend_restore:
        Option<unsafe extern "C" fn(instance: *mut c_void, bytes: *const u8, len: usize, why: *mut Message) -> i64>,
    /// `[any-thread]` See [`crate::Vendor::covers`]. Needs no instance.
    pub frontend_covers: Option<
        unsafe extern "C" fn(
            offered: *const Register,
            offered_count: usize,
            shown: *const Register,
            shown_count: usize,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[control-thread]` See [`crate::Frontend::watched`]; the pages written are the value returned. Null: none.
    pub frontend_watched: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            memory: *const GuestMemoryCalls,
            streams: *const u32,
            stream_count: usize,
            from: u32,
            pages: *mut u64,
            room: usize,
        ) -> i64,
    >,
    /// `[any-thread]` See [`crate::Codec::mode`]; it is the value returned. Null: nested.
    pub codec_mode: Option<unsafe extern "C" fn(instance: *mut c_void) -> i64>,
    /// `[any-thread]` See [`crate::Codec::shadow_range`]. Null, as the next, if no guest is served in shadow mode.
    pub codec_shadow_range: Option<
        unsafe extern "C" fn(instance: *mut c_void, command: *const u64, words: usize, range: *mut ShadowRange) -> i64,
    >,
    /// `[any-thread]` See [`crate::Codec::walk`].
    pub codec_walk: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            key: *const EntryKey,
            memory: *const GuestMemoryCalls,
            first: u64,
            last: u64,
            mappings: *mut GuestMapping,
            room: usize,
            walked: *mut Walked,
        ) -> i64,
    >,
    /// `[guest-thread]` See [`crate::Frontend::hw_queues`]: writes the first `room`, returns how many there are. From ABI
    /// 2.1 on, as all after it; null: none.
    pub frontend_hw_queues:
        Option<unsafe extern "C" fn(instance: *mut c_void, queues: *mut HwQueueRequest, room: usize) -> i64>,
    /// `[control-thread]` See [`crate::Driver::interrupt`].
    pub driver_interrupt: Option<unsafe extern "C" fn(instance: *mut c_void, line: u32) -> i64>,
    /// `[control-thread & attached]` See [`crate::Driver::interface_create`]. Null, as the six after it, if there are no
    /// virtual interfaces.
    pub driver_interface_create: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            stage2: u32,
            interface: *mut VirtualInterface,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[control-thread]` See [`crate::Driver::interface_destroy`].
    pub driver_interface_destroy:
        Option<unsafe extern "C" fn(instance: *mut c_void, interface: u32, why: *mut Message) -> i64>,
    /// `[control-thread]` See [`crate::Driver::interface_stream_set`].
    pub driver_interface_stream_set: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            interface: u32,
            virt_id: u32,
            stream: u32,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[control-thread]` See [`crate::Driver::interface_stream_clear`].
    pub driver_interface_stream_clear:
        Option<unsafe extern "C" fn(instance: *mut c_void, interface: u32, virt_id: u32, why: *mut Message) -> i64>,
    /// `[control-thread]` See [`crate::Driver::interface_domain_set`]. Null, as the next: guests' commands name no domains.
    pub driver_interface_domain_set: Option<
        unsafe extern "C" fn(instance: *mut c_void, interface: u32, domain: u32, tag: u32, why: *mut Message) -> i64,
    >,
    /// `[control-thread]` See [`crate::Driver::interface_domain_clear`].
    pub driver_interface_domain_clear:
        Option<unsafe extern "C" fn(instance: *mut c_void, interface: u32, domain: u32, why: *mut Message) -> i64>,
    /// `[control-thread]` See [`crate::Driver::hw_queue_create`].
    pub driver_hw_queue_create: Option<
        unsafe extern "C" fn(
            instance: *mut c_void,
            interface: u32,
            queue: *const HwQueueRequest,
            pa: u64,
            handle: *mut u32,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[control-thread]` See [`crate::Driver::hw_queue_destroy`].
    pub driver_hw_queue_destroy:
        Option<unsafe extern "C" fn(instance: *mut c_void, queue: u32, why: *mut Message) -> i64>,
    /// `[any-thread]` See [`crate::Codec::traits`]; it is the value returned. From ABI 2.2 on; null:
    /// [`crate::GuestTraits::INTERFACE`].
    pub codec_traits: Option<unsafe extern "C" fn(instance: *mut c_void) -> i64>,
}

impl PluginEntry {
    /// The exported symbol's name.
    pub const SYMBOL: &'static str = "viommu_plugin_entry";
    /// Size of the shortest table of this major version: a shorter one is refused. Does not change when slots are
    /// appended.
    pub const SIZE_MIN: u32 =
        (std::mem::offset_of!(PluginEntry, model_reset) + size_of::<Option<extern "C" fn()>>()) as u32;
}
