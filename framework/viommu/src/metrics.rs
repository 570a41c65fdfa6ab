//! Every metric: name, labels, help text. Labels are closed sets; never a stream ID or an address.
//!
//! The library only uses the `metrics` facade and installs no recorder: the program that embeds it does, before it
//! builds a host. Handles are resolved once, when a shard or a guest is made.

use crate::pipeline::ShardCounts;
use crate::seams::lock;
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use viommu_plugin::{GuestFault, TranslationMode};

/// Guest doorbells that found commands. Labels `vendor`, `mode`.
pub const DOORBELLS: &str = "viommu_doorbells_total";
/// Guest commands rewritten for the hardware queue. Labels `vendor`, `mode` (nested, shadow), `class` (tlb, config, atc).
pub const COMMANDS: &str = "viommu_commands_total";
/// Guest commands for streams without a device, completed without hardware. Labels `vendor`, `mode`.
pub const LOCAL_STREAM: &str = "viommu_local_stream_total";
/// Guest commands for domains without a nested HWPT, completed without hardware. Labels `vendor`, `mode`.
pub const LOCAL_DOMAIN: &str = "viommu_local_domain_total";
/// Leaves of guests' page tables put into shadow tables or taken out of them. Labels `vendor`, `change` (put_in, taken_out).
pub const SHADOW_LEAVES: &str = "viommu_shadow_leaves_total";
/// Guest SYNCs completed. Labels `vendor`, `mode`.
pub const GUEST_SYNCS: &str = "viommu_guest_syncs_total";
/// What guests did wrong. Labels `vendor`, `mode`, `fault` (names of `GuestFault`).
pub const GUEST_FAULTS: &str = "viommu_guest_faults_total";
/// Event records delivered to guests. Labels `vendor`, `mode`.
pub const GUEST_EVENTS: &str = "viommu_guest_events_total";
/// Times a guest was told that events were lost. Labels `vendor`, `mode`.
pub const GUEST_EVENTS_LOST: &str = "viommu_guest_events_lost_total";
/// Batches put on the hardware queue. Labels `shard` (a number, or `kernel` for all queues that have one guest), `vendor`.
pub const SHARD_BATCHES: &str = "viommu_shard_batches_total";
/// 8-byte command words put on the hardware queue. Labels `shard`, `vendor`.
pub const SHARD_WORDS: &str = "viommu_shard_words_total";
/// SYNCs put on the hardware queue for guests. Labels `shard`, `vendor`.
pub const SHARD_SYNCS: &str = "viommu_shard_syncs_total";
/// Batches that went through the mailbox because it was not their turn. Labels `shard`, `vendor`.
pub const SHARD_MAILED: &str = "viommu_shard_mailed_total";
/// Batches waiting in the mailbox. Labels `shard`, `vendor`.
pub const SHARD_DEPTH: &str = "viommu_shard_depth";
/// HWPT_INVALIDATE calls. Label `vendor`, as all of the kernel backend's.
pub const KERNEL_CALLS: &str = "viommu_kernel_calls_total";
/// Entries of HWPT_INVALIDATE calls that succeeded. Label `vendor`.
pub const KERNEL_ENTRIES: &str = "viommu_kernel_entries_total";
/// HWPT_INVALIDATE calls that failed. Label `vendor`.
pub const KERNEL_REPLAYS: &str = "viommu_kernel_replays_total";
/// Times the entries of a failed call were sent again in two halves. Label `vendor`.
pub const KERNEL_BISECTIONS: &str = "viommu_kernel_bisections_total";
/// Entries that the kernel refused. Label `vendor`.
pub const KERNEL_REFUSED: &str = "viommu_kernel_refused_total";
/// Entries that went out a second time, for the erratum REPEAT_TLBI_CFGI. Label `vendor`.
pub const KERNEL_REPEATS: &str = "viommu_kernel_repeats_total";
/// Times a guest waited for its share of the command queue. Label `vendor`.
pub const KERNEL_THROTTLED: &str = "viommu_kernel_throttled_total";
/// Attachments tried again because the kernel said EBUSY. Label `vendor`.
pub const KERNEL_BUSY: &str = "viommu_kernel_busy_total";
/// Records of guests' event queues that the kernel or this process lost. Label `vendor`.
pub const KERNEL_EVENTS_LOST: &str = "viommu_kernel_events_lost_total";
/// Objects alive. Label `kind` (uAPI names).
pub const OBJECTS: &str = "viommu_objects";
/// Actors restarted after a panic. Label `kind`.
pub const ACTOR_RESTARTS: &str = "viommu_actor_restarts_total";
/// Objects put out of service. Label `kind`.
pub const QUARANTINES: &str = "viommu_quarantines_total";
/// Hardware events that were the host's affair (stage-2 faults, bad physical tables).
pub const HOST_FAULTS: &str = "viommu_host_faults_total";
/// Host events that no subscriber took in time.
pub const HOST_EVENTS_LOST: &str = "viommu_host_events_lost_total";

/// Each metric with its kind and help text, in the order above.
pub const ALL: &[(&str, Kind, &str)] = &[
    (DOORBELLS, Kind::Counter, "Guest doorbells that found commands"),
    (COMMANDS, Kind::Counter, "Guest commands rewritten for the hardware queue, by class"),
    (LOCAL_STREAM, Kind::Counter, "Guest commands for streams without a device, completed without hardware"),
    (LOCAL_DOMAIN, Kind::Counter, "Guest commands for domains without a nested HWPT, completed without hardware"),
    (SHADOW_LEAVES, Kind::Counter, "Leaves of guests' page tables put into or taken out of shadow tables, by change"),
    (GUEST_SYNCS, Kind::Counter, "Guest SYNCs completed"),
    (GUEST_FAULTS, Kind::Counter, "What guests did wrong, by fault"),
    (GUEST_EVENTS, Kind::Counter, "Event records delivered to guests"),
    (GUEST_EVENTS_LOST, Kind::Counter, "Times a guest was told that events were lost"),
    (SHARD_BATCHES, Kind::Counter, "Batches put on the hardware queue"),
    (SHARD_WORDS, Kind::Counter, "8-byte command words put on the hardware queue"),
    (SHARD_SYNCS, Kind::Counter, "SYNCs put on the hardware queue for guests"),
    (SHARD_MAILED, Kind::Counter, "Batches that went through the mailbox"),
    (SHARD_DEPTH, Kind::Gauge, "Batches waiting in the mailbox"),
    (KERNEL_CALLS, Kind::Counter, "HWPT_INVALIDATE calls"),
    (KERNEL_ENTRIES, Kind::Counter, "Entries of HWPT_INVALIDATE calls that succeeded"),
    (KERNEL_REPLAYS, Kind::Counter, "HWPT_INVALIDATE calls that failed"),
    (KERNEL_BISECTIONS, Kind::Counter, "Times the entries of a failed call were sent again in two halves"),
    (KERNEL_REFUSED, Kind::Counter, "Invalidation entries that the kernel refused"),
    (KERNEL_REPEATS, Kind::Counter, "Invalidation entries sent a second time for an erratum"),
    (KERNEL_THROTTLED, Kind::Counter, "Times a guest waited for its share of the command queue"),
    (KERNEL_BUSY, Kind::Counter, "Attachments tried again because the kernel said EBUSY"),
    (KERNEL_EVENTS_LOST, Kind::Counter, "Records of guests' event queues lost in the kernel or behind it"),
    (OBJECTS, Kind::Gauge, "Objects alive, by kind"),
    (ACTOR_RESTARTS, Kind::Counter, "Actors restarted after a panic, by kind"),
    (QUARANTINES, Kind::Counter, "Objects put out of service, by kind"),
    (HOST_FAULTS, Kind::Counter, "Hardware events that were the host's affair"),
    (HOST_EVENTS_LOST, Kind::Counter, "Host events that no subscriber took in time"),
];

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// Tells the installed recorder the help texts. Call after installing it.
pub fn describe() {
    for &(name, kind, help) in ALL {
        match kind {
            Kind::Counter => describe_counter!(name, help),
            Kind::Gauge => describe_gauge!(name, help),
        }
    }
}

/// Handles of one guest's data path; guests of one vendor served in one mode share the series.
pub(crate) struct GuestMetrics {
    vendor: String,
    mode: &'static str,
    pub(crate) doorbells: Counter,
    pub(crate) syncs: Counter,
    pub(crate) local_stream: Counter,
    pub(crate) local_domain: Counter,
    pub(crate) events: Counter,
    pub(crate) events_lost: Counter,
    pub(crate) tlb: Counter,
    pub(crate) config: Counter,
    pub(crate) atc: Counter,
}

impl GuestMetrics {
    pub(crate) fn new(vendor: &str, mode: TranslationMode) -> Self {
        let mode = mode.name();
        let of = |name: &'static str| counter!(name, "vendor" => vendor.to_owned(), "mode" => mode);
        let commands =
            |class: &'static str| counter!(COMMANDS, "vendor" => vendor.to_owned(), "mode" => mode, "class" => class);
        Self {
            vendor: vendor.to_owned(),
            mode,
            doorbells: of(DOORBELLS),
            syncs: of(GUEST_SYNCS),
            local_stream: of(LOCAL_STREAM),
            local_domain: of(LOCAL_DOMAIN),
            events: of(GUEST_EVENTS),
            events_lost: of(GUEST_EVENTS_LOST),
            tlb: commands("tlb"),
            config: commands("config"),
            atc: commands("atc"),
        }
    }

    /// Faults are rare: resolved when they happen.
    pub(crate) fn fault(&self, fault: GuestFault) {
        let (vendor, mode) = (self.vendor.clone(), self.mode);
        counter!(GUEST_FAULTS, "vendor" => vendor, "mode" => mode, "fault" => fault.name()).increment(1);
    }

    /// A shadow changed: so many leaves came and went. Beside what such a change costs, resolving the handles is nothing.
    pub(crate) fn shadow(&self, put_in: usize, taken_out: usize) {
        for (change, leaves) in [("put_in", put_in), ("taken_out", taken_out)] {
            counter!(SHADOW_LEAVES, "vendor" => self.vendor.clone(), "change" => change).increment(leaves as u64);
        }
    }
}

/// Handles of one shard, and what they have been told so far: shards that have one guest share their series.
pub(crate) struct ShardMetrics {
    batches: Counter,
    words: Counter,
    syncs: Counter,
    mailed: Counter,
    depth: Gauge,
    told: Mutex<(ShardCounts, usize)>,
}

impl ShardMetrics {
    /// `number` is that of a shard that the host has for good, and has few of; `None` of a shard that ends with its guest.
    pub(crate) fn new(number: Option<usize>, vendor: &str) -> Self {
        let shard = number.map_or_else(|| "kernel".to_owned(), |number| number.to_string());
        let labels = || [("shard", shard.clone()), ("vendor", vendor.to_owned())];
        Self {
            batches: counter!(SHARD_BATCHES, &labels()),
            words: counter!(SHARD_WORDS, &labels()),
            syncs: counter!(SHARD_SYNCS, &labels()),
            mailed: counter!(SHARD_MAILED, &labels()),
            depth: gauge!(SHARD_DEPTH, &labels()),
            told: Mutex::default(),
        }
    }

    /// Counts only grow: whoever comes late with older ones changes nothing but the depth.
    pub(crate) fn update(&self, counts: &ShardCounts, depth: usize) {
        let mut told = lock(&self.told);
        let (before, was) = *told;
        self.batches.increment(counts.batches.saturating_sub(before.batches));
        self.words.increment(counts.words.saturating_sub(before.words));
        self.syncs.increment(counts.syncs.saturating_sub(before.syncs));
        self.mailed.increment(counts.mailed.saturating_sub(before.mailed));
        self.depth.increment(depth as f64 - was as f64);
        *told = (*counts, depth);
    }
}

/// One number of the kernel backend's, for its own reader and for the recorder.
pub struct Count {
    value: AtomicU64,
    metric: Counter,
}

impl std::fmt::Debug for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.get())
    }
}

impl Count {
    pub(crate) fn new(name: &'static str, vendor: &str) -> Self {
        Self { value: AtomicU64::new(0), metric: counter!(name, "vendor" => vendor.to_owned()) }
    }

    pub(crate) fn add(&self, more: u64) {
        self.value.fetch_add(more, Ordering::Relaxed);
        self.metric.increment(more);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}
