//! Batches with and without a command that is refused: whatever the kernel says it did, after the guest's SYNC no good
//! command's translation may be stale.
//!
//! Linux 7.3.4 takes commands in blocks of 63 and counts those before a bad one as done although it dropped the unissued
//! rest of the block; so the pages looked at are those about the blocks' ends, about the bad command, the first and the last.

use crate::bench::{ASID, Bench, DEVICES, Machine, Page, STREAMS, nested};
use crate::checks::Checks;
use crate::guest::{Command, ILLEGAL, SYNC, Sent, TLBI_NH_ALL, cfgi_cd_substream, tlbi_nh_va};
use crate::tables::PAGE;
use std::collections::BTreeSet;
use viommu_examples::Story;

/// Sizes of batches.
pub(crate) const SIZES: [u32; 5] = [1, 63, 64, 65, 4096];
/// Places of the bad command.
pub(crate) const PLACES: [u32; 6] = [0, 1, 62, 63, 64, 70];
/// The pages that the batches are about.
const PAGES: u64 = 0x222_0000_0000;
/// CMDQ_CONS.ERR: illegal command.
const CERROR_ILL: u64 = 1;

/// Page `n`'s address.
pub(crate) fn iova(n: u32) -> u64 {
    PAGES + u64::from(n) * PAGE
}

/// The pages of a batch, mapped one way, cached by the IOMMU that way, then mapped the other way.
pub(crate) struct Stale {
    size: u32,
    /// Groups of one pair of neighbours for each device.
    probes: Vec<[Option<u32>; DEVICES]>,
}

impl Stale {
    /// Makes the translations of a batch of `size` stale; `bad` is the place of the command to be refused.
    pub(crate) fn new(bench: &Bench, size: u32, bad: Option<u32>) -> Story<Self> {
        let starts = pairs(size, bad);
        let probes: Vec<_> = starts.chunks(DEVICES).map(|pair| [Some(pair[0]), pair.get(1).copied()]).collect();
        let stale = Self { size, probes };
        stale.map(bench, [Page::A, Page::SecondA])?;
        bench.guest.finish(&[TLBI_NH_ALL])?;
        if !stale.all(bench, [Page::A, Page::SecondA])?.is_empty() {
            return Err("the pages are not where the guest mapped them".into());
        }
        stale.map(bench, [Page::B, Page::SecondB])?;
        Ok(stale)
    }

    /// Places whose translation is still the old one, or none.
    pub(crate) fn still(&self, bench: &Bench) -> Story<Vec<u32>> {
        self.all(bench, [Page::B, Page::SecondB])
    }

    /// Places that do not lead to `pages`.
    fn all(&self, bench: &Bench, pages: [Page; DEVICES]) -> Story<Vec<u32>> {
        let mut wrong = Vec::new();
        for probe in &self.probes {
            let landed = bench.pairs_land(probe.map(|place| place.map(iova)))?;
            for ((start, page), landed) in probe.iter().zip(pages).zip(landed) {
                let pair = start.iter().flat_map(|start| [*start, start + 1]).zip(landed);
                wrong.extend(pair.filter(|(at, landed)| *at < self.size && *landed != Some(page)).map(|(at, _)| at));
            }
        }
        Ok(wrong)
    }

    fn map(&self, bench: &Bench, pages: [Page; DEVICES]) -> Story {
        let seconds: BTreeSet<_> = self.probes.iter().filter_map(|[_, second]| *second).collect();
        // One more than the batch has: a pair's second page may be behind its end.
        for n in 0..=self.size {
            let second = seconds.contains(&n) || n > 0 && seconds.contains(&(n - 1));
            bench.map(iova(n), pages[usize::from(second)])?;
        }
        Ok(())
    }
}

/// First pages of the pairs to look at: about the first and the last command, a block's end, and the bad command.
fn pairs(size: u32, bad: Option<u32>) -> Vec<u32> {
    let places = [Some(0), Some(62), Some(size - 1), bad.and_then(|bad| bad.checked_sub(1)), bad.map(|bad| bad + 1)];
    let places: BTreeSet<_> = places.into_iter().flatten().filter(|place| *place < size).collect();
    let mut starts: Vec<u32> = Vec::new();
    for place in places {
        if starts.last().is_none_or(|last| place > last + 1) {
            starts.push(place);
        }
    }
    starts
}

/// Every place that is looked at.
fn probed(size: u32, bad: Option<u32>) -> Vec<u32> {
    pairs(size, bad).into_iter().flat_map(|start| [start, start + 1]).filter(|at| *at < size).collect()
}

/// A batch of one invalidation a page, with `bad` in the place of one of them.
pub(crate) fn batch(size: u32, bad: Option<(u32, Command)>) -> Vec<Command> {
    let mut commands: Vec<_> = (0..size).map(|n| tlbi_nh_va(ASID, iova(n))).collect();
    if let Some((place, command)) = bad {
        commands[place as usize] = command;
    }
    commands
}

/// Batches as guests send them.
pub(crate) fn plain(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    for size in SIZES {
        let stale = Stale::new(&bench, size, None)?;
        bench.guest.finish(&batch(size, None))?;
        checks.same(format_args!("{size} commands and a SYNC: nothing is stale"), stale.still(&bench)?, vec![]);
    }
    // Without the invalidations, the same probes find what is stale: they are no blind ones.
    let stale = Stale::new(&bench, 65, None)?;
    bench.guest.finish(&[])?;
    checks.same("a SYNC alone: the probes find everything stale", stale.still(&bench)?, vec![0, 1, 62, 63, 64]);
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}

/// A command that no guest may send: viommu refuses it before the kernel sees it. The guest repairs its queue and goes on.
pub(crate) fn checked(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    for size in SIZES {
        for place in PLACES.into_iter().filter(|place| *place < size) {
            let stale = Stale::new(&bench, size, Some(place))?;
            let first = bench.guest.producer();
            let commands = [batch(size, Some((place, ILLEGAL))), vec![SYNC]].concat();
            let stopped = bench.guest.send(&commands)?;
            let repaired = bench.guest.repair(first, place, tlbi_nh_va(ASID, iova(place)))?;
            let is = (stopped, repaired, stale.still(&bench)?);
            let should_be = (Sent::Stopped { at: place, error: CERROR_ILL }, Sent::Taken, vec![]);
            checks.same(
                format_args!("{size} commands, illegal at {place}: the queue stops there; repaired, nothing is stale"),
                is,
                should_be,
            );
        }
    }
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}

/// As above with commands that the guest was told it may send and that the kernel refuses: it is the sink that has to find
/// them, behind the kernel's back and in spite of its count.
pub(crate) fn unchecked(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    for size in SIZES {
        for place in PLACES.into_iter().filter(|place| *place < size) {
            let (sent, stale) = refused_below(&bench, size, place)?;
            let name =
                format!("{size} commands, the kernel refuses that at {place}: the guest is told, nothing is stale");
            checks.same(name, (sent, stale), ((Sent::Stopped { at: size, error: CERROR_ILL }, Sent::Taken), vec![]));
        }
    }
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}

/// A sink that believes the kernel's count loses the commands of the block before the bad one. The probes must see that.
pub(crate) fn believed(machine: &dyn Machine, checks: &mut Checks) -> Story {
    let bench = nested(machine)?;
    for place in PLACES {
        let (_, stale) = refused_below(&bench, 4096, place)?;
        let block = place - place % 63;
        let lost: Vec<_> = probed(4096, Some(place)).into_iter().filter(|at| (block..place).contains(at)).collect();
        checks.same(
            format_args!("believing entry_num, refused at {place}: {} of the probes are stale", lost.len()),
            stale,
            lost,
        );
    }
    bench.guest.finish(&[TLBI_NH_ALL])?;
    checks.same("nothing is left over", bench.close()?.as_str(), "nothing");
    Ok(())
}

/// Sends a batch with a command that only the kernel refuses, and a SYNC; goes on behind the error. What the guest saw, and
/// what is stale then.
fn refused_below(bench: &Bench, size: u32, place: u32) -> Story<((Sent, Sent), Vec<u32>)> {
    let stale = Stale::new(bench, size, Some(place))?;
    let first = bench.guest.producer();
    let commands = [batch(size, Some((place, cfgi_cd_substream(STREAMS[0], 5)))), vec![SYNC]].concat();
    let stopped = bench.guest.send(&commands)?;
    let went_on = match stopped {
        Sent::Stopped { at, .. } => bench.guest.repair(first, at, SYNC)?,
        Sent::Taken => Sent::Taken,
    };
    let mut still = stale.still(bench)?;
    // In the bad command's place there was no invalidation of its page.
    still.retain(|at| *at != place);
    Ok(((stopped, went_on), still))
}
