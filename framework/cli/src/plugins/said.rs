//! What a plugin says of itself, for `viommu plugins --json` and docs/vendors.md.

use serde::Serialize;
use viommu_plugin::{HwQueueKind, KernelFacts, Nesting, TranslationMode};
use viommu_plugin_check::{Capabilities, Interfaces, Verdict};
use viommu_plugin_host::Plugin;

/// Its capabilities, or why they are not known.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    Can(Can),
    CannotSay(String),
}

/// See docs/vendors.md.
#[derive(Serialize)]
pub(super) struct Can {
    modes: Vec<&'static str>,
    ats: bool,
    tags: u64,
    guest_domains: bool,
    streams: u32,
    ipa_bits: u32,
    page_bytes: u64,
    save_restore: bool,
    covers: bool,
    kernel: Option<OnKernel>,
    interfaces: Option<Parts>,
}

/// How its guests are served on Linux's `/dev/iommu`; the types are the uAPI's numbers.
#[derive(Serialize)]
pub(super) struct OnKernel {
    nesting: &'static str,
    hw_info_type: u32,
    viommu_type: u32,
    hw_queue_type: u32,
}

impl From<KernelFacts> for OnKernel {
    fn from(facts: KernelFacts) -> Self {
        let nesting = match facts.nesting {
            Nesting::VIOMMU => "through_a_viommu",
            Nesting::PARENT => "on_the_parent",
            _ => "shadow_only",
        };
        let KernelFacts { hw_info_type, viommu_type, hw_queue_type, .. } = facts;
        Self { nesting, hw_info_type, viommu_type, hw_queue_type }
    }
}

/// Parts of the hardware that guests drive themselves.
#[derive(Serialize)]
pub(super) struct Parts {
    count: u32,
    streams: u32,
    page_bytes: u64,
    hw_queues: Vec<&'static str>,
}

impl Said {
    /// Asks `plugin`.
    pub(super) fn of(plugin: &Plugin) -> Self {
        match Capabilities::of(plugin) {
            Ok(can) => Self::Can(can.into()),
            Err(Verdict::Skipped(why)) => Self::CannotSay(why.to_owned()),
            Err(Verdict::Failed(why)) => Self::CannotSay(why),
        }
    }
}

impl From<Capabilities> for Can {
    fn from(can: Capabilities) -> Self {
        let info = can.info;
        let modes = [TranslationMode::NESTED, TranslationMode::SHADOW];
        Self {
            modes: modes.into_iter().filter(|mode| info.modes & mode.bit() != 0).map(TranslationMode::name).collect(),
            ats: info.ats != 0,
            tags: u64::from(info.last_tag) + 1 - u64::from(info.first_tag),
            guest_domains: can.domains,
            streams: info.streams,
            ipa_bits: info.ipa_bits,
            page_bytes: 1 << info.page_log2,
            save_restore: can.saves,
            covers: can.covers,
            kernel: can.kernel.map(OnKernel::from),
            interfaces: can.interfaces.map(Parts::from),
        }
    }
}

impl From<Interfaces> for Parts {
    fn from(interfaces: Interfaces) -> Self {
        let Interfaces { count, streams, page_bytes, queues } = interfaces;
        let name = |kind| match kind {
            HwQueueKind::COMMAND => "command",
            HwQueueKind::EVENT => "event",
            _ => "page_request",
        };
        Self { count, streams, page_bytes, hw_queues: queues.into_iter().map(name).collect() }
    }
}
