//! The checks by name.

use crate::{Samples, codec, driver, facts, frontend, kernel, model};
use viommu_plugin_host::{CallError, Plugin};

/// How a check ended that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The plugin breaks the contract; how.
    Failed(String),
    /// The check does not apply; why.
    Skipped(&'static str),
}

impl From<CallError> for Verdict {
    fn from(error: CallError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a check gives.
pub(crate) type Checked<T = ()> = Result<T, Verdict>;

/// Ends a check unless the condition holds.
macro_rules! ensure {
    ($right:expr, $($what:tt)*) => {
        if !$right {
            return Err($crate::Verdict::Failed(format!($($what)*)));
        }
    };
}
pub(crate) use ensure;

macro_rules! checks {
    ($($check:ident = $name:literal, $description:literal, $run:path;)*) => {
        /// A conformance check.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Check {
            $(#[doc = $description] $check,)*
        }

        impl Check {
            /// Every check, in the order in which they are best read.
            pub const ALL: &'static [Self] = &[$(Self::$check),*];

            /// Its name, in kebab-case.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$check => $name,)*
                }
            }

            /// What it checks, in one sentence.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$check => $description,)*
                }
            }

            /// Runs it in this process.
            ///
            /// # Errors
            /// [`Verdict`] if it failed or does not apply.
            pub fn run(self, plugin: &Plugin, samples: &Samples) -> Result<(), Verdict> {
                match self {
                    $(Self::$check => $run(plugin, samples),)*
                }
            }
        }
    };
}

checks! {
    EntryFactsSane = "entry-facts-sane", "Name, version and vendor code can be shown and told apart.", facts::sane;
    NameMatchesFile = "name-matches-file", "`--plugin NAME` finds the file it came from.", facts::name_matches_file;
    CreateDestroyEachPart = "create-destroy-each-part", "Every part on offer can be created and destroyed, again and again.", facts::create_destroy;
    RewriteTakesPrefix = "rewrite-takes-prefix", "A run of commands is rewritten as its commands one by one are, up to the first that is not plain.", codec::takes_prefix;
    RewriteUnknownOpcodeIsFault = "rewrite-unknown-opcode-is-fault", "A command whose opcode has no name is the guest's fault and not taken.", codec::unknown_opcode_is_fault;
    RewriteNeverWritesPastOut = "rewrite-never-writes-past-out", "Nothing is written beyond the buffer lent, and a full buffer stops the rewrite.", codec::never_writes_past_out;
    RewriteNamesOnlyGivenIds = "rewrite-names-only-given-ids", "Host words name the tag and stream given, whole and in their place, and nothing where no stream is given.", codec::names_only_given_ids;
    RewriteIsPure = "rewrite-is-pure", "The same words and IDs give the same answer, again and from several threads.", codec::is_pure;
    EntryKeyIsCanonical = "entry-key-is-canonical", "Equal entries have equal keys, and only a translating key holds words.", codec::entry_key_is_canonical;
    DescribeNonempty = "describe-nonempty", "Every command has a description for people.", codec::describe_nonempty;
    IdRegistersAreShown = "id-registers-are-shown", "A frontend shows the ID registers it was created with, also after a reset.", frontend::shows_id_registers;
    FrontendRandomMmioSurvives = "frontend-random-mmio-survives", "No register access of a guest, nor its commands and events, breaks the frontend.", frontend::random_mmio_survives;
    FrontendResetIdempotent = "frontend-reset-idempotent", "After a reset every register is as in a new frontend, and after a second reset too.", frontend::reset_idempotent;
    QueuePendingBounded = "queue-pending-bounded", "The command queue never has more pending than it holds, and advancing past it leaves none.", frontend::queue_pending_bounded;
    EntryNeedsMemory = "entry-needs-memory", "No table entry is found in memory that cannot be read.", frontend::entry_needs_memory;
    FrontendSaveRestores = "frontend-save-restores", "A frontend that is restored reads and behaves as the one that was saved, and saves the same bytes.", frontend::save_restores;
    FrontendRestoreRefuses = "frontend-restore-refuses", "Bytes that are cut short, go on behind the end or are of another version are refused with a reason and change nothing.", frontend::restore_refuses;
    FewerFeaturesAreRefused = "fewer-features-are-refused", "A guest that was shown more than there is is refused by name, one that was shown what there is is not.", frontend::fewer_features_are_refused;
    ModelRandomMmioSurvives = "model-random-mmio-survives", "No register access, command, table or request breaks the model.", model::random_mmio_survives;
    ModelStepRespectsBudget = "model-step-respects-budget", "A step consumes no more commands than its budget, and none without one.", model::step_respects_budget;
    ModelAnswersRequests = "model-answers-requests", "Every request is answered if there is room, else as many as there is room for.", model::answers_requests;
    ModelIsDeterministic = "model-is-deterministic", "The same accesses give the same answers and counters.", model::is_deterministic;
    ModelSpeculativeIsSilent = "model-speculative-is-silent", "A speculative request counts nowhere, records nothing and interrupts nobody.", model::speculative_is_silent;
    ModelResetIsPowerOn = "model-reset-is-power-on", "After a reset every register is as in a new model.", model::reset_is_power_on;
    DriverOnOwnModel = "driver-on-own-model", "The driver brings up the plugin's own model, and every stream aborts.", driver::on_own_model;
    DriverStage2Decides = "driver-stage2-decides", "A stream attached to a stage 2 reaches what is mapped there as it is mapped there, and nothing else.", driver::stage2_decides;
    DriverInvalidationsWork = "driver-invalidations-work", "After the host-side invalidations a mapping that was removed is gone.", driver::invalidations_work;
    DriverRecoversFromIllegalCommand = "driver-recovers-from-illegal-command", "An illegal command stops the queue where it stands, and the queue goes on after it is replaced.", driver::recovers_from_illegal_command;
    DriverRefusesNonsense = "driver-refuses-nonsense", "Ranges, streams and handles that cannot be are refused, and the driver goes on.", driver::refuses_nonsense;
    DriverFreesMemory = "driver-frees-memory", "A stage 2 that is destroyed leaves no memory behind.", driver::frees_memory;
    KernelFactsAgree = "kernel-facts-agree", "The types and sizes of the kernel's payloads agree with each other and do not change.", kernel::facts_agree;
    KernelRegistersAreTaken = "kernel-registers-are-taken", "Registers from any hardware information are taken by frontend and codec, and a payload that is cut short is refused.", kernel::registers_are_taken;
    KernelHwptDataIsWhole = "kernel-hwpt-data-is-whole", "A nested HWPT's payload is whole or not there, the same each time, and nothing is written beyond it.", kernel::hwpt_data_is_whole;
    KernelEntriesTakePrefix = "kernel-entries-take-prefix", "Every command that the codec passes has an entry or needs none, a run has those of its commands, and nothing is written beyond the buffer.", kernel::entries_take_prefix;
    KernelRepeatsWhatHasTo = "kernel-repeats-what-has-to", "TLB and configuration cache invalidations are said to be repeatable, device cache invalidations are not.", kernel::repeats_what_has_to;
    KernelEventsSurvive = "kernel-events-survive", "An event's payload becomes an event that the frontend takes or none, whatever is in it, and so do the data of a vIOMMU.", kernel::events_survive;
    HostPanicContained = "host-panic-contained", "A panic in the host's callbacks is an error of that call and of nothing else.", driver::host_panic_contained;
}

impl Check {
    /// The check of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|check| check.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_kebab_case_and_unique_and_descriptions_are_sentences() {
        let names: HashSet<_> = Check::ALL.iter().map(|check| check.name()).collect();
        assert_eq!(names.len(), Check::ALL.len());
        for check in Check::ALL {
            assert!(
                check.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            );
            assert!(check.description().ends_with('.') && !check.description().trim_end_matches('.').contains(". "));
            assert_eq!(Check::from_name(check.name()), Some(*check));
        }
    }
}
