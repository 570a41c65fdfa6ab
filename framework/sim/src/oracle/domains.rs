//! Tags of the hardware: whose each is, told by what the driver is asked to do.

use std::collections::BTreeMap;

/// What has a tag of its own: a machine's stage 2, a guest's domain in it, a shadow of a table of a domain's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owned {
    /// The machine.
    pub(crate) vm: u32,
    /// The driver's handle of the table that the host walks.
    pub(crate) table: u32,
    /// The guest's number of the domain.
    pub(crate) domain: Option<u32>,
}

/// Tags in use, and tags under which something may be cached.
#[derive(Debug, Default)]
pub(crate) struct Domains {
    /// What each stream is translated under.
    streams: BTreeMap<u32, (u32, Owned)>,
    /// Who last used a tag that was not flushed since.
    cached: BTreeMap<u32, Owned>,
}

impl Domains {
    /// Stream goes through something with a tag. What is wrong with that.
    pub(crate) fn attached(&mut self, stream: u32, tag: u32, owned: Owned) -> Option<String> {
        self.streams.insert(stream, (tag, owned));
        let cached = self.cached.insert(tag, owned).filter(|before| *before != owned);
        let shared = self.streams.values().find(|(other, of)| *other == tag && *of != owned);
        if let Some((_, other)) = shared {
            return Some(format!("tag {tag} is both of {other:?} and of {owned:?}"));
        }
        if let Some(before) = cached {
            return Some(format!("tag {tag} of {before:?} was not flushed before it became that of {owned:?}"));
        }
        let split = self.streams.values().find(|(other, of)| *other != tag && *of == owned);
        split.map(|(other, _)| format!("{owned:?} has tag {other} and tag {tag}"))
    }

    /// The domain of this machine's guest that a tag is of.
    pub(crate) fn domain_of(&self, vm: u32, tag: u32) -> Option<u32> {
        self.cached.get(&tag).filter(|owned| owned.vm == vm)?.domain
    }

    /// Stream goes nowhere.
    pub(crate) fn detached(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// Everything that carries the tag is being forgotten.
    pub(crate) fn flushed(&mut self, tag: u32) {
        if self.streams.values().all(|(used, _)| *used != tag) {
            self.cached.remove(&tag);
        }
    }
}
