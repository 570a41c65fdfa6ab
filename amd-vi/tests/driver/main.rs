//! The driver against the software IOMMU, judged by what devices then reach.

mod attach;
mod host_table;
mod machine;
mod recordings;
mod take_over;
