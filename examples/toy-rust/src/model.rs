//! The toy IOMMU in software.

use crate::spec::{self, Frame};
use std::fmt::Write;
use viommu_plugin::{Answer, CacheStats, Message, Model, ModelHost, Request, Status};

/// A page of a stream, cached (5).
#[derive(Debug, Clone, Copy)]
struct Place {
    tag: u64,
    stream: u32,
    page: u64,
    output: u64,
    permissions: u32,
    stage: u32,
}

type Places = Vec<Option<Place>>;

const PLACES: usize = 1024;

/// The software IOMMU.
pub struct ToyModel {
    host: Box<dyn ModelHost>,
    frame: Frame,
    features: u64,
    atc: bool,
    unanswered: bool,
    tlb: Places,
    devices: Places,
    silent: Vec<bool>,
    stats: CacheStats,
}

fn place_of(stream: u32, page: u64) -> usize {
    (page.wrapping_add(37 * u64::from(stream)) % PLACES as u64) as usize
}

fn fault(fault: u32, stage: u32, ipa: u64) -> Answer {
    Answer { status: Status::FAULT, fault, stage, ipa, leaf_log2: 12, ..Answer::default() }
}

fn forget(places: &mut Places, fits: impl Fn(&Place) -> bool) {
    for place in places.iter_mut().filter(|place| place.as_ref().is_some_and(&fits)) {
        *place = None;
    }
}

impl Place {
    /// The answer to `request`, if it is about this page and asks for no more than is granted.
    fn answer(&self, tag: u64, request: &Request, flags: u32) -> Option<Answer> {
        let fits = (self.tag, self.stream, self.page) == (tag, request.stream, request.iova / spec::PAGE);
        if !fits || request.access & 3 & !self.permissions != 0 {
            return None;
        }
        let output = self.output | request.iova & (spec::PAGE - 1);
        let Self { stage, permissions, .. } = *self;
        Some(Answer { status: Status::OK, stage, output, permissions, leaf_log2: 12, flags, ..Answer::default() })
    }
}

impl ToyModel {
    pub(crate) fn new(host: Box<dyn ModelHost>, features: u64, atc: bool) -> Self {
        Self {
            host,
            frame: Frame::new(features),
            features,
            atc: atc && features & spec::DEVICE_CACHE != 0,
            unanswered: false,
            tlb: vec![None; PLACES],
            devices: vec![None; PLACES],
            silent: vec![false; spec::STREAMS as usize],
            stats: CacheStats::default(),
        }
    }

    fn load<const N: usize>(&self, pa: u64) -> Option<[u64; N]> {
        let mut bytes = [[0; 8]; N];
        self.host.read(pa, bytes.as_flattened_mut()).ok()?;
        Some(spec::words(&bytes))
    }

    /// Executes a command; `Err` is why the queue stops.
    fn execute(&mut self, command: [u64; 2]) -> Result<(), u64> {
        let [first, second] = spec::allowed(command, self.features).ok_or(spec::ERROR_ILLEGAL)?;
        if command[0] & !first != 0 || command[1] & !second != 0 {
            return Err(spec::ERROR_ILLEGAL);
        }
        let tag = if self.features & spec::STAGE2 != 0 { (command[0] & spec::TAG) >> spec::TAG_SHIFT } else { 0 };
        let stream = (command[0] >> spec::STREAM_SHIFT) as u32;
        let page = command[1] / spec::PAGE;
        match command[0] as u8 {
            spec::INVALIDATE_PAGE => forget(&mut self.tlb, |place| (place.tag, place.page) == (tag, page)),
            spec::INVALIDATE_TAG => forget(&mut self.tlb, |place| place.tag == tag),
            spec::INVALIDATE_DEVICE => {
                self.unanswered |= self.silent.get(stream as usize).copied().unwrap_or(false);
                let all = command[0] & spec::ALL != 0;
                forget(&mut self.devices, |place| place.stream == stream && (all || place.page == page));
            }
            spec::CHANGED => forget(&mut self.tlb, |place| place.stream == stream),
            _ if std::mem::take(&mut self.unanswered) => return Err(spec::ERROR_TIMEOUT),
            _ => {
                if command[0] & spec::STORE != 0 {
                    // A store to nowhere is lost, as on a bus.
                    let _ = self.host.write(command[1], &1_u64.to_le_bytes());
                }
            }
        }
        Ok(())
    }

    /// Stage 2 of an address: its output and permissions.
    fn second(&self, ranges: u64, address: u64) -> Option<(u64, u32)> {
        for index in 0..spec::RANGES {
            let [first, output, bytes, flags] = self.load(ranges + index * spec::RANGE_BYTES)?;
            let offset = address.wrapping_sub(first);
            if flags & spec::RANGE_VALID != 0 && address < spec::INPUT_END && offset < bytes {
                return Some((output.wrapping_add(offset), if flags & spec::RANGE_WRITE != 0 { 3 } else { 1 }));
            }
        }
        None
    }

    /// Stage 1 of an address: its output and permissions.
    fn first(&self, entry: &[u64; 4], request: &Request) -> Result<(u64, u32), Answer> {
        let index = request.iova / spec::PAGE;
        if index >= spec::PAGES {
            return Err(fault(spec::NO_PAGE, 1, 0));
        }
        let mut place = entry[1] + 8 * index;
        if entry[0] & spec::ENTRY_STAGE2 != 0 {
            place = self.second(entry[2], place).ok_or(fault(spec::NO_RANGE, 2, place))?.0;
        }
        let known = spec::ADDRESS | spec::PAGE_VALID | spec::PAGE_WRITE;
        let leaf = self.load(place).map(|[leaf]| leaf);
        let leaf = leaf.filter(|leaf| leaf & spec::PAGE_VALID != 0 && leaf & !known == 0);
        let leaf = leaf.ok_or(fault(spec::NO_PAGE, 1, 0))?;
        let granted = if leaf & spec::PAGE_WRITE != 0 { 3 } else { 1 };
        if request.access & 3 & !granted != 0 {
            return Err(fault(spec::NO_PAGE, 1, 0));
        }
        Ok((leaf & spec::ADDRESS | request.iova & (spec::PAGE - 1), granted))
    }

    /// Walks from an entry that translates: OK or FAULT.
    fn walk(&self, entry: &[u64; 4], request: &Request) -> Result<Answer, Answer> {
        let table = entry[0] & spec::ENTRY_TABLE != 0;
        let (mut output, mut permissions) = if table { self.first(entry, request)? } else { (request.iova, 3) };
        if entry[0] & spec::ENTRY_STAGE2 != 0 {
            let ipa = output;
            let found = self.second(entry[2], ipa).filter(|(_, granted)| request.access & 3 & !granted == 0);
            let (address, granted) = found.ok_or(fault(spec::NO_RANGE, 2, ipa))?;
            (output, permissions) = (address, permissions & granted);
        }
        let stage = if table { 1 } else { 2 };
        Ok(Answer { status: Status::OK, stage, output, permissions, leaf_log2: 12, ..Answer::default() })
    }

    /// The entry of the request's stream, if it translates; else the answer.
    fn entry(&self, request: &Request) -> Result<[u64; 4], Answer> {
        let identity =
            |status| Answer { status, output: request.iova, permissions: 3, leaf_log2: 12, ..Answer::default() };
        if self.frame.get(spec::CONTROL) & spec::CONTROL_TRANSLATE == 0 {
            return Err(identity(Status::DISABLED));
        }
        let bad = fault(spec::BAD_ENTRY, 0, 0);
        if request.stream >= spec::STREAMS || request.pasid != u32::MAX {
            return Err(bad);
        }
        let place = self.frame.get(spec::TABLE) + u64::from(request.stream) * spec::ENTRY_BYTES;
        let entry: [u64; 4] = self.load(place).ok_or(bad)?;
        if entry[0] & spec::ENTRY_VALID == 0 {
            return Err(Answer { status: Status::ABORT, leaf_log2: 12, ..Answer::default() });
        }
        if !spec::is_legal(&entry, self.features) {
            return Err(bad);
        }
        match entry[0] & (spec::ENTRY_TABLE | spec::ENTRY_STAGE2) {
            0 => Err(identity(Status::BYPASS)),
            _ => Ok(entry),
        }
    }

    fn answer(&mut self, request: &Request) -> Answer {
        let counts = u64::from(request.flags & Request::SPECULATIVE == 0);
        let entry = match self.entry(request) {
            Ok(entry) => entry,
            Err(answer) => return answer,
        };
        let (page, tag) = (request.iova / spec::PAGE, entry[0] >> spec::ENTRY_TAG_SHIFT);
        let at = place_of(request.stream, page);
        if self.atc {
            let hit = self.devices[at].and_then(|place| place.answer(0, request, 2));
            *(if hit.is_some() { &mut self.stats.atc_hits } else { &mut self.stats.atc_misses }) += counts;
            if let Some(answer) = hit {
                return answer;
            }
        }
        let hit = self.tlb[at].and_then(|place| place.answer(tag, request, 1));
        let stats = &mut self.stats;
        *(match (entry[0] & spec::ENTRY_TABLE != 0, hit.is_some()) {
            (true, true) => &mut stats.hits,
            (true, false) => &mut stats.misses,
            (false, true) => &mut stats.stage2_hits,
            (false, false) => &mut stats.stage2_misses,
        }) += counts;
        let answer = match hit {
            Some(answer) => answer,
            None => match self.walk(&entry, request) {
                Ok(answer) => answer,
                Err(answer) => return answer,
            },
        };
        let Answer { permissions, stage, .. } = answer;
        let output = answer.output & !(spec::PAGE - 1);
        let found = Place { tag, stream: request.stream, page, output, permissions, stage };
        if hit.is_none() {
            self.fill(at, found, false);
        }
        if self.atc {
            self.fill(at, Place { tag: 0, ..found }, true);
        }
        answer
    }

    fn fill(&mut self, at: usize, found: Place, device: bool) {
        let places = if device { &mut self.devices } else { &mut self.tlb };
        let key = |place: &Place| (place.tag, place.stream, place.page);
        self.stats.evictions += u64::from(places[at].is_some_and(|there| key(&there) != key(&found)));
        places[at] = Some(found);
    }

    fn record(&mut self, request: &Request, code: u32) {
        if let Some(place) = self.frame.event_place() {
            let words = [u64::from(request.stream) | u64::from(code) << spec::CODE_SHIFT, request.iova];
            // An event queue that is not memory loses its records.
            let _ = self.host.write(place, words.map(u64::to_le_bytes).as_flattened());
            self.host.irq(spec::LINE_EVENT);
        }
    }
}

impl Model for ToyModel {
    fn mmio_read(&mut self, offset: u64, size: u32) -> u64 {
        self.frame.read(offset, size)
    }

    fn mmio_write(&mut self, offset: u64, size: u32, value: u64) {
        self.frame.write(offset, size, value);
    }

    fn step(&mut self, budget: u32) -> u32 {
        let mut done = 0;
        let on = self.frame.get(spec::CONTROL) & spec::CONTROL_QUEUE != 0;
        while on && done < budget && self.frame.error() == 0 && self.frame.pending() > 0 {
            let index = self.frame.get(spec::HEAD) & spec::INDEX;
            let command = self.load(self.frame.get(spec::QUEUE) + index * 8 * spec::COMMAND_WORDS as u64);
            if let Err(error) = command.ok_or(spec::ERROR_FETCH).and_then(|command| self.execute(command)) {
                self.frame.stop(error);
                self.host.irq(spec::LINE_ERROR);
                break;
            }
            self.frame.advance(1);
            done += 1;
        }
        done
    }

    fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> usize {
        for (request, answer) in requests.iter().zip(answers.iter_mut()) {
            *answer = self.answer(request);
            if answer.status == Status::FAULT && request.flags & Request::SPECULATIVE == 0 {
                self.record(request, answer.fault);
            }
        }
        requests.len().min(answers.len())
    }

    fn explain(&mut self, request: &Request, text: &mut Message) {
        let entry = self.entry(request);
        let answer = entry.and_then(|entry| self.walk(&entry, request)).unwrap_or_else(|answer| answer);
        // Writing into a Message cuts and does not fail.
        let _ = write!(text, "stream {:#x}, entry {entry:x?}: without caches {answer:x?}", request.stream);
    }

    fn stats(&self) -> CacheStats {
        self.stats
    }

    fn atc_unresponsive(&mut self, stream: u32, unresponsive: bool) {
        if let Some(silent) = self.silent.get_mut(stream as usize) {
            *silent = unresponsive;
        }
    }

    fn reset(&mut self) {
        self.frame = Frame::new(self.features);
        self.tlb.fill(None);
        self.devices.fill(None);
        self.silent.fill(false);
        self.unanswered = false;
    }
}
