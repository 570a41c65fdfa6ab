//! Checks of a plugin's facts and of creation.

use crate::check::{Checked, ensure};
use crate::machine::Machine;
use crate::{Samples, Verdict};
use viommu_plugin::{ModelConfig, ModelHost, Unreadable};
use viommu_plugin_host::{Plugin, SearchPath};

/// Words that a vendor's recordings may begin their own codes at.
const OWN_VENDORS: u32 = 0x8000;

pub(crate) fn sane(plugin: &Plugin, _: &Samples) -> Checked {
    let info = plugin.info();
    let plain = |text: &str| text.len() <= 64 && text.chars().all(|letter| letter.is_ascii_graphic());
    ensure!(plain(&info.name) && !info.name.starts_with('-'), "the name {:?} cannot be an argument", info.name);
    ensure!(plain(&info.version), "the version {:?} cannot be shown in a table", info.version);
    ensure!(info.version.contains(|letter: char| letter.is_ascii_digit()), "{:?} is no version", info.version);
    let known = (1..=3).contains(&info.vendor) || info.vendor >= OWN_VENDORS;
    ensure!(known, "vendor code {} is neither known nor from {OWN_VENDORS:#x}", info.vendor);
    ensure!(!info.parts.is_empty(), "it offers no part at all");
    Ok(())
}

pub(crate) fn name_matches_file(plugin: &Plugin, _: &Samples) -> Checked {
    let info = plugin.info();
    let Some(path) = &info.path else { return Err(Verdict::Skipped("it is linked")) };
    let file = SearchPath::file_name(&info.name);
    ensure!(path.ends_with(&file), "the name {:?} is looked for as {file}", info.name);
    Ok(())
}

struct NoHost;

impl ModelHost for NoHost {
    fn read(&self, _pa: u64, _bytes: &mut [u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
    fn write(&self, _pa: u64, _bytes: &[u8]) -> Result<(), Unreadable> {
        Err(Unreadable)
    }
    fn irq(&self, _line: u32) {}
}

pub(crate) fn create_destroy(plugin: &Plugin, samples: &Samples) -> Checked {
    let offered = |part| plugin.info().parts.contains(&part);
    for _ in 0..16 {
        if offered("frontend") {
            plugin.frontend(&samples.registers)?.mode()?;
        }
        if offered("codec") {
            plugin.codec(&samples.registers)?.opcode_name(0)?;
        }
        if offered("model") {
            let config = ModelConfig { registers: &samples.hardware, ..Default::default() };
            plugin.model(Box::new(NoHost), config)?.stats()?;
        }
        if offered("driver") && offered("model") {
            Machine::new(plugin, &samples.hardware)?;
        }
    }
    Ok(())
}
