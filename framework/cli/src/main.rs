//! The `viommu` command.

fn main() {}
