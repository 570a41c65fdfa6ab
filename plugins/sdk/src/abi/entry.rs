//! The slot table itself.

use super::{GuestMemoryCalls, HardwareCalls, HostIdTable, ModelHostCalls, ModelSetup, Text};
use crate::{
    Answer, CacheStats, Classes, Configuration, DriverInfo, Effects, EntryKey, GuestFault, GuestMapping, GuestQueue,
    HostEvent, HostInvalidation, HwQueueRequest, KernelEntries, KernelEvent, KernelFacts, Lookup, Message, Mode,
    QueueFault, Register, Request, Rewritten, ShadowRange, TranslationMode, VirtualInterface, Walked,
};
use std::ffi::c_void;

/// The type of the symbol `viommu_plugin_entry`.
///
/// A part whose `*_create` is null is not offered; of a part that is offered every slot up to `model_reset` must be there.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct PluginEntry {
    /// Bytes of this struct as the plugin knows it.
    pub size: u32,
    /// [`super::ABI_MAJOR`] the plugin was built with.
    pub abi_major: u32,
    /// [`super::ABI_MINOR`] the plugin was built with.
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

    /// `[any-thread]` See [`crate::KernelAbi::facts`]. From ABI 2.3 on, as all after it. None of these needs an instance; null,
    /// as the six after it, if this vendor's guests cannot be served on `/dev/iommu`.
    pub kernel_facts: Option<unsafe extern "C" fn(facts: *mut KernelFacts) -> i64>,
    /// `[any-thread]` See [`crate::KernelAbi::registers`]: writes the first `room`, returns how many there are.
    pub kernel_registers: Option<
        unsafe extern "C" fn(
            hw_info: *const u8,
            len: usize,
            capabilities: u64,
            mode: TranslationMode,
            registers: *mut Register,
            room: usize,
            why: *mut Message,
        ) -> i64,
    >,
    /// `[any-thread]` See [`crate::KernelAbi::hwpt_data`]; the bytes written are the value returned.
    pub kernel_hwpt_data: Option<unsafe extern "C" fn(key: *const EntryKey, data: *mut u8, room: usize) -> i64>,
    /// `[any-thread]` See [`crate::KernelAbi::entries`].
    pub kernel_entries: Option<
        unsafe extern "C" fn(
            commands: *const u64,
            words: usize,
            entries: *mut u8,
            room: usize,
            answer: *mut KernelEntries,
        ) -> i64,
    >,
    /// `[any-thread]` See [`crate::KernelAbi::repeatable`]: 1 or 0.
    pub kernel_repeatable: Option<unsafe extern "C" fn(command: *const u64, words: usize) -> i64>,
    /// `[any-thread]` See [`crate::KernelAbi::event`]: 1 if it is one, else 0.
    pub kernel_event:
        Option<unsafe extern "C" fn(veventq_type: u32, payload: *const u8, len: usize, event: *mut KernelEvent) -> i64>,
    /// `[any-thread]` See [`crate::KernelAbi::interface`]: 1 if there is one, else 0.
    pub kernel_interface:
        Option<unsafe extern "C" fn(viommu_data: *const u8, len: usize, interface: *mut VirtualInterface) -> i64>,
    /// `[any-thread]` See [`crate::KernelAbi::forget`]; the words written are the value returned. Null: none.
    pub kernel_forget:
        Option<unsafe extern "C" fn(what: *const HostInvalidation, commands: *mut u64, room: usize) -> i64>,
}

impl PluginEntry {
    /// The exported symbol's name.
    pub const SYMBOL: &'static str = "viommu_plugin_entry";
    /// Size of the shortest table of this major version: a shorter one is refused. Does not change when slots are
    /// appended.
    pub const SIZE_MIN: u32 =
        (std::mem::offset_of!(PluginEntry, model_reset) + size_of::<Option<extern "C" fn()>>()) as u32;
}
