//! Hostile hardware: an IOMMU that refills its caches unasked, whenever it is allowed to, which is always.
//!
//! Software may not count on an entry staying away because nobody used it: only an invalidation behind the change of the
//! table, and its completion, make it go for good. So between any two commands, requests that were made not long ago are
//! made again as speculative ones, and devices with a cache of their own (ATC) ask again at once for what a command took
//! from them. All of it reads the memory as it stands.

use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng, SeedableRng};
use std::collections::VecDeque;
use viommu_plugin::{Answer, Request, Status};
use viommu_plugin_host::CallError;

/// Pages remembered. What was used longer ago is left in peace.
const REMEMBERED: usize = 256;
/// Of these, the newest, from which every other request is drawn: those are the ones being unmapped.
const NEWEST: u32 = 16;
/// Requests made between two commands are `0..=AT_ONCE`.
const AT_ONCE: u32 = 3;
/// log2 of what counts as the same address: the smallest page of any format.
const PAGE_LOG2: u32 = 12;

/// An address that no table translates: a request for it reads the configuration and no more.
const NOWHERE: u64 = u64::MAX << PAGE_LOG2;

/// [`Answer::flags`]: answered from the TLB.
const FROM_TLB: u32 = 1;
/// [`Answer::flags`]: answered from the device's own cache.
const FROM_ATC: u32 = 2;

/// What hardware that speculates has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Speculated {
    /// Speculative requests that reached the IOMMU.
    pub requests: u64,
    /// Translations that they put into the TLB.
    pub tlb_fills: u64,
    /// Translations that they put into the cache of a device.
    pub atc_fills: u64,
}

/// Who answers requests: the model.
pub(super) trait Translate {
    /// Devices' requests, in order.
    fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> Result<usize, CallError>;
}

impl Translate for viommu_plugin_host::Model {
    fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> Result<usize, CallError> {
        Self::translate(self, requests, answers)
    }
}

/// What was used lately, and the draw of what is asked for again. The same calls give the same requests.
pub(super) struct Speculation {
    draw: Pcg32,
    /// Whether devices may have caches.
    atc: bool,
    /// Oldest first, each page once.
    recent: VecDeque<Recent>,
    chosen: Vec<usize>,
    requests: Vec<Request>,
    answers: Vec<Answer>,
    done: Speculated,
}

struct Recent {
    request: Request,
    /// The device has it in its cache, unless a command since has removed it.
    held: bool,
    /// Its translation tables are not to be read, only its configuration.
    spared: bool,
}

impl Speculation {
    /// Hardware that has seen no request yet. With `atc`, devices have caches.
    pub(super) fn new(seed: u64, atc: bool) -> Self {
        Self {
            draw: Pcg32::seed_from_u64(seed),
            atc,
            recent: VecDeque::with_capacity(REMEMBERED),
            chosen: Vec::new(),
            requests: Vec::new(),
            answers: Vec::new(),
            done: Speculated::default(),
        }
    }

    /// What was done so far.
    pub(super) fn done(&self) -> Speculated {
        self.done
    }

    /// Remembers what devices asked for just now.
    pub(super) fn saw(&mut self, model: &mut impl Translate, requests: &[Request]) -> Result<(), CallError> {
        for request in requests.iter().filter(|request| request.flags & Request::SPECULATIVE == 0) {
            // What access was meant does not matter: a cache keeps the rights that the tables grant.
            let request = Request { access: 0, flags: Request::SPECULATIVE, ..*request };
            let same = |other: &Recent| is_same_page(&other.request, &request);
            let held = match self.recent.iter().rposition(same).and_then(|place| self.recent.remove(place)) {
                Some(before) => before.held,
                None => false,
            };
            if self.recent.len() == REMEMBERED {
                self.recent.pop_front();
            }
            self.recent.push_back(Recent { request, held, spared: false });
            if self.atc && !held {
                self.look(model)?;
            }
        }
        Ok(())
    }

    /// Until they are used again, leaves the translation tables of these streams alone.
    pub(super) fn spare_tables(&mut self, streams: impl Fn(u32) -> bool) {
        for recent in self.recent.iter_mut().filter(|recent| streams(recent.request.stream)) {
            recent.spared = true;
            recent.held = false;
        }
    }

    /// Right behind a command: devices ask again for what it removed from their caches.
    pub(super) fn behind_command(&mut self, model: &mut impl Translate) -> Result<(), CallError> {
        if self.atc {
            self.chosen.clear();
            self.chosen.extend((0..self.recent.len()).filter(|&place| self.recent[place].held));
            self.ask(model)?;
        }
        self.between(model)
    }

    /// At any moment: the hardware asks for some of what it saw lately.
    pub(super) fn between(&mut self, model: &mut impl Translate) -> Result<(), CallError> {
        let known = self.recent.len() as u32;
        let count = self.below(AT_ONCE + 1);
        self.chosen.clear();
        for _ in 0..count.min(known) {
            let newest = self.below(2) == 0;
            let age = self.below(if newest { known.min(NEWEST) } else { known });
            let place = (known - 1 - age) as usize;
            if !self.chosen.contains(&place) {
                self.chosen.push(place);
            }
        }
        self.ask(model)
    }

    /// Makes the chosen requests.
    fn ask(&mut self, model: &mut impl Translate) -> Result<(), CallError> {
        self.send(model)?;
        let (recent, done) = (&mut self.recent, &mut self.done);
        let mut answers = self.answers.iter();
        self.chosen.retain(|&place| {
            let Some(answer) = answers.next() else { return false };
            let translated = answer.status == Status::OK;
            recent[place].held = translated && answer.flags & FROM_ATC != 0;
            done.requests += u64::from(!recent[place].held);
            done.tlb_fills += u64::from(translated && answer.flags & (FROM_TLB | FROM_ATC) == 0);
            translated && !recent[place].held
        });
        if self.atc { self.look_again(model) } else { Ok(()) }
    }

    /// Whether the device holds the newest request now.
    fn look(&mut self, model: &mut impl Translate) -> Result<(), CallError> {
        self.chosen.clear();
        self.chosen.push(self.recent.len() - 1);
        self.send(model)?;
        self.recent[self.chosen[0]].held = self.answers[0].flags & FROM_ATC != 0;
        Ok(())
    }

    /// Which of the chosen requests, just answered by the IOMMU, the device holds now.
    fn look_again(&mut self, model: &mut impl Translate) -> Result<(), CallError> {
        self.send(model)?;
        for (&place, answer) in self.chosen.iter().zip(&self.answers) {
            let held = answer.flags & FROM_ATC != 0;
            self.recent[place].held = held;
            self.done.atc_fills += u64::from(held);
        }
        Ok(())
    }

    fn send(&mut self, model: &mut impl Translate) -> Result<(), CallError> {
        if self.chosen.is_empty() {
            self.answers.clear();
            return Ok(());
        }
        self.requests.clear();
        self.requests.extend(self.chosen.iter().map(|&place| match &self.recent[place] {
            Recent { request, spared: true, .. } => Request { iova: NOWHERE, ..*request },
            Recent { request, .. } => *request,
        }));
        self.answers.clear();
        self.answers.resize(self.requests.len(), Answer::default());
        model.translate(&self.requests, &mut self.answers).map(drop)
    }

    /// A number below `bound`; 0 if there is none.
    fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.draw.next_u32()) * u64::from(bound)) >> 32) as u32
    }
}

fn is_same_page(one: &Request, other: &Request) -> bool {
    one.stream == other.stream && one.pasid == other.pasid && one.iova >> PAGE_LOG2 == other.iova >> PAGE_LOG2
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Has a device with a cache; keeps what it was asked.
    #[derive(Default)]
    struct Fake {
        asked: Vec<Vec<Request>>,
        cached: BTreeSet<u64>,
        unmapped: BTreeSet<u64>,
    }

    impl Translate for Fake {
        fn translate(&mut self, requests: &[Request], answers: &mut [Answer]) -> Result<usize, CallError> {
            self.asked.push(requests.to_vec());
            for (request, answer) in requests.iter().zip(answers) {
                let page = request.iova >> PAGE_LOG2;
                *answer = match (self.unmapped.contains(&page), self.cached.contains(&page)) {
                    (_, true) => Answer { flags: FROM_ATC, ..Answer::default() },
                    (true, false) => Answer { status: Status::FAULT, ..Answer::default() },
                    (false, false) => Answer::default(),
                };
                if answer.status == Status::OK {
                    self.cached.insert(page);
                }
            }
            Ok(requests.len())
        }
    }

    fn page(page: u64) -> Request {
        Request { stream: 1, pasid: u32::MAX, iova: page << PAGE_LOG2 | 8, access: 2, flags: 0 }
    }

    #[test]
    fn a_bounded_number_of_pages_is_remembered_each_once() {
        let (mut speculation, mut fake) = (Speculation::new(1, false), Fake::default());
        for n in 0..3 * REMEMBERED as u64 {
            speculation.saw(&mut fake, &[page(n), page(n), page(n / 2)]).unwrap();
        }
        assert_eq!(speculation.recent.len(), REMEMBERED);
        let pages: BTreeSet<_> = speculation.recent.iter().map(|recent| recent.request.iova).collect();
        assert_eq!(pages.len(), REMEMBERED);
        assert!(fake.asked.is_empty(), "looking on asks for nothing");
        for _ in 0..1000 {
            speculation.between(&mut fake).unwrap();
        }
        let all = || fake.asked.iter().flatten();
        assert!(all().all(|request| request.flags == Request::SPECULATIVE && request.access == 0));
        assert!(fake.asked.iter().all(|batch| (1..=AT_ONCE as usize).contains(&batch.len())));
        let different: BTreeSet<_> = all().map(|request| request.iova).collect();
        assert!(different.len() > REMEMBERED / 2, "{} pages of {REMEMBERED}", different.len());
    }

    #[test]
    fn the_seed_decides() {
        let asked = |seed| {
            let (mut speculation, mut fake) = (Speculation::new(seed, true), Fake::default());
            for n in 0..100 {
                speculation.saw(&mut fake, &[page(n)]).unwrap();
                speculation.behind_command(&mut fake).unwrap();
            }
            (fake.asked, speculation.done())
        };
        assert_eq!(asked(1), asked(1));
        assert_ne!(asked(1), asked(2));
    }

    #[test]
    fn a_device_asks_again_at_once_for_what_was_removed_and_only_for_that() {
        let (mut speculation, mut fake) = (Speculation::new(1, true), Fake::default());
        let pages: Vec<Request> = (0..20).map(page).collect();
        fake.cached.extend(0..20);
        speculation.saw(&mut fake, &pages).unwrap();
        fake.cached.retain(|page| *page != 3 && *page != 4);
        fake.unmapped.insert(4);
        speculation.behind_command(&mut fake).unwrap();
        assert!(fake.cached.contains(&3) && !fake.cached.contains(&4));
        let done = speculation.done();
        assert_eq!(done.atc_fills, 1);
        assert!(done.requests >= 2, "what the device answers itself reaches no IOMMU: {done:?}");
    }

    #[test]
    fn spared_tables_are_not_read_until_they_are_used_again() {
        let (mut speculation, mut fake) = (Speculation::new(1, true), Fake::default());
        fake.cached.extend([1, 2]);
        speculation.saw(&mut fake, &[page(1), page(2), Request { stream: 2, ..page(3) }]).unwrap();
        speculation.spare_tables(|stream| stream == 1);
        let asked = |speculation: &mut Speculation, fake: &mut Fake| {
            fake.asked.clear();
            for _ in 0..100 {
                speculation.behind_command(fake).unwrap();
            }
            fake.asked.iter().flatten().map(|request| (request.stream, request.iova >> PAGE_LOG2)).collect()
        };
        let pages: BTreeSet<_> = asked(&mut speculation, &mut fake);
        assert_eq!(pages, [(1, NOWHERE >> PAGE_LOG2), (2, 3)].into());
        speculation.saw(&mut fake, &[page(2)]).unwrap();
        let pages: BTreeSet<_> = asked(&mut speculation, &mut fake);
        assert_eq!(pages, [(1, NOWHERE >> PAGE_LOG2), (1, 2), (2, 3)].into());
    }
}
