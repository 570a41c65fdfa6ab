//! Where a stream's DMA goes: what attach and detach make the driver do, and how it is undone.

use super::Direct;
use super::graph::{Domain, Graph};
use crate::Cause;

impl Direct {
    /// Makes `stream` go through `to` (nothing: abort) instead of `from`, and with `flush` forget what its device cached.
    /// If it fails, the stream goes through `from`; if that fails too, `to` is in use until it is known to.
    pub(super) fn point(
        &self,
        graph: &mut Graph,
        stream: u32,
        from: Option<u32>,
        to: Option<u32>,
        flush: bool,
    ) -> Result<(), Cause> {
        let done = self.program(graph, stream, to);
        let done = done.and_then(|()| if flush { self.forget_moved_device(stream) } else { Ok(()) });
        let undone = if done.is_err() { self.program(graph, stream, from) } else { Ok(()) };
        match undone {
            Ok(()) => graph.settled(stream),
            Err(cause) => {
                tracing::error!(%cause, stream, "an attach that failed cannot be undone");
                to.into_iter().for_each(|hwpt| graph.stray(stream, hwpt));
            }
        }
        done
    }

    /// Makes a stream go through what it is attached to, if it may go through something else.
    pub(super) fn bring_back(&self, graph: &mut Graph, stream: u32) -> Result<(), Cause> {
        if !graph.is_astray(stream) {
            return Ok(());
        }
        let device = graph.streams.get(&stream).and_then(|device| graph.device(*device).ok());
        let attached = device.and_then(|device| device.attached);
        self.program(graph, stream, attached)?;
        self.forget_moved_device(stream)?;
        graph.settled(stream);
        Ok(())
    }

    pub(super) fn program(&self, graph: &Graph, stream: u32, hwpt: Option<u32>) -> Result<(), Cause> {
        let Some(hwpt) = hwpt else { return self.exclusively(|driver| driver.detach(stream)) };
        let found = graph.hwpt(hwpt)?;
        if let Some(shadow) = &found.shadow {
            // The guest's own key: the driver sees that only stage 2 is walked for it, and whose faults those are.
            let (stage2, tag, key) = (shadow.stage2, shadow.tag, found.key);
            return self.exclusively(|driver| driver.attach(stream, stage2, tag, &key));
        }
        let (parent, key) = (graph.parent_of(hwpt)?, found.key);
        let domain = graph.viommu(found.viommu)?.domains.get(&key.domain);
        let (stage2, tag) = (parent.stage2, domain.map_or(parent.tag, |domain| domain.tag));
        self.exclusively(|driver| driver.attach(stream, stage2, tag, &key))
    }

    /// Frees what an HWPT holds beside its number. A tag comes back when nothing that carries it is cached, and not before.
    pub(super) fn free_hwpt(&self, graph: &mut Graph, id: u32) -> Result<(), Cause> {
        let found = graph.hwpt(id)?;
        if found.shadow.is_some() {
            return self.free_shadow(graph, id);
        }
        let (viommu, number) = (found.viommu, found.key.domain);
        let Some(&Domain { tag, users }) = graph.viommu(viommu)?.domains.get(&number) else { return Ok(()) };
        if users == 1 {
            self.take_domain(graph, viommu, number)?;
            self.forget_tag(tag)?;
            graph.tags.give(tag);
            graph.viommu_mut(viommu)?.domains.remove(&number);
        } else if let Some(domain) = graph.viommu_mut(viommu)?.domains.get_mut(&number) {
            domain.users -= 1;
        }
        Ok(())
    }
}
