//! What the host itself must make the hardware forget, and in which order.

use super::graph::Graph;
use super::{Direct, cause};
use crate::Cause;
use crate::backend::{Mapping, SinkError};
use viommu_plugin::{Classes, GuestFault, HostInvalidation, Scope};

/// Words for the commands of one host-side invalidation. A driver widens what does not fit.
const WORDS: usize = 512;

impl Direct {
    /// Puts these invalidations on the ring, with one SYNC, and waits for it.
    fn forget(&self, what: impl IntoIterator<Item = HostInvalidation>, classes: Classes) -> Result<(), SinkError> {
        let mut words = Vec::new();
        for one in what {
            let mut buffer = [0; WORDS];
            let written = self.driver.lock().encode(&one, &mut buffer);
            let written = written.map_err(|error| SinkError::Gone(format!("plugin: {error}")))?;
            words.extend_from_slice(&buffer[..written.min(WORDS)]);
        }
        if words.is_empty() { Ok(()) } else { self.ring.run(&words, classes) }
    }

    /// After `mappings` left the stage-2 tables of `parent`: nothing of them is cached when this returns. The order is
    /// the kernel's:
    /// 1. the stage-2 translations of the ranges, SYNC;
    /// 2. all of the guest's stage-1 translations, which hold results of stage 2, SYNC: not earlier, or one could be
    ///    made again from a stage-2 translation that is still cached;
    /// 3. the caches of all devices behind the parent, SYNC: not earlier, for the same reason.
    pub(super) fn forget_mappings(&self, graph: &Graph, parent: u32, mappings: &[Mapping]) -> Result<(), Cause> {
        let (found, tags) = (graph.parent(parent)?, graph.tags_of(parent)?);
        for &tag in &tags {
            let ranges = mappings.iter().map(|mapping| stage2_range(tag, mapping.iova, mapping.length));
            self.forget(ranges, Classes::TLB).map_err(cause)?;
        }
        let stage1 = |&tag: &u32| HostInvalidation { scope: Scope::STAGE1_ALL, tag, ..Default::default() };
        self.forget(tags.iter().map(stage1), Classes::TLB).map_err(cause)?;
        let streams = found.viommu.map(|viommu| graph.streams_of(viommu)).unwrap_or_default();
        self.forget_devices(&streams).map_err(cause)
    }

    /// What a stage-2 table with this tag held at these ranges (address, length): the hardware translates nothing by them
    /// when this returns.
    pub(super) fn forget_ranges(&self, tag: u32, ranges: &[(u64, u64)]) -> Result<(), Cause> {
        let ranges = ranges.iter().map(|&(address, length)| stage2_range(tag, address, length));
        self.forget(ranges, Classes::TLB).map_err(cause)
    }

    /// Everything that carries `tag`, both stages.
    pub(super) fn forget_tag(&self, tag: u32) -> Result<(), Cause> {
        let all = HostInvalidation { scope: Scope::TAG, tag, ..Default::default() };
        self.forget([all], Classes::TLB).map_err(cause)
    }

    /// As [`Direct::forget_tag`], of several with one SYNC.
    pub(super) fn forget_tags(&self, tags: impl IntoIterator<Item = u32>) -> Result<(), Cause> {
        let all = |tag| HostInvalidation { scope: Scope::TAG, tag, ..Default::default() };
        self.forget(tags.into_iter().map(all), Classes::TLB).map_err(cause)
    }

    /// What is cached of the table entry of `stream` and of everything found through it.
    pub(super) fn forget_configuration(&self, stream: u32) -> Result<(), Cause> {
        let entry = HostInvalidation { scope: Scope::CONFIGURATION, stream, ..Default::default() };
        self.forget([entry], Classes::CONFIG).map_err(cause)
    }

    /// The caches of the devices of these streams, if devices here can have any.
    pub(super) fn forget_devices(&self, streams: &[u32]) -> Result<(), SinkError> {
        if self.info.ats == 0 {
            return Ok(());
        }
        let cache = |&stream: &u32| HostInvalidation { scope: Scope::DEVICE_CACHE, stream, ..Default::default() };
        self.forget(streams.iter().map(cache), Classes::ATC)
    }

    /// After the tables of `stream` changed: what its device cached under the old ones. A device that does not answer
    /// keeps nobody from being taken away from it: its translated requests are refused by the new table entry.
    pub(super) fn forget_moved_device(&self, stream: u32) -> Result<(), Cause> {
        match self.forget_devices(&[stream]) {
            Err(SinkError::Fault(GuestFault::ATC_TIMEOUT)) => {
                tracing::warn!(stream, "the device did not answer the invalidation of its cache");
                Ok(())
            }
            other => other.map_err(cause),
        }
    }
}

fn stage2_range(tag: u32, address: u64, length: u64) -> HostInvalidation {
    HostInvalidation { scope: Scope::STAGE2_RANGE, tag, address, length, ..Default::default() }
}
