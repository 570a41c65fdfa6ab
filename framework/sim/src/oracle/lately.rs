//! Where something changed lately: what devices should try.

use std::collections::{BTreeMap, VecDeque};

/// Pages of a tag that are remembered.
const RECENT: usize = 6;
/// Pages of one tag or device that wait to be tried. Behind more, the oldest are as good as tried by chance.
const WAITING: usize = 64;

/// A page or block: first address and log2 of the size.
pub(crate) type Page = (u64, u8);

/// Who can try a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    /// Every device whose translations are cached under this tag.
    Tag(u16),
    /// This device: what it is attached to changed.
    Device(u32),
}

/// Pages that changed, or may be cached no longer.
#[derive(Debug, Default)]
pub(crate) struct Lately {
    /// By tag, the newest last.
    recent: BTreeMap<u16, VecDeque<Page>>,
    /// Those that nobody has tried since, the newest last.
    untried: BTreeMap<Whose, VecDeque<Page>>,
}

impl Lately {
    pub(super) fn notice(&mut self, tag: u16, page: Page) {
        renew(self.recent.entry(tag).or_default(), page, RECENT);
        self.aim(Whose::Tag(tag), page);
    }

    /// Somebody should try it once.
    pub(super) fn aim(&mut self, whose: Whose, page: Page) {
        renew(self.untried.entry(whose).or_default(), page, WAITING);
    }

    /// The newest first.
    pub(super) fn recent(&self, tag: u16) -> impl Iterator<Item = Page> {
        self.recent.get(&tag).into_iter().flat_map(|recent| recent.iter().rev()).copied()
    }

    /// The newest that was not tried since it changed. Now it is.
    pub(super) fn take(&mut self, whose: Whose) -> Option<Page> {
        self.untried.get_mut(&whose)?.pop_back()
    }
}

fn renew(pages: &mut VecDeque<Page>, page: Page, most: usize) {
    pages.retain(|other| *other != page);
    if pages.len() == most {
        pages.pop_front();
    }
    pages.push_back(page);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_tried_once_the_newest_first_and_by_whom_it_concerns() {
        let mut lately = Lately::default();
        for base in [1, 2, 3, 1] {
            lately.notice(7, (base << 12, 12));
        }
        lately.aim(Whose::Device(7), (0x9000, 21));
        let mut take = || lately.take(Whose::Tag(7)).map(|(base, _)| base >> 12);
        assert_eq!([take(), take(), take(), take()], [Some(1), Some(3), Some(2), None]);
        assert_eq!(lately.take(Whose::Tag(8)), None);
        assert_eq!(lately.take(Whose::Device(7)), Some((0x9000, 21)));
        assert_eq!(
            lately.recent(7).map(|(base, _)| base >> 12).collect::<Vec<_>>(),
            [1, 3, 2],
            "remembered all the same"
        );
    }

    #[test]
    fn there_is_room_for_a_few() {
        let mut lately = Lately::default();
        (0..100).for_each(|base| lately.notice(1, (base << 12, 12)));
        assert_eq!(lately.recent(1).count(), RECENT);
        assert_eq!(std::iter::from_fn(|| lately.take(Whose::Tag(1))).count(), WAITING);
    }
}
