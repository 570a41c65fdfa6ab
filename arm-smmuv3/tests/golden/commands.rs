//! Commands.

use crate::{untouched, words};
use arm_smmuv3::codec::ArmCodec;
use arm_smmuv3::spec::commands::{
    AtcInv, CfgiCd, CfgiSte, CfgiSteRange, Opcode, Prefetch, PriResp, Resume, Signal, Sync, Tlbi,
};
use arm_smmuv3::spec::registers::offset;
use viommu_plugin::{Classes, Codec, GuestFault, HostIds, NO_STREAM, Register, Stop};

/// What a guest with [`TAG`] and [`STREAMS`] gets for the command.
#[derive(Clone, Copy)]
enum Becomes {
    /// These bytes on the physical ring.
    Host([u8; 16]),
    /// Complete; a hint.
    Hint,
    /// Complete; nobody has the stream.
    Local,
    /// The rewrite stops.
    Stop(Stop),
    /// The guest may not send it.
    Fault(GuestFault),
}

struct Golden {
    section: &'static str,
    bytes: [u8; 16],
    /// Takes the words apart and compares every field.
    apart: fn([u64; 2]) -> bool,
    /// Builds the words from fields.
    build: fn() -> [u64; 2],
    becomes: Becomes,
}

const TAG: u32 = 0x0abc;
const STREAMS: [u32; 4] = [NO_STREAM, NO_STREAM, 0x0011_2233, NO_STREAM];

/// ATS, RIL and substreams are shown.
fn codec() -> ArmCodec {
    let register = |offset, value| Register { offset, value };
    ArmCodec::new(&[
        register(offset::IDR0, 0x0d4c_141a),
        register(offset::IDR1, 0x0273_0010 | 20 << 6),
        register(offset::IDR3, 0x1414),
    ])
    .unwrap()
}

const GOLDEN: &[Golden] = &[
    Golden {
        section: "4.2.1 CMD_PREFETCH_CONFIG",
        bytes: [0x01, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| Prefetch::from_words(w).stream_id() == 2 && !Prefetch::from_words(w).ssv(),
        build: || Prefetch::new().with_opcode(Opcode::PREFETCH_CONFIG.0).with_stream_id(2).words(),
        becomes: Becomes::Hint,
    },
    Golden {
        section: "4.2.2 CMD_PREFETCH_ADDR",
        bytes: [0x02, 0x08, 0x50, 0x34, 0x02, 0, 0, 0, 0x43, 0xf0, 0xde, 0xbc, 0x9a, 0x78, 0x56, 0x34],
        apart: |w| {
            let c = Prefetch::from_words(w);
            (c.ssv(), c.substream_id(), c.stream_id(), c.size(), c.stride(), c.address())
                == (true, 0x34500, 2, 3, 2, 0x3_4567_89ab_cdef)
        },
        build: || {
            Prefetch::new()
                .with_opcode(Opcode::PREFETCH_ADDR.0)
                .with_ssv(true)
                .with_substream_id(0x34500)
                .with_stream_id(2)
                .with_size(3)
                .with_stride(2)
                .with_address(0x3_4567_89ab_cdef)
                .words()
        },
        becomes: Becomes::Hint,
    },
    Golden {
        section: "4.3.1 CMD_CFGI_STE",
        bytes: [0x03, 0, 0, 0, 0x02, 0, 0, 0, 0x01, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| CfgiSte::from_words(w).stream_id() == 2 && CfgiSte::from_words(w).leaf(),
        build: || CfgiSte::new().with_opcode(Opcode::CFGI_STE.0).with_stream_id(2).with_leaf(true).words(),
        becomes: Becomes::Stop(Stop::CONFIGURATION),
    },
    Golden {
        section: "4.3.1 CMD_CFGI_STE, stream without vdevice",
        bytes: [0x03, 0, 0, 0, 0x04, 0x03, 0x02, 0x01, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| CfgiSte::from_words(w).stream_id() == 0x0102_0304 && !CfgiSte::from_words(w).leaf(),
        build: || CfgiSte::new().with_opcode(Opcode::CFGI_STE.0).with_stream_id(0x0102_0304).words(),
        becomes: Becomes::Local,
    },
    Golden {
        section: "4.3.2 CMD_CFGI_STE_RANGE",
        bytes: [0x04, 0, 0, 0, 0x80, 0, 0, 0, 0x06, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| CfgiSteRange::from_words(w).stream_id() == 0x80 && CfgiSteRange::from_words(w).range() == 6,
        build: || CfgiSteRange::new().with_opcode(Opcode::CFGI_STE_RANGE.0).with_stream_id(0x80).with_range(6).words(),
        becomes: Becomes::Stop(Stop::CONFIGURATION),
    },
    Golden {
        section: "4.3 CMD_CFGI_ALL",
        bytes: [0x04, 0, 0, 0, 0, 0, 0, 0, 0x1f, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| CfgiSteRange::from_words(w).range() == CfgiSteRange::ALL,
        build: || CfgiSteRange::new().with_opcode(Opcode::CFGI_STE_RANGE.0).with_range(CfgiSteRange::ALL).words(),
        becomes: Becomes::Stop(Stop::CONFIGURATION),
    },
    Golden {
        section: "4.3.3 CMD_CFGI_CD",
        bytes: [0x05, 0xf0, 0xff, 0xff, 0x02, 0, 0, 0, 0x01, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| {
            let c = CfgiCd::from_words(w);
            (c.substream_id(), c.stream_id(), c.leaf()) == (0xf_ffff, 2, true)
        },
        build: || {
            CfgiCd::new()
                .with_opcode(Opcode::CFGI_CD.0)
                .with_substream_id(0xf_ffff)
                .with_stream_id(2)
                .with_leaf(true)
                .words()
        },
        becomes: Becomes::Host([0x05, 0xf0, 0xff, 0xff, 0x33, 0x22, 0x11, 0, 0x01, 0, 0, 0, 0, 0, 0, 0]),
    },
    Golden {
        section: "4.3.4 CMD_CFGI_CD_ALL",
        bytes: [0x06, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| CfgiCd::from_words(w).stream_id() == 2,
        build: || CfgiCd::new().with_opcode(Opcode::CFGI_CD_ALL.0).with_stream_id(2).words(),
        becomes: Becomes::Host([0x06, 0, 0, 0, 0x33, 0x22, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    },
    Golden {
        section: "4.4.2 CMD_TLBI_NH_ALL",
        bytes: [0x10, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| Tlbi::from_words(w).vmid() == 0x1234,
        build: || Tlbi::new().with_opcode(Opcode::TLBI_NH_ALL.0).with_vmid(0x1234).words(),
        becomes: Becomes::Host([0x10, 0, 0, 0, 0xbc, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    },
    Golden {
        section: "4.4.2 CMD_TLBI_NH_ASID",
        bytes: [0x11, 0, 0, 0, 0, 0, 0x78, 0x56, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| Tlbi::from_words(w).asid() == 0x5678,
        build: || Tlbi::new().with_opcode(Opcode::TLBI_NH_ASID.0).with_asid(0x5678).words(),
        becomes: Becomes::Host([0x11, 0, 0, 0, 0xbc, 0x0a, 0x78, 0x56, 0, 0, 0, 0, 0, 0, 0, 0]),
    },
    Golden {
        section: "4.4.2 CMD_TLBI_NH_VA, 4.4.1 a range of 3 x 2^9 granules of 4 KiB, leaf at level 2",
        bytes: [0x12, 0x20, 0x90, 0, 0, 0, 0x78, 0x56, 0x01, 0x06, 0x20, 0xff, 0xff, 0x7f, 0, 0],
        apart: |w| {
            let c = Tlbi::from_words(w);
            (c.num(), c.scale(), c.vmid(), c.asid()) == (2, 9, 0, 0x5678)
                && (c.leaf(), c.ttl(), c.tg(), c.address()) == (true, 2, 1, 0x7_ffff_f200)
        },
        build: || {
            Tlbi::new()
                .with_opcode(Opcode::TLBI_NH_VA.0)
                .with_num(2)
                .with_scale(9)
                .with_asid(0x5678)
                .with_leaf(true)
                .with_ttl(2)
                .with_tg(1)
                .with_address(0x7_ffff_f200)
                .words()
        },
        becomes: Becomes::Host([0x12, 0x20, 0x90, 0, 0xbc, 0x0a, 0x78, 0x56, 0x01, 0x06, 0x20, 0xff, 0xff, 0x7f, 0, 0]),
    },
    Golden {
        section: "4.4.2 CMD_TLBI_NH_VAA",
        bytes: [0x13, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        apart: |w| Tlbi::from_words(w).address() == (1 << 52) - 1 && Tlbi::from_words(w).vmid() == 0xffff,
        build: || Tlbi::new().with_opcode(Opcode::TLBI_NH_VAA.0).with_vmid(0xffff).with_address((1 << 52) - 1).words(),
        becomes: Becomes::Host([0x13, 0, 0, 0, 0xbc, 0x0a, 0, 0, 0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    },
    Golden {
        section: "4.4.2 CMD_TLBI_EL2_ALL",
        bytes: [0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| Opcode(Tlbi::from_words(w).opcode()) == Opcode::TLBI_EL2_ALL,
        build: || Tlbi::new().with_opcode(Opcode::TLBI_EL2_ALL.0).words(),
        becomes: Becomes::Fault(GuestFault::ILLEGAL_OPCODE),
    },
    Golden {
        section: "4.4.3 CMD_TLBI_S12_VMALL",
        bytes: [0x28, 0, 0, 0, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| Tlbi::from_words(w).vmid() == 1,
        build: || Tlbi::new().with_opcode(Opcode::TLBI_S12_VMALL.0).with_vmid(1).words(),
        becomes: Becomes::Fault(GuestFault::ILLEGAL_OPCODE),
    },
    Golden {
        section: "4.4.3 CMD_TLBI_S2_IPA",
        bytes: [0x2a, 0, 0, 0, 0x01, 0, 0, 0, 0x01, 0x10, 0, 0x80, 0, 0, 0, 0],
        apart: |w| Tlbi::from_words(w).address() == 0x8_0001 && Tlbi::from_words(w).leaf(),
        build: || {
            Tlbi::new().with_opcode(Opcode::TLBI_S2_IPA.0).with_vmid(1).with_leaf(true).with_address(0x8_0001).words()
        },
        becomes: Becomes::Fault(GuestFault::ILLEGAL_OPCODE),
    },
    Golden {
        section: "4.4.4 CMD_TLBI_NSNH_ALL: everything of this guest",
        bytes: [0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| Opcode(Tlbi::from_words(w).opcode()) == Opcode::TLBI_NSNH_ALL,
        build: || Tlbi::new().with_opcode(Opcode::TLBI_NSNH_ALL.0).words(),
        becomes: Becomes::Host([0x10, 0, 0, 0, 0xbc, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    },
    Golden {
        section: "4.5.1 CMD_ATC_INV",
        bytes: [0x40, 0x5a, 0x34, 0x12, 0x02, 0, 0, 0, 0x0c, 0, 0, 0xc0, 0xff, 0xff, 0xff, 0xff],
        apart: |w| {
            let c = AtcInv::from_words(w);
            (c.global(), c.ssec(), c.ssv(), c.substream_id()) == (true, false, true, 0x12345)
                && (c.stream_id(), c.size(), c.address()) == (2, 12, 0xf_ffff_fffc_0000)
        },
        build: || {
            AtcInv::new()
                .with_opcode(Opcode::ATC_INV.0)
                .with_global(true)
                .with_ssv(true)
                .with_substream_id(0x12345)
                .with_stream_id(2)
                .with_size(12)
                .with_address(0xf_ffff_fffc_0000)
                .words()
        },
        becomes: Becomes::Host([0x40, 0x5a, 0x34, 0x12, 0x33, 0x22, 0x11, 0, 0x0c, 0, 0, 0xc0, 0xff, 0xff, 0xff, 0xff]),
    },
    Golden {
        section: "4.5.1 CMD_ATC_INV with a size beyond the address space",
        bytes: [0x40, 0, 0, 0, 0x02, 0, 0, 0, 0x35, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| AtcInv::from_words(w).size() == AtcInv::SIZE_ALL + 1,
        build: || AtcInv::new().with_opcode(Opcode::ATC_INV.0).with_stream_id(2).with_size(53).words(),
        becomes: Becomes::Fault(GuestFault::RESERVED_BITS),
    },
    Golden {
        section: "4.5.2 CMD_PRI_RESP",
        bytes: [0x41, 0, 0, 0, 0x02, 0, 0, 0, 0xff, 0x21, 0, 0, 0, 0, 0, 0],
        apart: |w| PriResp::from_words(w).prg_index() == 0x1ff && PriResp::from_words(w).resp() == 2,
        build: || {
            PriResp::new().with_opcode(Opcode::PRI_RESP.0).with_stream_id(2).with_prg_index(0x1ff).with_resp(2).words()
        },
        becomes: Becomes::Fault(GuestFault::ILLEGAL_OPCODE),
    },
    Golden {
        section: "4.6.1 CMD_RESUME",
        bytes: [0x44, 0x10, 0, 0, 0x02, 0, 0, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0],
        apart: |w| Resume::from_words(w).resp() == 1 && Resume::from_words(w).stag() == 0x1234,
        build: || Resume::new().with_opcode(Opcode::RESUME.0).with_resp(1).with_stream_id(2).with_stag(0x1234).words(),
        becomes: Becomes::Fault(GuestFault::ILLEGAL_OPCODE),
    },
    Golden {
        section: "4.6.2 CMD_STALL_TERM",
        bytes: [0x45, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| Resume::from_words(w).stream_id() == 2,
        build: || Resume::new().with_opcode(Opcode::STALL_TERM.0).with_stream_id(2).words(),
        becomes: Becomes::Fault(GuestFault::ILLEGAL_OPCODE),
    },
    Golden {
        section: "4.6.3 CMD_SYNC, SEV, with the attributes Linux sets",
        bytes: [0x46, 0x20, 0xc0, 0x0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| {
            let c = Sync::from_words(w);
            (Signal(c.cs()), c.msh(), c.msi_attr()) == (Signal::SEV, 3, 15)
        },
        build: || Sync::new().with_opcode(Opcode::SYNC.0).with_cs(2).with_msh(3).with_msi_attr(15).words(),
        becomes: Becomes::Stop(Stop::SYNC),
    },
    Golden {
        section: "4.6.3 CMD_SYNC, MSI",
        bytes: [0x46, 0x10, 0, 0, 0xef, 0xbe, 0xad, 0xde, 0x54, 0x76, 0x98, 0xba, 0, 0, 0, 0],
        apart: |w| {
            let c = Sync::from_words(w);
            (Signal(c.cs()), c.msi_data(), c.msi_address() << 2) == (Signal::IRQ, 0xdead_beef, 0xba98_7654)
        },
        build: || {
            Sync::new()
                .with_opcode(Opcode::SYNC.0)
                .with_cs(1)
                .with_msi_data(0xdead_beef)
                .with_msi_address(0xba98_7654 >> 2)
                .words()
        },
        becomes: Becomes::Stop(Stop::SYNC),
    },
    Golden {
        section: "4.6.3 CMD_SYNC, reserved completion signal",
        bytes: [0x46, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        apart: |w| Signal(Sync::from_words(w).cs()) == Signal::RESERVED,
        build: || Sync::new().with_opcode(Opcode::SYNC.0).with_cs(3).words(),
        becomes: Becomes::Fault(GuestFault::RESERVED_BITS),
    },
];

#[test]
fn take_apart() {
    for golden in GOLDEN {
        assert!((golden.apart)(words(&golden.bytes)), "{}", golden.section);
    }
}

#[test]
fn build() {
    for golden in GOLDEN {
        assert_eq!((golden.build)(), words::<16, 2>(&golden.bytes), "{}", golden.section);
    }
}

#[test]
fn parse() {
    let codec = codec();
    for golden in GOLDEN {
        let command: [u64; 2] = words(&golden.bytes);
        let ids = HostIds { tag: TAG, streams: &STREAMS, domains: &[] };
        let done = codec.rewrite(&command, Classes::NONE, ids, &mut [0; 2]);
        let counts = (done.taken, done.written, done.hints, done.local_stream);
        let (expected, stop, fault) = match golden.becomes {
            Becomes::Host(_) => ((1, 1, 0, 0), Stop::END, GuestFault::NONE),
            Becomes::Hint => ((1, 0, 1, 0), Stop::END, GuestFault::NONE),
            Becomes::Local => ((1, 0, 0, 1), Stop::END, GuestFault::NONE),
            Becomes::Stop(stop) => ((0, 0, 0, 0), stop, GuestFault::NONE),
            Becomes::Fault(fault) => ((0, 0, 0, 0), Stop::FAULT, fault),
        };
        assert_eq!((counts, done.stop, done.fault), (expected, stop, fault), "{}", golden.section);
        assert_eq!(codec.opcode(&command), golden.bytes[0]);
        assert!(codec.opcode_name(golden.bytes[0]).is_some(), "{}", golden.section);
    }
}

#[test]
fn emit() {
    for golden in GOLDEN {
        let ids = HostIds { tag: TAG, streams: &STREAMS, domains: &[] };
        let mut out = untouched::<4>();
        codec().rewrite(&words::<16, 2>(&golden.bytes), Classes::NONE, ids, &mut out);
        let mut expected = untouched::<4>();
        if let Becomes::Host(bytes) = golden.becomes {
            expected[..2].copy_from_slice(&words::<16, 2>(&bytes));
        }
        assert_eq!(out, expected, "{}", golden.section);
    }
}
