//! What one guest's DMA may get now, told by the guest itself: a deliberately simple picture, made of what it wrote and
//! what it announced, without tables, queues or caches.
//!
//! Everything that changes has a history: the value now, and values that hardware may still have cached. Each change,
//! and each command as it is written to the queue, gets the next *tick*. A command invalidates what was replaced
//! before its tick, and it counts from the moment the guest has seen the SYNC behind it complete: earlier hardware may
//! not have executed it, later nothing may use what it named.

use super::allowed::Allowed;
use super::lately::{Lately, Page, Whose};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A moment in the order of what a guest did.
pub(crate) type Tick = u64;

/// A value, and older ones that may be cached.
#[derive(Debug, Clone)]
pub(crate) struct History<T> {
    pub(crate) now: T,
    /// With the tick at which each was replaced.
    pub(crate) past: Vec<(T, Tick)>,
}

impl<T> History<T> {
    pub(crate) fn new(now: T) -> Self {
        Self { now, past: Vec::new() }
    }
    fn replace(&mut self, value: T, at: Tick) {
        self.past.push((std::mem::replace(&mut self.now, value), at));
    }
    /// Forgets what was replaced up to `tick`.
    fn kill(&mut self, tick: Tick) -> Vec<T> {
        self.past.extract_if(.., |(_, at)| *at <= tick).map(|(value, _)| value).collect()
    }
    /// Whether it is `value` and was nothing else that may be cached.
    fn is_settled(&self, value: &T) -> bool
    where
        T: PartialEq,
    {
        self.past.is_empty() && self.now == *value
    }
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.now).chain(self.past.iter().map(|(value, _)| value))
    }
}

/// What DMA does while no table entry is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Bypass,
    Abort,
    Translate,
}

/// What a device's table entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    Abort,
    Bypass,
    /// Translated by the context at this address.
    Context(u64),
}

/// An address space as hardware is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    /// Root of the tables.
    pub(crate) root: u64,
    /// The tag of what is cached of them (ASID).
    pub(crate) tag: u16,
}

/// A leaf of a guest's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) base: u64,
    pub(crate) log2: u8,
    /// Guest physical address of its first byte.
    pub(crate) output: u64,
    pub(crate) writable: bool,
}

impl Leaf {
    /// Its last address.
    pub(crate) fn last(&self) -> u64 {
        self.base + ((1 << self.log2) - 1)
    }
    fn touches(&self, first: u64, last: u64) -> bool {
        self.base <= last && self.last() >= first
    }
    pub(crate) fn covers(&self, iova: u64) -> bool {
        (self.base..=self.last()).contains(&iova)
    }
}

/// What a command invalidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Cached leaves of a tag (all, if `None`) that touch these addresses.
    Leaves { tag: Option<u16>, first: u64, last: u64 },
    /// Table entries of these devices, and the contexts found through them.
    Entries { first: u32, last: u32 },
    /// Contexts found through this device's entry.
    Contexts { virt_id: u32 },
}

/// A device.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    /// Whether it is in the machine.
    pub(crate) present: History<bool>,
    pub(crate) entry: History<Entry>,
    /// Older contents of contexts that its entry led to.
    pub(crate) contexts: Vec<(Context, Tick)>,
}

/// Guest physical memory, and what of the host's is behind it.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) base: u64,
    pub(crate) length: u64,
    /// Host physical address of its first byte; `None`: nothing.
    pub(crate) backing: History<Option<u64>>,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Shadow {
    pub(crate) correct: bool,
    tick: Tick,
    pub(crate) mode: History<Mode>,
    pub(crate) streams: BTreeMap<u32, Stream>,
    pub(crate) contexts: BTreeMap<u64, Option<Context>>,
    pub(crate) roots: BTreeMap<u64, Vec<Leaf>>,
    /// Leaves that are in no table any more, or in none that is in use.
    pub(crate) cached: BTreeMap<u16, Vec<(Leaf, Tick)>>,
    /// Leaves that came and were not announced yet, of guests that must: hardware may not know them.
    pub(crate) unknown: BTreeMap<u16, Vec<(Leaf, Tick)>>,
    lately: Lately,
    /// Addresses of interrupts: no DMA, and not translated.
    pub(crate) interrupts: Option<(u64, u64)>,
    /// While an entry, a context or the mode changes, devices may be refused.
    pub(crate) gaps: bool,
    pub(crate) windows: Vec<Window>,
    /// Commands in the queue, with their place in it.
    pending: VecDeque<(u64, Tick, Effect)>,
    /// Something of the host's failed for this machine: its DMA may be blocked.
    pub(crate) forgiven: Option<String>,
    /// When the guest began what it now waits for.
    pub(crate) waits_since: Option<Duration>,
    /// Out of service: its DMA must be blocked.
    pub(crate) quarantined: bool,
}

impl Shadow {
    pub(crate) fn new(correct: bool) -> Self {
        Self {
            correct,
            tick: 0,
            mode: History::new(Mode::Bypass),
            streams: BTreeMap::new(),
            contexts: BTreeMap::new(),
            roots: BTreeMap::new(),
            cached: BTreeMap::new(),
            unknown: BTreeMap::new(),
            lately: Lately::default(),
            interrupts: None,
            gaps: false,
            windows: Vec::new(),
            pending: VecDeque::new(),
            forgiven: None,
            waits_since: None,
            quarantined: false,
        }
    }

    fn next(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    /// A device that is not in the machine.
    pub(crate) fn add_stream(&mut self, virt_id: u32) {
        let (present, entry) = (History::new(false), History::new(Entry::Abort));
        self.streams.insert(virt_id, Stream { present, entry, contexts: Vec::new() });
    }

    /// A leaf appeared where none was; if such must be announced, hardware need not know it before.
    pub(crate) fn map(&mut self, root: u64, leaf: Leaf, announced: bool) {
        let now = self.next();
        self.roots.entry(root).or_default().push(leaf);
        for tag in self.tags_of(root) {
            self.notice(tag, &leaf);
            if announced {
                self.unknown.entry(tag).or_default().push((leaf, now));
            }
        }
    }

    fn notice(&mut self, tag: u16, leaf: &Leaf) {
        self.lately.notice(tag, (leaf.base, leaf.log2));
    }

    /// Tags of what this device's entry, or an older one, leads to.
    fn tags_for(&self, virt_id: u32) -> impl Iterator<Item = u16> {
        let entries = self.streams.get(&virt_id).into_iter().flat_map(|stream| stream.entry.all());
        entries.filter_map(|entry| match entry {
            Entry::Context(address) => self.contexts.get(address).copied().flatten().map(|context| context.tag),
            _ => None,
        })
    }

    /// Pages that changed lately for this device, the newest first.
    pub(crate) fn changed_lately(&self, virt_id: u32) -> Vec<Page> {
        self.tags_for(virt_id).flat_map(|tag| self.lately.recent(tag)).collect()
    }

    /// A page that changed for this device, or may be cached no longer, and that no device has tried since.
    pub(crate) fn take_untried(&mut self, virt_id: u32) -> Option<Page> {
        let tags: Vec<_> = self.tags_for(virt_id).map(Whose::Tag).collect();
        std::iter::once(Whose::Device(virt_id)).chain(tags).find_map(|whose| self.lately.take(whose))
    }

    /// The device should try what this entry lets it reach, or let it.
    fn aim_at_entry(&mut self, virt_id: u32, entry: Entry) {
        match entry {
            Entry::Abort => {}
            Entry::Bypass => {
                let memory = self.windows.first().map(|window| (window.base, window.length.ilog2() as u8));
                memory.into_iter().for_each(|memory| self.lately.aim(Whose::Device(virt_id), memory));
            }
            Entry::Context(address) => {
                let context = self.contexts.get(&address).copied().flatten();
                context.into_iter().for_each(|context| self.aim_at_context(virt_id, context));
            }
        }
    }

    fn aim_at_context(&mut self, virt_id: u32, context: Context) {
        let leaves = self.roots.get(&context.root).into_iter().flatten();
        leaves.for_each(|leaf| self.lately.aim(Whose::Device(virt_id), (leaf.base, leaf.log2)));
    }

    /// The leaf that starts at `base` is no longer in the tables.
    pub(crate) fn unmap(&mut self, root: u64, base: u64) {
        let now = self.next();
        let Some(leaves) = self.roots.get_mut(&root) else { return };
        let Some(at) = leaves.iter().position(|leaf| leaf.base == base) else { return };
        let leaf = leaves.swap_remove(at);
        for tag in self.tags_of(root) {
            self.notice(tag, &leaf);
            self.cached.entry(tag).or_default().push((leaf, now));
        }
    }

    /// Tags under which the tables of `root` may be cached.
    fn tags_of(&self, root: u64) -> Vec<u16> {
        let now = self.contexts.values().flatten();
        let past = self.streams.values().flat_map(|stream| stream.contexts.iter().map(|(context, _)| context));
        let mut tags: Vec<_> = now.chain(past).filter(|context| context.root == root).map(|found| found.tag).collect();
        tags.sort_unstable();
        tags.dedup();
        tags
    }

    /// The memory of a tree is used for something else. Nothing may lead to it any more.
    pub(crate) fn forget_root(&mut self, root: u64) {
        self.roots.remove(&root);
    }

    /// The context at `address` has new contents.
    pub(crate) fn set_context(&mut self, address: u64, context: Context) {
        let now = self.next();
        let Some(old) = self.contexts.insert(address, Some(context)).flatten() else { return };
        for stream in self.streams.values_mut() {
            if stream.entry.all().any(|entry| *entry == Entry::Context(address)) {
                stream.contexts.push((old, now));
            }
        }
    }

    /// A device's table entry has new contents.
    pub(crate) fn set_entry(&mut self, virt_id: u32, entry: Entry) {
        let now = self.next();
        if let Some(stream) = self.streams.get_mut(&virt_id) {
            stream.entry.replace(entry, now);
        }
    }

    /// A command was written to place `at` of the queue.
    pub(crate) fn issued(&mut self, at: u64, effect: Effect) {
        let now = self.next();
        self.pending.push_back((at, now, effect));
    }

    /// The guest has seen the SYNC at place `at` of its queue complete.
    pub(crate) fn synced(&mut self, at: u64) {
        while let Some((_, tick, effect)) = self.pending.pop_front_if(|(place, ..)| *place < at) {
            self.invalidate(effect, tick);
        }
    }

    fn invalidate(&mut self, effect: Effect, tick: Tick) {
        match effect {
            Effect::Leaves { tag, first, last } => {
                let mut gone = Vec::new();
                for (of, cached) in self.cached.iter_mut().filter(|(of, _)| tag.is_none_or(|tag| tag == **of)) {
                    let named = |(leaf, at): &mut (Leaf, Tick)| *at <= tick && leaf.touches(first, last);
                    gone.extend(cached.extract_if(.., named).map(|(leaf, _)| (*of, leaf)));
                }
                for (_, unknown) in self.unknown.iter_mut().filter(|(of, _)| tag.is_none_or(|tag| tag == **of)) {
                    unknown.retain(|(leaf, at)| *at > tick || !leaf.touches(first, last));
                }
                self.refill(tag, first, last);
                // Now nothing may use them: the best of moments to try.
                gone.iter().for_each(|(tag, leaf)| self.notice(*tag, leaf));
            }
            Effect::Entries { first, last } => {
                let named: Vec<_> = self.streams.range(first..=last.max(first)).map(|(id, _)| *id).collect();
                for virt_id in named {
                    self.forget_entries(virt_id, tick);
                    self.forget_contexts(virt_id, tick);
                }
            }
            Effect::Contexts { virt_id } => self.forget_contexts(virt_id, tick),
        }
    }

    /// What is still mapped may be cached no longer: the next to be invalidated shall be.
    fn refill(&mut self, tag: Option<u16>, first: u64, last: u64) {
        for context in self.contexts.values().flatten().filter(|context| tag.is_none_or(|tag| tag == context.tag)) {
            let leaves = self.roots.get(&context.root).into_iter().flatten().filter(|leaf| leaf.touches(first, last));
            leaves.for_each(|leaf| self.lately.aim(Whose::Tag(context.tag), (leaf.base, leaf.log2)));
        }
    }

    fn forget_entries(&mut self, virt_id: u32, tick: Tick) {
        let Some(stream) = self.streams.get_mut(&virt_id) else { return };
        let now = stream.entry.now;
        for entry in stream.entry.kill(tick) {
            self.aim_at_entry(virt_id, now);
            self.aim_at_entry(virt_id, entry);
            if let Entry::Context(address) = entry
                && let Some(context) = self.contexts.get(&address).copied().flatten()
            {
                self.retire(context, tick);
            }
        }
    }

    fn forget_contexts(&mut self, virt_id: u32, tick: Tick) {
        let Some(stream) = self.streams.get_mut(&virt_id) else { return };
        let now = stream.entry.now;
        let dead: Vec<_> = stream.contexts.extract_if(.., |(_, at)| *at <= tick).collect();
        for (context, _) in dead {
            self.retire(context, tick);
            self.aim_at_entry(virt_id, now);
            self.aim_at_context(virt_id, context);
        }
    }

    /// No walk begins at this context after `tick`; what walks found until then may be cached.
    fn retire(&mut self, context: Context, tick: Tick) {
        let leaves = self.roots.get(&context.root).into_iter().flatten();
        self.cached.entry(context.tag).or_default().extend(leaves.map(|leaf| (*leaf, tick)));
    }

    /// The guest turns its IOMMU on or off; until [`Shadow::mode_is_set`], either may hold. When this began.
    pub(crate) fn set_mode(&mut self, mode: Mode) -> Tick {
        let now = self.next();
        self.mode.replace(mode, now);
        now
    }

    /// The write that began at `began` has returned: every device does what the guest says now, entries included.
    pub(crate) fn mode_is_set(&mut self, began: Tick) {
        self.mode.kill(began);
        if self.mode.now == Mode::Translate {
            let all: Vec<_> = self.streams.keys().copied().collect();
            all.into_iter().for_each(|virt_id| self.forget_entries(virt_id, began));
        }
    }

    /// The machine was reset: nothing is cached, nothing is announced.
    pub(crate) fn was_reset(&mut self) {
        let now = self.next();
        self.mode.kill(now);
        self.pending.clear();
        self.cached.clear();
        self.unknown.clear();
        self.roots.clear();
        self.contexts.clear();
        for stream in self.streams.values_mut() {
            stream.entry = History::new(Entry::Abort);
            stream.contexts.clear();
        }
    }

    /// A device comes or goes; until [`Shadow::presence_is_set`], either may hold.
    pub(crate) fn set_presence(&mut self, virt_id: u32, present: bool) {
        let now = self.next();
        if let Some(stream) = self.streams.get_mut(&virt_id)
            && stream.present.now != present
        {
            stream.present.replace(present, now);
        }
    }

    /// It is there, or gone.
    pub(crate) fn presence_is_set(&mut self, virt_id: u32) {
        let now = self.next();
        let Some(stream) = self.streams.get_mut(&virt_id) else { return };
        stream.present.kill(now);
        if !stream.present.now {
            let entry = stream.entry.now;
            stream.entry.replace(entry, now);
            self.forget_entries(virt_id, now);
            self.forget_contexts(virt_id, now);
        }
    }

    /// Whether the device was taken out, and for certain.
    pub(crate) fn is_absent(&self, virt_id: u32) -> bool {
        self.streams.get(&virt_id).is_none_or(|stream| stream.present.all().all(|present| !present))
    }

    /// Other host memory behind a window; until [`Shadow::backing_is_set`], either may be.
    pub(crate) fn set_backing(&mut self, base: u64, backing: Option<u64>) {
        let now = self.next();
        if let Some(window) = self.windows.iter_mut().find(|window| window.base == base) {
            window.backing.replace(backing, now);
        }
    }

    pub(crate) fn backing_is_set(&mut self, base: u64) {
        let now = self.next();
        let Some(window) = self.windows.iter_mut().find(|window| window.base == base) else { return };
        window.backing.kill(now);
        let memory = base..base + window.length;
        let concerned = |(root, leaves): (&u64, &Vec<Leaf>)| {
            leaves.iter().filter(|leaf| memory.contains(&leaf.output)).map(|leaf| (*root, *leaf)).collect::<Vec<_>>()
        };
        let leaves: Vec<_> = self.roots.iter().flat_map(concerned).collect();
        for (root, leaf) in leaves {
            self.tags_of(root).into_iter().for_each(|tag| self.notice(tag, &leaf));
        }
    }

    /// Whether the host has a tag for the guest's domain `tag`, for certain: a device is translated under it, and nothing
    /// of that is about to change.
    pub(crate) fn resides(&self, tag: u16) -> bool {
        let settled = self.correct && self.forgiven.is_none() && self.mode.is_settled(&Mode::Translate);
        let leads = |stream: &Stream| {
            stream.present.is_settled(&true)
                && stream.entry.past.is_empty()
                && stream.contexts.is_empty()
                && matches!(stream.entry.now, Entry::Context(at) if self.contexts.get(&at).copied().flatten().is_some_and(|context| context.tag == tag))
        };
        settled && self.streams.values().any(leads)
    }

    /// Whether the host physical address is this machine's, or may still be.
    pub(crate) fn owns(&self, address: u64) -> bool {
        let inside = |window: &Window, first: u64| (first..first + window.length).contains(&address);
        self.windows.iter().any(|window| window.backing.all().flatten().any(|first| inside(window, *first)))
    }

    /// What this access may get now.
    pub(crate) fn allowed(&self, virt_id: u32, iova: u64, write: bool) -> Allowed {
        Allowed::of(self, virt_id, iova, write)
    }
}
