//! C10 to C13: what vendors' kernel drivers decide, on the software iommufd's drivers. Letter M: no kernel judges these rows.

mod amd;
mod arm;
mod arm_commands;
mod arm_events;
mod bench;
mod tegra;
mod vtd;

use crate::row::Row;

/// All rows about vendors, in the order of the table. They bring an iommufd of their own.
pub fn vendors() -> Vec<Row> {
    [arm::ROWS, arm_commands::ROWS, arm_events::ROWS, tegra::ROWS, amd::ROWS, vtd::ROWS].concat()
}
