//! Root, context and PASID structures, paging entries.

use crate::words;
use intel_vtd::spec::context::*;
use intel_vtd::spec::pasid::*;
use intel_vtd::spec::pte::*;

#[test]
fn root_entries() {
    let bytes = [0x01, 0xf0, 0x34, 0x12, 0, 0, 0, 0];
    let [word] = words(&bytes);
    assert_eq!(RootEntry::from(word).address(), 0x1234_f000, "9.1");
    assert_eq!(u64::from(RootEntry::new().with_present(true).with_context_table(0x1_234f)), word);
}

#[test]
fn a_legacy_context_entry() {
    // 9.3: P, FPD, TT 1, table at 0x8000_0000; AW 2 (four levels), DID 0x1234.
    let [w0, w1] = words(&[0x07, 0, 0, 0x80, 0, 0, 0, 0, 0x02, 0x34, 0x12, 0, 0, 0, 0, 0]);
    let (low, high) = (LegacyContext0::from(w0), LegacyContext1::from(w1));
    assert!(low.present() && low.fault_disable());
    assert_eq!((TranslationType(low.translation_type()), low.address()), (TranslationType::ATS, 0x8000_0000));
    assert_eq!((high.address_width(), high.domain_id()), (2, 0x1234));
    let built = LegacyContext1::new().with_address_width(2).with_domain_id(0x1234);
    assert_eq!(u64::from(built), w1);
}

#[test]
fn a_scalable_mode_context_entry() {
    // 9.4: P, DTE, PASIDE, PRE, PDTS 7, directory at 0x1_0000_0000; RID_PASID 0x54321, RID_PRIV.
    let [w0, w1] = words(&[0x1d, 0x0e, 0, 0, 1, 0, 0, 0, 0x21, 0x43, 0x15, 0, 0, 0, 0, 0]);
    let (low, high) = (ScalableContext0::from(w0), ScalableContext1::from(w1));
    assert!(low.present() && low.device_tlb_enable() && low.pasid_enable() && low.page_request_enable());
    assert!(!low.fault_disable());
    assert_eq!((low.directory_size(), low.address()), (7, 0x1_0000_0000));
    assert_eq!((high.rid_pasid(), high.rid_privileged()), (0x5_4321, true));
}

#[test]
fn pasid_directory_and_table_entries() {
    // 9.5.
    let [word] = words(&[0x03, 0x50, 0, 0, 0, 0, 0, 0]);
    assert_eq!((DirectoryEntry::from(word).fault_disable(), DirectoryEntry::from(word).address()), (true, 0x5000));
    // 9.6: P, AW 2, PGTT 3, SSADE, second stage at 0x6000; DID 0x42, PWSNP, PGSNP; SRE, five levels, WPE, EAFE, first
    // stage at 0x7000.
    let [w0, w1, w2] =
        words(&[0xc9, 0x62, 0, 0, 0, 0, 0, 0, 0x42, 0, 0x80, 0x01, 0, 0, 0, 0, 0x95, 0x70, 0, 0, 0, 0, 0, 0]);
    let (word0, word1, word2) = (PasidEntry0::from(w0), PasidEntry1::from(w1), PasidEntry2::from(w2));
    assert_eq!(TranslationKind(word0.translation_kind()), TranslationKind::NESTED);
    assert!(word0.present() && word0.second_stage_ad() && !word0.fault_disable());
    assert_eq!((word0.address_width(), word0.address()), (2, 0x6000));
    assert_eq!((word1.domain_id(), word1.page_walk_snoop(), word1.page_snoop()), (0x42, true, true));
    assert!(word2.supervisor_enable() && word2.write_protect() && word2.extended_accessed());
    assert!(!word2.execute_enable() && !word2.no_execute() && !word2.smep());
    assert_eq!((word2.paging_mode(), word2.address()), (1, 0x7000));
    assert_eq!([word0.reserved(), word0.reserved_high(), word1.reserved(), word2.reserved()], [0; 4]);
}

#[test]
fn paging_entries() {
    // 9.7: what Linux writes for a first-stage 4 KiB page: XD, D, A, U/S, R/W, P.
    let [word] = words(&[0x67, 0x30, 0x12, 0, 0, 0, 0, 0x80]);
    let entry = FirstStageEntry::from(word);
    assert!(entry.present() && entry.write() && entry.user() && entry.accessed() && entry.dirty());
    assert!(entry.execute_disable() && !entry.page_size() && !entry.global() && !entry.extended_accessed());
    assert_eq!((entry.address() << 12, word & ADDRESS_MASK), (0x12_3000, 0x12_3000));
    // 9.8: a second-stage 2 MiB page: SNP, PS, W, R; EMT 6 with IPAT.
    let [word] = words(&[0xf3, 0x08, 0x20, 0, 1, 0, 0, 0x40]);
    let entry = SecondStageEntry::from(word);
    assert!(entry.read() && entry.write() && entry.page_size() && entry.snoop() && entry.ignore_pat());
    assert!(!entry.execute() && !entry.accessed() && !entry.dirty() && entry.transient());
    assert_eq!((entry.memory_type(), entry.address() << 12), (6, 0x1_0020_0000));
}
