//! The options of `viommu replay`, and which of them go together.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use viommu_plugin::TranslationMode;

/// Replay recorded guests and compare every DMA with the recording.
///
/// Exit status: 0 if nothing mismatched, 1 if something did, 2 if a trace was refused or the input is bad (2 wins).
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Args {
    /// Recordings (.gtrace or .gtrace.zst)
    #[arg(required = true, value_name = "TRACE")]
    pub(crate) traces: Vec<PathBuf>,
    /// Let the guest's registers drive the software IOMMU directly, without framework and stage 2
    #[arg(long)]
    pub(crate) bare: bool,
    /// Print one JSON object a trace and line
    #[arg(long)]
    pub(crate) json: bool,
    /// Give devices a translation cache of their own (ATC) where the guest enables ATS
    #[arg(long)]
    pub(crate) atc: bool,
    /// Break something on purpose: drop-invalidation:K, drop-atc, swap-stream, wrong-vmid, widen, reorder-atc,
    /// complete-early, atc-timeout, illegal-command, forget-entry, unwatched
    #[arg(long, value_name = "FAULT")]
    pub(crate) inject: Option<Injection>,
    /// Replay as N virtual machines on one physical IOMMU
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65535))]
    pub(crate) vms: u32,
    /// Host threads that the virtual machines run on
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,
    /// Shards of the data plane
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) shards: u32,
    /// Where the software IOMMU runs: inline in the thread that waits for it, or in a thread of its own
    #[arg(long, value_name = "HOW", value_enum, default_value_t = ModelMode::Inline)]
    pub(crate) model: ModelMode,
    /// Execute each physical command up to 64 events late, drawn from this seed; implies --model inline
    #[arg(long, value_name = "SEED")]
    pub(crate) device_delay: Option<u64>,
    /// At random doorbells, on average every N, save all VMs and restore them on a fresh host with other numbers
    #[arg(long, value_name = "N")]
    pub(crate) migrate_every: Option<NonZeroU64>,
    /// Seed of --migrate-every
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(crate) migrate_seed: u64,
    /// Refill the IOMMU's caches between any two commands with what devices used lately, drawn from this seed; with
    /// --atc also the devices' caches
    #[arg(long, value_name = "SEED")]
    pub(crate) hostile_hardware: Option<u64>,
    /// Guests have N vCPUs with command queues of their own, which hardware reads: what these take goes there, past the
    /// framework. Needs a plugin that lends such queues: --plugin tegra-vcmdq
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) vcpus: Option<u32>,
    /// Serve Prometheus metrics at this address while the replay runs
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// The vendor's plugin, by name or by path (a value with '/'); default: by the trace's vendor
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) plugin: Option<String>,
}

/// Where the software IOMMU runs.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelMode {
    /// In the thread that waits for it.
    Inline,
    /// In a thread of its own.
    Thread,
}

/// A fault made on purpose between framework and physical IOMMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Injection {
    /// Every `every`-th TLB invalidation is lost.
    DropInvalidation { every: NonZeroU64 },
    /// Every device cache invalidation is lost.
    DropAtc,
    /// Two streams of each VM are exchanged in what the framework programs.
    SwapStream,
    /// TLB invalidations carry the next VM's tag.
    WrongVmid,
    /// TLB invalidations hit every tag.
    Widen,
    /// Each TLB invalidation is delayed past the next device cache invalidation.
    ReorderAtc,
    /// CONS moves without waiting for the hardware.
    CompleteEarly,
    /// A device answers no device cache invalidation.
    AtcTimeout,
    /// An illegal command reaches the physical queue.
    IllegalCommand,
    /// The first VM's busiest device moves to another host without its table entry.
    ForgetEntry,
    /// Nobody tells of a guest's writes to watched pages.
    Unwatched,
}

impl Injection {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::DropInvalidation { .. } => "drop-invalidation",
            Self::DropAtc => "drop-atc",
            Self::SwapStream => "swap-stream",
            Self::WrongVmid => "wrong-vmid",
            Self::Widen => "widen",
            Self::ReorderAtc => "reorder-atc",
            Self::CompleteEarly => "complete-early",
            Self::AtcTimeout => "atc-timeout",
            Self::IllegalCommand => "illegal-command",
            Self::ForgetEntry => "forget-entry",
            Self::Unwatched => "unwatched",
        }
    }

    /// Whether it is about losing commands of one kind.
    pub(crate) fn drops(self) -> bool {
        matches!(self, Self::DropInvalidation { .. } | Self::DropAtc)
    }

    /// Whether a guest that is served in this mode has what it breaks. In shadow mode a guest's TLB invalidations do not
    /// reach the physical queue: the framework changes the shadow and flushes on its own, before the command is taken.
    pub(crate) fn is_for(self, mode: TranslationMode) -> bool {
        let on_the_ring = matches!(
            self,
            Self::WrongVmid | Self::Widen | Self::ReorderAtc | Self::CompleteEarly | Self::IllegalCommand
        );
        mode != TranslationMode::SHADOW || !on_the_ring
    }
}

impl FromStr for Injection {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        let injection = match (name, count) {
            ("drop-invalidation", Some(every)) => {
                let every = every.parse().map_err(|_| format!("{every:?} is not a number from 1 (every one)"))?;
                return Ok(Self::DropInvalidation { every });
            }
            ("drop-invalidation", None) => {
                return Err("say which: drop-invalidation:K drops every K-th, 1 all of them".into());
            }
            ("drop-atc", _) => Self::DropAtc,
            ("swap-stream", _) => Self::SwapStream,
            ("wrong-vmid", _) => Self::WrongVmid,
            ("widen", _) => Self::Widen,
            ("reorder-atc", _) => Self::ReorderAtc,
            ("complete-early", _) => Self::CompleteEarly,
            ("atc-timeout", _) => Self::AtcTimeout,
            ("illegal-command", _) => Self::IllegalCommand,
            ("forget-entry", _) => Self::ForgetEntry,
            ("unwatched", _) => Self::Unwatched,
            _ => {
                return Err("not one of drop-invalidation:K, drop-atc, swap-stream, wrong-vmid, widen, \
                            reorder-atc, complete-early, atc-timeout, illegal-command, forget-entry, unwatched"
                    .into());
            }
        };
        if count.is_some() { Err(format!("{name} takes no number")) } else { Ok(injection) }
    }
}

impl Args {
    /// Checks what one option asks of another.
    ///
    /// # Errors
    /// The reason, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.bare {
            let injects_elsewhere = self.inject.is_some_and(|injection| !injection.drops());
            let nested_only = [
                ("--inject of another fault than drop-invalidation:K or drop-atc", injects_elsewhere),
                ("--vms", self.vms > 1),
                ("--threads", self.threads > 1),
                ("--shards", self.shards > 1),
                ("--model thread", self.model == ModelMode::Thread),
                ("--device-delay", self.device_delay.is_some()),
                ("--migrate-every", self.migrate_every.is_some()),
                ("--hostile-hardware", self.hostile_hardware.is_some()),
                ("--metrics", self.metrics.is_some()),
                ("--vcpus", self.vcpus.is_some()),
            ];
            if let Some((option, _)) = nested_only.iter().find(|(_, given)| *given) {
                return Err(format!("{option} is about the framework, which --bare leaves out"));
            }
        }
        if self.device_delay.is_some() && self.model == ModelMode::Thread {
            return Err("--device-delay counts replay events: it needs --model inline".into());
        }
        if self.migrate_every.is_some() && self.vcpus.is_some() {
            return Err(
                "--vcpus gives guests queues in hardware, with which nobody moves: not with --migrate-every".into()
            );
        }
        if self.migrate_every.is_some() {
            if self.threads > 1 {
                return Err("--migrate-every moves all VMs at once: it needs --threads 1".into());
            }
            if !matches!(self.inject, None | Some(Injection::ForgetEntry)) {
                return Err(
                    "--migrate-every starts with empty caches: the only fault it goes with is forget-entry".into()
                );
            }
        }
        match self.inject {
            Some(Injection::ForgetEntry) if self.migrate_every.is_none() => {
                Err("--inject forget-entry is about VMs that move: it needs --migrate-every N".into())
            }
            Some(Injection::WrongVmid | Injection::Widen) if self.vms < 2 => {
                Err("--inject wrong-vmid and widen mix up virtual machines: they need --vms 2 or more".into())
            }
            Some(Injection::CompleteEarly) if self.device_delay.is_none() => {
                Err("--inject complete-early shows only if the device is slow: it needs --device-delay SEED".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn check(line: &str) -> Result<Args, String> {
        let words = ["replay", "x"].into_iter().chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        line.args.check().map(|()| line.args)
    }

    #[test]
    fn every_injection_has_its_name() {
        let every = NonZeroU64::new(3).unwrap();
        assert_eq!("drop-invalidation:3".parse(), Ok(Injection::DropInvalidation { every }));
        assert_eq!("atc-timeout".parse(), Ok(Injection::AtcTimeout));
        assert_eq!("unwatched".parse::<Injection>().map(Injection::name), Ok("unwatched"));
        for wrong in ["", "drop", "drop-invalidation", "drop-invalidation:0", "drop-invalidation:x", "drop-atc:2"] {
            assert!(wrong.parse::<Injection>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_happens_on_the_ring_is_not_for_guests_in_shadow_mode() {
        let serves =
            |injection: Injection| [TranslationMode::NESTED, TranslationMode::SHADOW].map(|m| injection.is_for(m));
        assert_eq!(serves(Injection::CompleteEarly), [true, false]);
        assert_eq!(serves(Injection::DropInvalidation { every: NonZeroU64::MIN }), [true, true]);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for good in [
            "",
            "--bare --atc --json",
            "--bare --vms 1",
            "--bare --atc --inject drop-atc",
            "--vms 16 --threads 2 --shards 2 --model thread",
            "--device-delay 7 --model inline",
            "--inject widen --vms 2",
            "--inject complete-early --device-delay 1",
            "--metrics 127.0.0.1:9100",
            "--migrate-every 3 --migrate-seed 7 --vms 4 --device-delay 1",
            "--migrate-every 1 --inject forget-entry",
        ] {
            assert!(check(good).is_ok(), "{good}: {:?}", check(good).err());
        }
        for (wrong, says) in [
            ("--vms 0", "--vms"),
            ("--threads 0", "--threads"),
            ("--shards 0", "--shards"),
            ("--vms x", "--vms"),
            ("--model fast", "--model"),
            ("--metrics nowhere", "--metrics"),
            ("--device-delay 7 --model thread", "--model inline"),
            ("--inject widen", "--vms 2"),
            ("--inject wrong-vmid --vms 1", "--vms 2"),
            ("--inject complete-early", "--device-delay"),
            ("--bare --inject atc-timeout", "--bare"),
            ("--bare --vms 2", "--bare"),
            ("--bare --migrate-every 3", "--bare"),
            ("--bare --vcpus 2", "--vcpus"),
            ("--vcpus 0", "--vcpus"),
            ("--vcpus 2 --migrate-every 3", "--vcpus"),
            ("--migrate-every 0", "--migrate-every"),
            ("--migrate-every 3 --vms 2 --threads 2", "--threads 1"),
            ("--migrate-every 3 --inject drop-atc", "forget-entry"),
            ("--inject forget-entry", "--migrate-every"),
            ("--bare --device-delay 1", "--bare"),
        ] {
            let error = check(wrong).expect_err(wrong);
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }
}
