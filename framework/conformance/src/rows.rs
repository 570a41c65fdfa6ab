//! The rows, by chapter.

mod cache;
mod dirty;
mod failure;
mod framing;
mod hw_info;
mod hw_queue;
mod invalidate;
mod nested;
mod paging;
mod pasid;
mod sequence;
mod vdevice;
mod viommu;

use crate::row::Row;

/// All rows, in the order of the table.
pub fn all() -> Vec<Row> {
    let chapters = [
        framing::ROWS,
        paging::ROWS,
        nested::ROWS,
        invalidate::ROWS,
        hw_info::ROWS,
        viommu::ROWS,
        vdevice::ROWS,
        cache::ROWS,
        hw_queue::ROWS,
        pasid::ROWS,
        dirty::ROWS,
        failure::ROWS,
    ];
    chapters.concat()
}
