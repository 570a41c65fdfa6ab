//! The stage-2 tables of nesting parents: what an IOAS maps is in all of them, or in none.

use super::Direct;
use super::graph::{Graph, Ioas, NestParent};
use crate::Cause;
use crate::backend::shadow::Mappings;
use crate::backend::{Backing, Mapping};

impl Direct {
    pub(super) fn check_mapping(&self, mappings: &Mappings, new: &Mapping) -> Result<(), Cause> {
        let Mapping { iova, length, backing, .. } = *new;
        let Backing::Physical(pa) = backing else {
            return Err(Cause::Unsupported("this backend maps physical memory, not a process's addresses".into()));
        };
        let page = 1u64 << self.info.page_log2;
        let ends = |start: u64| start.checked_add(length.wrapping_sub(1));
        let (Some(last), Some(_)) = (ends(iova).filter(|_| length > 0), ends(pa)) else {
            return Err(Cause::Invalid(format!("{length:#x} bytes at {iova:#x} are no range")));
        };
        if (iova | pa | length) % page != 0 {
            let what = format!("{iova:#x} to {pa:#x}, {length:#x} bytes: not in pages of {page:#x}");
            return Err(Cause::Invalid(what));
        }
        match mappings.range(..=last).next_back() {
            Some((_, other)) if other.iova + (other.length - 1) >= iova => {
                let what = format!("{iova:#x}..={last:#x} overlaps the mapping at {:#x}", other.iova);
                Err(Cause::Exists(what))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn build_stage2(&self, tag: u32, mappings: &[Mapping]) -> Result<u32, Cause> {
        let mut driver = self.driver.lock();
        let stage2 = driver.stage2_create(tag)?;
        for mapping in mappings {
            let Backing::Physical(pa) = mapping.backing else { continue };
            if let Err(error) = driver.stage2_map(stage2, mapping.iova, pa, mapping.length, access(mapping)) {
                driver.stage2_destroy(stage2)?;
                return Err(error.into());
            }
        }
        Ok(stage2)
    }

    pub(super) fn map(&self, graph: &Graph, parent: u32, mapping: &Mapping) -> Result<(), Cause> {
        let Backing::Physical(pa) = mapping.backing else { return Ok(()) };
        let stage2 = graph.parent(parent)?.stage2;
        Ok(self.driver.lock().stage2_map(stage2, mapping.iova, pa, mapping.length, access(mapping))?)
    }

    /// Takes mappings out of one parent's tables and out of all caches. If it fails, the tables are as before.
    pub(super) fn unmap(&self, graph: &Graph, parent: u32, mappings: &[Mapping]) -> Result<(), Cause> {
        let stage2 = graph.parent(parent)?.stage2;
        for (done, mapping) in mappings.iter().enumerate() {
            if let Err(error) = self.driver.lock().stage2_unmap(stage2, mapping.iova, mapping.length) {
                self.map_again(graph, parent, &mappings[..done]);
                return Err(error.into());
            }
        }
        self.forget_mappings(graph, parent, mappings).inspect_err(|_| self.map_again(graph, parent, mappings))
    }

    pub(super) fn map_again(&self, graph: &Graph, parent: u32, mappings: &[Mapping]) {
        for mapping in mappings {
            if let Err(cause) = self.map(graph, parent, mapping) {
                tracing::error!(%cause, iova = mapping.iova, "an unmap that failed cannot be undone");
            }
        }
    }

    /// Frees the tables. The tag comes back when nothing that carries it is cached, and not before.
    pub(super) fn destroy_parent(&self, graph: &mut Graph, id: u32) -> Result<(), Cause> {
        let &NestParent { tag, stage2, .. } = graph.parent(id)?;
        self.forget_tag(tag)?;
        self.driver.lock().stage2_destroy(stage2)?;
        graph.tags.give(tag);
        Ok(())
    }
}

/// What devices may do where this maps.
pub(super) fn access(mapping: &Mapping) -> u32 {
    1 | u32::from(mapping.writable) << 1
}

/// The mappings that lie in `iova..iova+length`; `0, u64::MAX` is all there are.
pub(super) fn mappings_in(ioas: &Ioas, iova: u64, length: u64) -> Result<Vec<Mapping>, Cause> {
    if iova == 0 && length == u64::MAX {
        return Ok(ioas.mappings.values().copied().collect());
    }
    let last = iova.checked_add(length.wrapping_sub(1)).filter(|_| length > 0);
    let last = last.ok_or_else(|| Cause::Invalid(format!("{length:#x} bytes at {iova:#x} are no range")))?;
    let end = |mapping: &Mapping| mapping.iova + (mapping.length - 1);
    let touched = ioas.mappings.range(..=last).rev().map(|(_, mapping)| *mapping);
    let mut found: Vec<_> = touched.take_while(|mapping| end(mapping) >= iova).collect();
    found.reverse();
    if let Some(cut) = found.iter().find(|mapping| mapping.iova < iova || end(mapping) > last) {
        let what = format!("{iova:#x}..={last:#x} cuts the mapping {:#x}..={:#x}", cut.iova, end(cut));
        return Err(Cause::Invalid(what));
    }
    if found.is_empty() {
        return Err(Cause::Absent(format!("nothing is mapped in {iova:#x}..={last:#x}")));
    }
    Ok(found)
}
