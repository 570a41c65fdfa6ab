//! The mock IOMMU in software.

use crate::behaviour::Behaviour;
use crate::spec::{self, Frame, opcode};
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use viommu_plugin::{Answer, CacheStats, Message, Model, ModelHost, Request, Status};

/// A cached translation: stream, page, answer.
type Cached = (u32, u64, Answer);

/// The mock's model.
pub struct MockModel {
    host: Box<dyn ModelHost>,
    behaviour: Behaviour,
    frame: Frame,
    atc: bool,
    /// By tag and slot.
    iotlb: HashMap<(u64, u64), Cached>,
    /// By stream and slot.
    cache: HashMap<(u32, u64), Cached>,
    silent: HashSet<u32>,
    /// An invalidation since the last SYNC that its device does not answer.
    unanswered: bool,
    stats: CacheStats,
}

impl std::fmt::Debug for MockModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MockModel").field("frame", &self.frame).finish_non_exhaustive()
    }
}

impl MockModel {
    pub(crate) fn new(host: Box<dyn ModelHost>, atc: bool, behaviour: Behaviour) -> Self {
        let (iotlb, cache, silent, stats) = Default::default();
        Self { host, behaviour, frame: Frame::default(), atc, iotlb, cache, silent, unanswered: false, stats }
    }

    fn words<const N: usize>(&self, pa: u64) -> Option<[u64; N]> {
        let mut words = [[0; 8]; N];
        self.host.read(pa, words.as_flattened_mut()).ok()?;
        Some(words.map(u64::from_le_bytes))
    }

    /// Executes one command; `Err` is the queue error.
    fn execute(&mut self, [word, argument]: [u64; 2]) -> Result<(), u32> {
        let (stream, slot) = (argument as u32, (word & spec::SLOT_MASK) >> spec::SLOT_SHIFT);
        match word as u8 {
            opcode::INVALIDATE_IOTLB => {
                let (tag, all) = (word >> spec::TAG_SHIFT, word & spec::FLAG_ALL != 0);
                self.iotlb.retain(|key, _| key.0 != tag || (!all && key.1 != slot));
            }
            opcode::INVALIDATE_CACHE => {
                self.unanswered |= self.silent.contains(&stream);
                self.cache.remove(&(stream, slot));
            }
            opcode::SYNC => {
                if std::mem::take(&mut self.unanswered) {
                    return Err(spec::ERROR_TIMEOUT);
                }
                match argument {
                    0 => self.host.irq(2),
                    // A message to nowhere is lost, as on a bus.
                    address => {
                        let _ = self.host.write(address, &[0; 4]);
                    }
                }
            }
            opcode::CONFIG | opcode::PREFETCH => {}
            _ => return Err(spec::ERROR_ILLEGAL),
        }
        Ok(())
    }

    /// Walks for a request: the answer and the tag it is cached under.
    fn walk(&self, request: &Request) -> (Answer, u64) {
        let answer = |status| Answer { status, output: request.iova, leaf_log2: spec::PAGE_LOG2, ..Answer::default() };
        let fault = |fault, stage, ipa| (Answer { fault, stage, ipa, output: 0, ..answer(Status::FAULT) }, 0);
        if self.frame.get(spec::CONTROL) & spec::CONTROL_TRANSLATE == 0 {
            return (answer(Status::DISABLED), 0);
        }
        let (table, log2) = spec::base(self.frame.get(spec::TABLE_BASE));
        let place = table.wrapping_add(u64::from(request.stream) * 8 * spec::ENTRY_WORDS as u64);
        let entry = if request.stream < 1 << log2 { self.words::<4>(place) } else { None };
        let Some([flags, offset, ranges, tag]) = entry else { return fault(spec::EVENT_BAD_ENTRY, 0, 0) };
        if flags & spec::ENTRY_VALID == 0 {
            return (answer(Status::ABORT), tag);
        }
        let stage1 = flags & spec::ENTRY_BYPASS == 0;
        let ipa = if stage1 { request.iova.wrapping_add(offset) } else { request.iova };
        let ok = Answer { output: ipa, stage: 1, permissions: 3, ..answer(Status::OK) };
        match (stage1, flags & spec::ENTRY_STAGE2 != 0) {
            (false, false) => return (answer(Status::BYPASS), tag),
            (true, false) => return (ok, tag),
            _ => {}
        }
        for index in 0..spec::RANGES {
            let range = self.words::<4>(ranges.wrapping_add(index * spec::RANGE_BYTES));
            let Some([start, pa, len, flags]) = range else { break };
            let inside = flags & 1 != 0 && ipa.wrapping_sub(start) < len;
            if inside && (request.access != 2 || flags & 2 != 0) {
                let permissions = if flags & 2 != 0 { 3 } else { 1 };
                return (Answer { output: pa.wrapping_add(ipa.wrapping_sub(start)), stage: 2, permissions, ..ok }, tag);
            }
        }
        fault(spec::EVENT_STAGE2, 2, ipa)
    }

    fn record(&mut self, request: &Request, code: u32) {
        if let Some(place) = self.frame.event_place() {
            let words = [u64::from(request.stream) | u64::from(code) << 32, request.iova];
            // An event queue that is not memory loses its records.
            let _ = self.host.write(place, words.map(u64::to_le_bytes).as_flattened());
            self.host.irq(0);
        }
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let (page, offset) = (request.iova >> spec::PAGE_LOG2, request.iova & 0xfff);
        let slot = page % spec::SLOTS;
        let speculative = request.flags & Request::SPECULATIVE != 0;
        let cached = |found: &Cached, flags| {
            let fits = (found.0, found.1) == (request.stream, page);
            fits.then_some(Answer { output: found.2.output | offset, flags, ..found.2 })
        };
        if let Some(answer) = self.cache.get(&(request.stream, slot)).and_then(|found| cached(found, 2)) {
            self.stats.atc_hits += u64::from(!speculative);
            return answer;
        }
        let (answer, tag) = self.walk(request);
        match answer.status {
            Status::OK => {
                let hit = self.iotlb.get(&(tag, slot)).and_then(|found| cached(found, 1));
                if !speculative {
                    *(if hit.is_some() { &mut self.stats.hits } else { &mut self.stats.misses }) += 1;
                }
                let found = (request.stream, page, Answer { output: answer.output & !0xfff, ..answer });
                if hit.is_none() {
                    self.iotlb.insert((tag, slot), found);
                }
                if self.atc {
                    self.stats.atc_misses += u64::from(!speculative);
                    self.cache.insert((request.stream, slot), found);
                }
                hit.unwrap_or(answer)
            }
            Status::FAULT => {
                if !speculative {
                    self.record(request, answer.fault);
                }
                answer
            }
            _ => answer,
        }
    }
}

impl Model for MockModel {
    fn mmio_read(&mut self, offset: u64, size: u32) -> u64 {
        self.behaviour.enter("model_mmio_read");
        match (offset, size) {
            (spec::BEHAVIOUR, 8) => self.behaviour.value(),
            (_, 4) => self.frame.get(offset) & 0xffff_ffff,
            (_, 8) => self.frame.get(offset),
            _ => 0,
        }
    }

    fn mmio_write(&mut self, offset: u64, size: u32, value: u64) {
        self.behaviour.enter("model_mmio_write");
        self.frame.write(offset, size, value);
    }

    fn step(&mut self, budget: u32) -> u32 {
        self.behaviour.enter("model_step");
        if self.behaviour.lies("model_step") {
            return budget + 1;
        }
        let (base, log2) = spec::base(self.frame.get(spec::QUEUE_BASE));
        let mut done = 0;
        let on = self.frame.get(spec::CONTROL) & spec::CONTROL_QUEUE != 0;
        while on && done < budget && self.frame.error() == 0 && (1..=1 << log2).contains(&self.frame.pending()) {
            let index = self.frame.cons() & ((1 << log2) - 1);
            let place = base.wrapping_add(index * 8 * spec::COMMAND_WORDS as u64);
            let command = self.words::<2>(place).ok_or(spec::ERROR_FETCH);
            match command.and_then(|command| self.execute(command)) {
                Ok(()) => {
                    self.frame.advance(1);
                    done += 1;
                }
                Err(error) => {
                    self.frame.stop(error);
                    self.host.irq(3);
                }
            }
        }
        done
    }

    fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> usize {
        self.behaviour.enter("model_translate");
        let count = requests.len().min(answers.len());
        for (request, answer) in requests.iter().zip(answers.iter_mut()) {
            *answer = self.answer(request);
        }
        count + usize::from(self.behaviour.lies("model_translate"))
    }

    fn explain(&mut self, request: &Request, text: &mut Message) {
        self.behaviour.enter("model_explain");
        let (answer, tag) = self.walk(request);
        // Writing into a Message cuts and does not fail.
        let _ = write!(text, "stream {} of tag {tag}: {answer:?}", request.stream);
    }

    fn stats(&self) -> CacheStats {
        self.behaviour.enter("model_stats");
        self.stats
    }

    fn atc_unresponsive(&mut self, stream: u32, unresponsive: bool) {
        self.behaviour.enter("model_atc_unresponsive");
        if unresponsive {
            self.silent.insert(stream);
        } else {
            self.silent.remove(&stream);
        }
    }

    fn reset(&mut self) {
        self.behaviour.enter("model_reset");
        self.frame = Frame::default();
        self.iotlb.clear();
        self.cache.clear();
        self.silent.clear();
        self.unanswered = false;
    }
}
