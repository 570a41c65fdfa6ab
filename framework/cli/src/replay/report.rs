//! What a replay found, for people and as JSON.

use super::ReplayError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::Path;
use viommu_trace::Vendor;

/// Mismatches that are explained; the others are counted.
pub(crate) const EXPLAINED: usize = 10;

/// How the guest's IOMMU was put on top of the software IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// It is the software IOMMU.
    Bare,
    /// Its tables are nested in the host's.
    Nested,
    /// The hardware walks a copy of its tables that is composed with the host's.
    Shadow,
}

/// Recorded translations.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Translations {
    /// TRANSLATION records in the file.
    pub(crate) records: u64,
    /// `records` times the number of VMs: `matched + mismatched + stage2_faults`.
    pub(crate) checked: u64,
    /// Answered as recorded.
    pub(crate) matched: u64,
    /// Answered otherwise.
    pub(crate) mismatched: u64,
    /// Recorded output outside the VM's memory: refused by stage 2, as is right.
    pub(crate) stage2_faults: u64,
}

/// Guest commands.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Commands {
    /// All.
    pub(crate) total: u64,
    /// By the manual's name.
    pub(crate) by_opcode: BTreeMap<String, u64>,
    /// Those naming a stream without a device, completed without hardware.
    pub(crate) local_stream: u64,
}

/// SYNCs.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Syncs {
    /// In guest queues.
    pub(crate) guest: u64,
    /// On the physical queue.
    pub(crate) hardware: u64,
}

/// Nested HWPTs.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct NestedHwpts {
    /// Created.
    pub(crate) created: u64,
    /// Attached to one more device instead of creating another.
    pub(crate) reused: u64,
    /// Alive at the end of the recording.
    pub(crate) live: u64,
}

/// The software IOMMU's TLB.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Tlb {
    /// Hits of streams that translate in stage 1.
    pub(crate) hits: u64,
    /// Misses of streams that translate in stage 1.
    pub(crate) misses: u64,
    /// Entries thrown out for lack of room.
    pub(crate) evictions: u64,
    /// Hits of streams that only have stage 2.
    pub(crate) s2_hits: u64,
}

/// What `--hostile-hardware` did unasked.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Speculation {
    /// Speculative requests that reached the IOMMU.
    pub(crate) requests: u64,
    /// Translations that they put into the TLB.
    pub(crate) tlb_fills: u64,
    /// Translations that they put into the caches of devices.
    pub(crate) atc_fills: u64,
}

/// What guests said in queues of their own. `commands` and `syncs.guest` are what the framework handled, and hold none of
/// it.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Direct {
    /// Commands by queue, without SYNCs, all VMs together.
    pub(crate) by_queue: Vec<u64>,
    /// SYNCs.
    pub(crate) syncs: u64,
}

/// Time to handle a doorbell, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Latency {
    /// Half of them took no longer.
    pub(crate) p50: u64,
    /// 99 of 100 took no longer.
    pub(crate) p99: u64,
}

/// What a replay found: the JSON object of a trace.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    /// The trace's file, as it was given.
    pub(crate) trace: String,
    /// The vendor's name.
    pub(crate) vendor: String,
    /// Bare, nested or shadow.
    pub(crate) mode: Mode,
    /// Virtual machines.
    pub(crate) vms: u32,
    /// How often another VM than before rang its doorbell.
    pub(crate) vm_switches: u64,
    /// How often all VMs moved to a fresh host.
    pub(crate) migrations: u64,
    /// Recorded translations.
    pub(crate) translations: Translations,
    /// Guest commands.
    pub(crate) commands: Commands,
    /// `translations.mismatched` of each virtual machine.
    pub(crate) mismatched_by_vm: Vec<u64>,
    /// What guests did wrong, by name.
    pub(crate) guest_faults: BTreeMap<String, u64>,
    /// Register writes after which a guest queue held commands.
    pub(crate) doorbells: u64,
    /// SYNCs.
    pub(crate) syncs: Syncs,
    /// Nested HWPTs.
    pub(crate) nested_hwpts: NestedHwpts,
    /// Streams attached because a watched page was written, without a command that says so.
    pub(crate) late_attaches: u64,
    /// The software IOMMU's TLB.
    pub(crate) tlb: Tlb,
    /// What hostile hardware did unasked.
    pub(crate) speculation: Speculation,
    /// What went past the framework, with --vcpus.
    pub(crate) direct: Option<Direct>,
    /// Time to handle a doorbell.
    pub(crate) latency_ns: Latency,
    /// Wall-clock time of the replay in seconds.
    pub(crate) elapsed_s: f64,
    /// Guest commands for each second of it.
    pub(crate) commands_per_second: f64,
    /// Recorded reads of ID and acknowledge registers that were answered otherwise.
    pub(crate) register_mismatches: u64,
}

/// The name of a trace's vendor: its plugin's, or the code of a private one.
pub(crate) fn vendor_name(vendor: Vendor) -> String {
    vendor.name().map_or_else(|| format!("{:#x}", vendor.0), str::to_owned)
}

impl Summary {
    /// A summary of nothing yet.
    pub(crate) fn new(trace: &Path, vendor: Vendor, mode: Mode) -> Self {
        Self {
            trace: trace.display().to_string(),
            vendor: vendor_name(vendor),
            mode,
            vms: 1,
            vm_switches: 0,
            migrations: 0,
            translations: Translations::default(),
            commands: Commands::default(),
            mismatched_by_vm: Vec::new(),
            guest_faults: BTreeMap::new(),
            doorbells: 0,
            syncs: Syncs::default(),
            nested_hwpts: NestedHwpts::default(),
            late_attaches: 0,
            direct: None,
            tlb: Tlb::default(),
            speculation: Speculation::default(),
            latency_ns: Latency::default(),
            elapsed_s: 0.0,
            commands_per_second: 0.0,
            register_mismatches: 0,
        }
    }

    /// Whether everything was as recorded.
    pub(crate) fn is_clean(&self) -> bool {
        self.translations.mismatched == 0 && self.register_mismatches == 0
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { translations: t, commands, tlb, .. } = self;
        let verdict = if self.is_clean() { "ok" } else { "MISMATCH" };
        let mode = match self.mode {
            Mode::Bare => "bare",
            Mode::Nested => "nested",
            Mode::Shadow => "shadow",
        };
        writeln!(f, "{}: {verdict} ({}, {mode}, {} VM)", self.trace, self.vendor, self.vms)?;
        writeln!(
            f,
            "  translations  {} checked: {} matched, {} mismatched, {} stage-2 faults",
            t.checked, t.matched, t.mismatched, t.stage2_faults
        )?;
        let named: Vec<_> = commands.by_opcode.iter().map(|(name, count)| format!("{name} {count}")).collect();
        writeln!(f, "  commands      {} in {} doorbells: {}", commands.total, self.doorbells, named.join(", "))?;
        if !self.guest_faults.is_empty() {
            let named: Vec<_> = self.guest_faults.iter().map(|(name, count)| format!("{name} {count}")).collect();
            writeln!(f, "  guest faults  {}", named.join(", "))?;
        }
        if let Some(Direct { by_queue, syncs }) = &self.direct {
            let named: Vec<_> =
                by_queue.iter().enumerate().map(|(queue, count)| format!("{count} in queue {queue}")).collect();
            let total: u64 = by_queue.iter().sum();
            writeln!(f, "  direct        {total} and {syncs} SYNCs, past the framework: {}", named.join(", "))?;
        }
        if self.late_attaches > 0 {
            writeln!(f, "  late attaches {} by writes to watched pages", self.late_attaches)?;
        }
        if self.migrations > 0 {
            writeln!(f, "  migrations    {} times to a fresh host", self.migrations)?;
        }
        if self.register_mismatches > 0 {
            writeln!(f, "  registers     {} reads mismatched", self.register_mismatches)?;
        }
        writeln!(
            f,
            "  TLB           {} hits, {} misses, {} evictions, {} stage-2 hits",
            tlb.hits, tlb.misses, tlb.evictions, tlb.s2_hits
        )?;
        let Speculation { requests, tlb_fills, atc_fills } = self.speculation;
        if requests > 0 {
            writeln!(f, "  speculation   {requests} requests filled {tlb_fills} TLB and {atc_fills} ATC entries")?;
        }
        write!(
            f,
            "  time          {:.2} s, {:.0} commands/s, doorbell p50 {} ns, p99 {} ns",
            self.elapsed_s, self.commands_per_second, self.latency_ns.p50, self.latency_ns.p99
        )
    }
}

/// One translation that was answered otherwise than recorded.
#[derive(Debug)]
pub(crate) struct Mismatch {
    /// Number of the record.
    pub(crate) record: u64,
    /// The virtual machine.
    pub(crate) machine: u32,
    /// The recorded stream.
    pub(crate) stream: u32,
    /// Address the device used.
    pub(crate) iova: u64,
    /// The recorded answer.
    pub(crate) expected: String,
    /// Ours.
    pub(crate) got: String,
    /// The walk that leads to ours now, step by step.
    pub(crate) walk: String,
}

/// A summary with the first mismatches.
pub(crate) struct Report {
    /// Everything counted.
    pub(crate) summary: Summary,
    /// At most [`EXPLAINED`] of them.
    pub(crate) mismatches: Vec<Mismatch>,
}

impl Report {
    /// Writes the first mismatches for people. An output that is gone stops it.
    pub(crate) fn explain(&self, out: &mut impl Write) {
        for Mismatch { record, machine, stream, iova, expected, got, walk } in &self.mismatches {
            let trace = &self.summary.trace;
            let head = format!("{trace}: VM {machine}: record {record}: stream {stream:#x} iova {iova:#x}");
            let walk = walk.trim_end().replace('\n', "\n    ");
            if writeln!(out, "{head}\n  expected {expected}\n  got      {got}\n  walk\n    {walk}").is_err() {
                return;
            }
        }
    }
}

/// A trace that was not replayed: its JSON object.
#[derive(Debug, Serialize)]
pub(crate) struct Refused {
    trace: String,
    vendor: Option<String>,
    refused: String,
}

impl Refused {
    /// A trace that was not replayed; `vendor` is `None` if not even that could be read.
    pub(crate) fn new(trace: &Path, vendor: Option<Vendor>, reason: &ReplayError) -> Self {
        Self { trace: trace.display().to_string(), vendor: vendor.map(vendor_name), refused: reason.to_string() }
    }

    /// One line of JSON.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings")
    }
}
