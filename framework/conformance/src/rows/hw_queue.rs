//! C6, fourth part: HW queues.

use super::viommu::nesting;
use crate::row::Row;
use crate::session::{Failed, Session};
use viommu::uapi::layout::HwQueueAlloc;
use viommu::uapi::selftest;

const PAGE: u64 = 4096;
/// Where the queues' page is mapped; the page behind it is an area of its own.
const IOVA: u64 = selftest::APERTURE_START;

/// A vIOMMU whose parent's IOAS maps two pages, an area each: the IOAS and the vIOMMU.
fn with_pages(s: &Session<'_>) -> Result<(u32, u32), Failed> {
    let nesting = nesting(s)?;
    s.map(nesting.at.ioas, 0, PAGE, IOVA)?;
    s.map(nesting.at.ioas, PAGE, PAGE, IOVA + PAGE)?;
    Ok((nesting.at.ioas, nesting.viommu))
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "C6.35",
        stimulus: "type 0; a type that there is not; a flag",
        expected: "EOPNOTSUPP; EOPNOTSUPP; EOPNOTSUPP",
        run: |s| {
            let (_, viommu_id) = with_pages(s)?;
            for (r#type, flags) in [(0, 0), (5, 0), (selftest::HW_QUEUE_TYPE, 1)] {
                let shape = HwQueueAlloc {
                    flags,
                    viommu_id,
                    r#type,
                    nesting_parent_iova: IOVA,
                    length: PAGE,
                    ..Default::default()
                };
                s.see(s.hw_queue_raw(shape));
            }
            Ok(())
        },
    },
    Row {
        id: "C6.36",
        stimulus: "length 0",
        expected: "EINVAL",
        run: |s| {
            let (_, viommu) = with_pages(s)?;
            s.see(s.hw_queue(viommu, 0, IOVA, 0));
            Ok(())
        },
    },
    Row {
        id: "C6.37",
        stimulus: "IOVA 2^64 - 1, a page long",
        expected: "EOVERFLOW",
        run: |s| {
            let (_, viommu) = with_pages(s)?;
            s.see(s.hw_queue(viommu, 0, u64::MAX, PAGE));
            Ok(())
        },
    },
    Row {
        id: "C6.38",
        stimulus: "an IOVA that is not mapped; mapped at its start only; no vIOMMU",
        expected: "ENOENT; ENOENT; ENOENT",
        run: |s| {
            let (_, viommu) = with_pages(s)?;
            s.see(s.hw_queue(viommu, 0, IOVA + 64 * PAGE, PAGE));
            s.see(s.hw_queue(viommu, 0, IOVA + PAGE, 2 * PAGE));
            s.see(s.hw_queue(0, 0, IOVA, PAGE));
            Ok(())
        },
    },
    Row {
        id: "C6.39",
        stimulus: "index 1 before index 0",
        expected: "EIO",
        run: |s| {
            let (_, viommu) = with_pages(s)?;
            s.see(s.hw_queue(viommu, 1, IOVA, PAGE));
            Ok(())
        },
    },
    Row {
        id: "C6.40",
        stimulus: "index 2",
        expected: "EINVAL",
        run: |s| {
            let (_, viommu) = with_pages(s)?;
            s.see(s.hw_queue(viommu, 2, IOVA, PAGE));
            Ok(())
        },
    },
    Row {
        id: "C6.41",
        stimulus: "index 0",
        expected: "ok",
        run: |s| {
            let (_, viommu) = with_pages(s)?;
            s.see(s.hw_queue(viommu, 0, IOVA, PAGE));
            Ok(())
        },
    },
    Row {
        id: "C6.42",
        stimulus: "index 0 again",
        expected: "EEXIST",
        run: |s| {
            let (_, viommu) = with_pages(s)?;
            s.hw_queue(viommu, 0, IOVA, PAGE)?;
            s.see(s.hw_queue(viommu, 0, IOVA, PAGE));
            Ok(())
        },
    },
    Row {
        id: "C6.43",
        stimulus: "IOAS_UNMAP of the queue's page; of everything; destroy the vIOMMU",
        expected: "EBUSY; EBUSY; EBUSY",
        run: |s| {
            let (ioas, viommu) = with_pages(s)?;
            s.hw_queue(viommu, 0, IOVA, PAGE)?;
            s.see(s.unmap(ioas, IOVA, PAGE));
            s.see(s.unmap(ioas, 0, u64::MAX));
            s.see(s.destroy(viommu));
            Ok(())
        },
    },
    Row {
        id: "C6.44",
        stimulus: "IOAS_UNMAP of the neighbouring page, an area of its own",
        expected: "ok",
        run: |s| {
            let (ioas, viommu) = with_pages(s)?;
            s.hw_queue(viommu, 0, IOVA, PAGE)?;
            s.see(s.unmap(ioas, IOVA + PAGE, PAGE));
            Ok(())
        },
    },
    Row {
        id: "C6.45",
        stimulus: "index 1 half a page on, half a page long, in the same page",
        expected: "ok",
        run: |s| {
            let (_, viommu) = with_pages(s)?;
            s.hw_queue(viommu, 0, IOVA, PAGE)?;
            s.see(s.hw_queue(viommu, 1, IOVA + PAGE / 2, PAGE / 2));
            Ok(())
        },
    },
    Row {
        id: "C6.46",
        stimulus: "destroy index 0 while 1 exists",
        expected: "EBUSY",
        run: |s| {
            let (_, viommu) = with_pages(s)?;
            let first = s.hw_queue(viommu, 0, IOVA, PAGE)?;
            s.hw_queue(viommu, 1, IOVA + PAGE / 2, PAGE / 2)?;
            s.see(s.destroy(first));
            Ok(())
        },
    },
    Row {
        id: "C6.47",
        stimulus: "destroy 1, then 0; unmap the page with one left; with none",
        expected: "ok; EBUSY; ok; ok",
        run: |s| {
            let (ioas, viommu) = with_pages(s)?;
            let first = s.hw_queue(viommu, 0, IOVA, PAGE)?;
            let second = s.hw_queue(viommu, 1, IOVA + PAGE / 2, PAGE / 2)?;
            s.see(s.destroy(second));
            s.see(s.unmap(ioas, IOVA, PAGE));
            s.see(s.destroy(first));
            s.see(s.unmap(ioas, IOVA, PAGE));
            Ok(())
        },
    },
];
