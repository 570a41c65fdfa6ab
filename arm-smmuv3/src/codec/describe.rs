//! Commands in words, for people.

use crate::spec::commands::{
    AtcInv, CfgiCd, CfgiSte, CfgiSteRange, Opcode, Prefetch, PriResp, Resume, Signal, Sync, Tlbi,
};
use std::fmt::{Result, Write};

/// Writes the command's name and the fields it uses.
pub(super) fn command(words: [u64; 2], text: &mut dyn Write) -> Result {
    let opcode = Opcode::of(words[0]);
    let Some(name) = opcode.name() else {
        return write!(text, "opcode {:#04x} ({:#018x} {:#018x})", opcode.0, words[0], words[1]);
    };
    match opcode {
        Opcode::CFGI_STE_RANGE if CfgiSteRange::from_words(words).range() == CfgiSteRange::ALL => {
            write!(text, "CFGI_ALL")
        }
        Opcode::CFGI_STE_RANGE => {
            let c = CfgiSteRange::from_words(words);
            write!(text, "CFGI_STE_RANGE sid {:#x} range {}", c.stream_id(), c.range())
        }
        Opcode::CFGI_STE => {
            let c = CfgiSte::from_words(words);
            write!(text, "{name} sid {:#x}{}", c.stream_id(), flag(c.leaf(), " leaf"))
        }
        Opcode::CFGI_CD | Opcode::CFGI_CD_ALL => {
            let c = CfgiCd::from_words(words);
            write!(text, "{name} sid {:#x} ssid {:#x}{}", c.stream_id(), c.substream_id(), flag(c.leaf(), " leaf"))
        }
        Opcode::PREFETCH_CONFIG | Opcode::PREFETCH_ADDR => {
            let c = Prefetch::from_words(words);
            write!(text, "{name} sid {:#x}", c.stream_id())?;
            substream(text, c.ssv(), c.substream_id())?;
            write!(text, " addr {:#x} size {}", c.address() << 12, c.size())
        }
        Opcode::ATC_INV => {
            let c = AtcInv::from_words(words);
            write!(text, "{name} sid {:#x}", c.stream_id())?;
            substream(text, c.ssv(), c.substream_id())?;
            write!(text, " addr {:#x} size {}{}", c.address() << 12, c.size(), flag(c.global(), " global"))
        }
        Opcode::PRI_RESP => {
            let c = PriResp::from_words(words);
            write!(text, "{name} sid {:#x} group {} resp {}", c.stream_id(), c.prg_index(), c.resp())
        }
        Opcode::RESUME | Opcode::STALL_TERM => {
            let c = Resume::from_words(words);
            write!(text, "{name} sid {:#x} stag {:#x} resp {}", c.stream_id(), c.stag(), c.resp())
        }
        Opcode::SYNC => {
            let c = Sync::from_words(words);
            match Signal(c.cs()) {
                Signal::NONE => write!(text, "SYNC"),
                Signal::IRQ => {
                    write!(text, "SYNC irq msi {:#x} data {:#x}", c.msi_address() << 2, c.msi_data())
                }
                Signal::SEV => write!(text, "SYNC sev"),
                Signal(other) => write!(text, "SYNC cs {other}"),
            }
        }
        _ => tlbi(name, Tlbi::from_words(words), text),
    }
}

fn tlbi(name: &str, c: Tlbi, text: &mut dyn Write) -> Result {
    write!(text, "{name}")?;
    let opcode = Opcode(c.opcode());
    let by_address = matches!(
        opcode,
        Opcode::TLBI_NH_VA
            | Opcode::TLBI_NH_VAA
            | Opcode::TLBI_EL2_VA
            | Opcode::TLBI_EL2_VAA
            | Opcode::TLBI_EL3_VA
            | Opcode::TLBI_S2_IPA
    );
    let by_asid =
        matches!(opcode, Opcode::TLBI_NH_ASID | Opcode::TLBI_NH_VA | Opcode::TLBI_EL2_ASID | Opcode::TLBI_EL2_VA);
    if opcode != Opcode::TLBI_NSNH_ALL {
        write!(text, " vmid {:#x}", c.vmid())?;
    }
    if by_asid {
        write!(text, " asid {:#x}", c.asid())?;
    }
    if by_address {
        write!(text, " addr {:#x}{}", c.address() << 12, flag(c.leaf(), " leaf"))?;
    }
    if c.tg() != 0 {
        let granule = 10 + 2 * u32::from(c.tg());
        write!(text, " {} x 2^{} granules of 2^{granule} ttl {}", u32::from(c.num()) + 1, c.scale(), c.ttl())?;
    }
    Ok(())
}

fn substream(text: &mut dyn Write, valid: bool, id: u32) -> Result {
    if valid { write!(text, " ssid {id:#x}") } else { Ok(()) }
}

fn flag(set: bool, name: &'static str) -> &'static str {
    if set { name } else { "" }
}
