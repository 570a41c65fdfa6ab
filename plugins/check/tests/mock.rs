//! The mock conforms; each of its lies fails a check, so every check it concerns can fail.

#![forbid(unsafe_code)]

use mock_plugin::kernel::{KernelMock, lies_in, panics_in};
use mock_plugin::{Mock, lie_in, panic_in};
use viommu_plugin_check::{Check, Samples, Verdict, conformance};
use viommu_plugin_host::Plugin;

conformance!(Mock, "mock_plugin");

/// Whether `check` fails on a mock that behaves as `register` says.
fn fails(check: Check, register: viommu_plugin::Register) -> bool {
    let plugin = Plugin::linked::<Mock>();
    let samples = Samples::with_registers(&plugin, 1, &[register]).expect("samples");
    matches!(check.run(&plugin, &samples), Err(Verdict::Failed(_)))
}

#[test]
fn every_lie_is_found_by_its_check() {
    let found_by = [
        ("foreign-stream", Check::RewriteNamesOnlyGivenIds),
        ("foreign-tag", Check::RewriteNamesOnlyGivenIds),
        ("impure", Check::RewriteIsPure),
        ("accepts-anything", Check::RewriteUnknownOpcodeIsFault),
        ("reset-forgets", Check::FrontendResetIdempotent),
        ("describes-nothing", Check::DescribeNonempty),
        ("codec_rewrite", Check::RewriteTakesPrefix),
        ("codec_rewrite", Check::RewriteNeverWritesPastOut),
        ("codec_entry_key", Check::EntryKeyIsCanonical),
        ("frontend_create", Check::CreateDestroyEachPart),
        ("frontend_write", Check::FrontendRandomMmioSurvives),
        ("frontend_queue", Check::QueuePendingBounded),
        ("frontend_fault", Check::FrontendRandomMmioSurvives),
        ("frontend_event", Check::FrontendRandomMmioSurvives),
        ("frontend_save", Check::FrontendSaveRestores),
        ("save-forgets", Check::FrontendSaveRestores),
        ("restores-anything", Check::FrontendRestoreRefuses),
        ("covers-anything", Check::FewerFeaturesAreRefused),
        ("model_step", Check::ModelStepRespectsBudget),
        ("model_translate", Check::ModelAnswersRequests),
        ("driver_info", Check::DriverOnOwnModel),
        ("driver_encode", Check::DriverInvalidationsWork),
        ("driver_queue_fault", Check::DriverRecoversFromIllegalCommand),
        ("driver_event", Check::DriverStage2Decides),
    ];
    for (lie, check) in found_by {
        assert!(fails(check, lie_in(lie).expect("it is a lie")), "{} did not notice {lie}", check.name());
    }
}

#[test]
fn a_panic_is_found_by_the_checks_of_its_part() {
    let found_by = [
        ("frontend_read", Check::IdRegistersAreShown),
        ("frontend_entry", Check::EntryNeedsMemory),
        ("frontend_save", Check::FrontendSaveRestores),
        ("frontend_restore", Check::FrontendRestoreRefuses),
        ("frontend_covers", Check::FewerFeaturesAreRefused),
        ("codec_rewrite", Check::RewriteIsPure),
        ("model_reset", Check::ModelResetIsPowerOn),
        ("model_translate", Check::ModelSpeculativeIsSilent),
        ("model_explain", Check::ModelRandomMmioSurvives),
        ("model_stats", Check::ModelIsDeterministic),
        ("driver_attach", Check::DriverRefusesNonsense),
        ("driver_stage2_destroy", Check::DriverFreesMemory),
    ];
    for (slot, check) in found_by {
        assert!(fails(check, panic_in(slot).expect("it is a slot")), "{} did not notice {slot}", check.name());
    }
}

#[test]
fn bad_kernel_payloads_are_found_by_their_checks() {
    fn noticed<const BAD: usize>(check: Check) {
        let plugin = Plugin::linked::<KernelMock<BAD>>();
        let samples = Samples::generic(&plugin, 1).expect("samples");
        let outcome = check.run(&plugin, &samples);
        assert!(matches!(outcome, Err(Verdict::Failed(_))), "{} did not notice {BAD}: {outcome:?}", check.name());
    }
    noticed::<{ lies_in(0) }>(Check::KernelFactsAgree);
    noticed::<{ lies_in(1) }>(Check::KernelRegistersAreTaken);
    noticed::<{ lies_in(2) }>(Check::KernelHwptDataIsWhole);
    noticed::<{ lies_in(3) }>(Check::KernelEntriesTakePrefix);
    noticed::<{ lies_in(4) }>(Check::KernelRepeatsWhatHasTo);
    noticed::<{ lies_in(5) }>(Check::KernelEventsSurvive);
    noticed::<{ panics_in(0) }>(Check::KernelFactsAgree);
    noticed::<{ panics_in(1) }>(Check::KernelRegistersAreTaken);
    noticed::<{ panics_in(2) }>(Check::KernelHwptDataIsWhole);
    noticed::<{ panics_in(3) }>(Check::KernelEntriesTakePrefix);
    noticed::<{ panics_in(4) }>(Check::KernelRepeatsWhatHasTo);
    noticed::<{ panics_in(5) }>(Check::KernelEventsSurvive);
    noticed::<{ panics_in(6) }>(Check::KernelEventsSurvive);
}
