//! Bad behaviour, chosen at creation by the value of the register [`crate::spec::BEHAVIOUR`].

use crate::spec;
use viommu_plugin::{Refusal, Register};

/// The slots that can be told to panic, by the names of the plugin's table.
#[rustfmt::skip]
pub const SLOTS: [&str; 47] = [
    "frontend_create", "frontend_destroy", "frontend_read", "frontend_write", "frontend_queue", "frontend_advance",
    "frontend_fault", "frontend_sync_done", "frontend_event", "frontend_event_lost", "frontend_mode",
    "frontend_entry", "frontend_reset", "frontend_register_name", "frontend_trouble",
    "frontend_save", "frontend_restore", "frontend_covers",
    "codec_create", "codec_rewrite", "codec_configuration", "codec_entry_key", "codec_opcode", "codec_opcode_name",
    "codec_describe",
    "driver_create", "driver_info", "driver_guest_registers", "driver_stage2_create", "driver_stage2_map",
    "driver_stage2_unmap", "driver_stage2_destroy", "driver_attach", "driver_detach", "driver_encode",
    "driver_queue_fault", "driver_queue_resume", "driver_event",
    "model_create", "model_mmio_read", "model_mmio_write", "model_step", "model_translate", "model_explain",
    "model_stats", "model_atc_unresponsive", "model_reset",
];

/// What it can lie about: a slot answers out of range, or does what no vendor may.
#[rustfmt::skip]
pub const LIES: [&str; 26] = [
    "frontend_create", "frontend_write", "frontend_queue", "frontend_fault", "frontend_sync_done", "frontend_event",
    "frontend_event_lost", "frontend_save", "codec_rewrite", "codec_configuration", "codec_entry_key", "driver_info", "driver_encode",
    "driver_queue_fault", "driver_event", "model_step", "model_translate",
    "foreign-stream", "foreign-tag", "impure", "accepts-anything", "reset-forgets", "describes-nothing",
    "save-forgets", "restores-anything", "covers-anything",
];

const PANIC: u64 = 0x1000;
const LIE: u64 = 0x2000;

/// The register that makes the mock panic in `slot`, one of [`SLOTS`]; none otherwise.
pub fn panic_in(slot: &str) -> Option<Register> {
    let index = SLOTS.iter().position(|name| *name == slot)?;
    Some(Register { offset: spec::BEHAVIOUR, value: PANIC + index as u64 })
}

/// The register that makes the mock tell the lie `about`, one of [`LIES`]; none otherwise.
pub fn lie_in(about: &str) -> Option<Register> {
    let index = LIES.iter().position(|name| *name == about)?;
    Some(Register { offset: spec::BEHAVIOUR, value: LIE + index as u64 })
}

/// How an instance behaves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Behaviour {
    value: u64,
}

impl Behaviour {
    pub(crate) fn of(registers: &[Register]) -> Self {
        let value = registers.iter().find(|register| register.offset == spec::BEHAVIOUR).map_or(0, |r| r.value);
        Self { value }
    }

    pub(crate) fn value(self) -> u64 {
        self.value
    }

    /// Begins a slot: panics in it if told to.
    pub(crate) fn enter(self, slot: &'static str) {
        let told = self.value.checked_sub(PANIC).and_then(|index| SLOTS.get(index as usize));
        assert!(told != Some(&slot), "told to panic in {slot}");
    }

    pub(crate) fn lies(self, about: &'static str) -> bool {
        let told = self.value.checked_sub(LIE).and_then(|index| LIES.get(index as usize));
        told == Some(&about)
    }

    pub(crate) fn refuse(self, slot: &'static str) -> Result<(), Refusal> {
        if self.lies(slot) { Err(Refusal::new(Refusal::EINVAL, format!("told to refuse {slot}"))) } else { Ok(()) }
    }
}
